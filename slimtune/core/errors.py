"""The one exception that is meant for a person's eyes. It says what happened, where, and what to do.

All problems of one kind are shown at once, so that a file with twenty bad lines costs one run, not twenty.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

from slimtune.core.units import plural
from slimtune.core.visible import visible

DEFECT = 1
BAD_INPUT = 2
DOES_NOT_FIT = 3
INTERRUPTED = 130
OUTPUT_CLOSED = 141
_SHOWN_PER_FILE = 50
_MOST_PLACES = 5  # of one and the same fault
_LONGEST_LINE = 1000
_LONGEST_NUMBER = 12  # of a line
_LINE, _NUMBER = re.compile(r":[0-9]+\Z"), re.compile(r"[0-9][0-9,]*")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    what: a full clause ("unknown key 'epoch'"). where: file and line, YAML path or option ("recipes/direct.yaml:12
    train.epoch"). fix: what to do ("did you mean 'epochs'?").
    """

    what: str
    where: str = ""
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return printable(f"{text}\n    → {self.fix}" if self.fix else text)


class SlimtuneError(Exception):
    """Bad input or an impossible wish; the command line prints it and exits with `exit_code`.

    every: all problems, where `problems` are the first of them only; these are the ones that are told.
    """

    def __init__(
        self,
        problems: Problem | Sequence[Problem],
        *,
        summary: str = "",
        exit_code: int = BAD_INPUT,
        every: Sequence[Problem] = (),
    ):
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        self.every = tuple(every) or self.problems
        self.summary = summary
        self.exit_code = exit_code
        super().__init__(str(self))

    def __str__(self) -> str:
        return "\n".join(filter(None, [printable(self.summary), *_told(self.every)]))

    def mapped(self, change: Callable[[Problem], Problem], *, summary: str | None = None) -> "SlimtuneError":
        """The same error with other problems, and with another summary if one is given."""
        problems, every = map(change, self.problems), map(change, self.every)
        summary = self.summary if summary is None else summary
        return SlimtuneError(tuple(problems), summary=summary, exit_code=self.exit_code, every=tuple(every))


def fail(what: str, *, where: str = "", fix: str = "", exit_code: int = BAD_INPUT) -> SlimtuneError:
    """The error for a single problem: `raise fail("no such file", where=path, fix="…")`."""
    return SlimtuneError(Problem(what, where, fix), exit_code=exit_code)


class Gathered:
    """Make several checks, each in a `with` block of this object, and raise what all of them found at once."""

    def __init__(self) -> None:
        self._errors: list[SlimtuneError] = []

    def __enter__(self) -> None:
        """Begin a check."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        """Keep a SlimtuneError for later; the code after the block goes on."""
        if isinstance(error, SlimtuneError):
            self._errors.append(error)
            return True
        return False

    def add(self, problems: Iterable[Problem], *, summary: str = "") -> None:
        """Keep the problems of a check that returns them."""
        if listed := list(problems):
            self._errors.append(SlimtuneError(listed, summary=summary))

    def require_none(self) -> None:
        """Raise SlimtuneError with every problem, each once, if there is one. Bad input outweighs other exit codes."""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            problems = dict.fromkeys(problem for error in self._errors for problem in error.problems)
            summary = "; ".join(dict.fromkeys(error.summary for error in self._errors if error.summary))
            every = dict.fromkeys(problem for error in self._errors for problem in error.every)
            codes = {error.exit_code for error in self._errors}
            code = BAD_INPUT if BAD_INPUT in codes else min(codes)
            raise SlimtuneError(list(problems), summary=summary, exit_code=code, every=list(every))


def bad_data(problems: Mapping[str, Sequence[Problem]], *, summary: str = "") -> SlimtuneError:
    """The error for all problems of some files. problems: path to what was found in the file.

    It holds at most 50 problems of a file, by line. Its text tells each fault once; the summary and "… and N more" count
    all problems.
    summary: what the problems mean; by default how many there are in each file.
    """
    shown: list[Problem] = []
    counts: list[str] = []
    every: list[Problem] = []
    for path, found in problems.items():
        if not found:
            continue
        in_order = sorted(found, key=lambda problem: _line_of(problem, path))
        shown += in_order[:_SHOWN_PER_FILE]
        if len(found) > _SHOWN_PER_FILE:
            shown.append(Problem(f"… and {len(found) - _SHOWN_PER_FILE} more", path))
        every += in_order
        counts.append(f"{plural(len(found), 'problem')} in {path}")
    return SlimtuneError(shown, summary=summary or ", ".join(counts), every=every)


@contextlib.contextmanager
def advising(fix: str) -> Iterator[None]:
    """Say what to do about every problem of the block that does not say it itself."""
    try:
        yield
    except SlimtuneError as error:
        advised = [replace(problem, fix=problem.fix or fix) for problem in error.problems]
        raise SlimtuneError(advised, summary=error.summary, exit_code=error.exit_code) from error.__cause__


def _told(problems: Sequence[Problem]) -> list[str]:
    """Every problem as text, the first 50 faults; a fault with many places is told once, with the first of them."""
    alike: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        alike.setdefault(_fault(problem), []).append(problem)
    told: list[str] = []
    for found in list(alike.values())[:_SHOWN_PER_FILE]:
        if len(found) <= _MOST_PLACES:
            told += map(str, found)
        else:
            places = ", ".join(problem.where for problem in found[:_MOST_PLACES])
            told.append(f"{found[0]}\n    {len(found):,} places: {printable(places)}, …")
    if left_out := sum(map(len, list(alike.values())[_SHOWN_PER_FILE:])):
        told.append(f"… and {left_out:,} more")
    return told


def _fault(problem: Problem) -> tuple[str, str]:
    """Equal for one and the same fault on several lines: the numbers in what is said of a line may differ."""
    if not _LINE.search(problem.where):
        return problem.what, problem.fix
    return _NUMBER.sub("0", problem.what), _NUMBER.sub("0", problem.fix)


def _line_of(problem: Problem, path: str) -> int:
    line = problem.where.removeprefix(f"{path}:")
    # A path may be digits alone, and more of them than a number can have.
    return int(line) if line.isdecimal() and len(line) < _LONGEST_NUMBER else 0


def printable(text: str) -> str:
    """The text with control characters and lone surrogates as escapes, and overlong lines without their middle."""
    text = visible(text)
    return "\n".join(map(_within, text.split("\n"))) if len(text) > _LONGEST_LINE else text


def _within(line: str) -> str:
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} … {line[-half:]}"
