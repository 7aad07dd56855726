"""The one exception that is meant for a person's eyes. It says what happened, where, and what to do.

All problems of one kind are shown at once, so that a file with twenty bad lines costs one run, not twenty.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """Bad input or an impossible wish; the command line prints it and exits with `exit_code`."""

    def __init__(self, problems: Problem | Sequence[Problem], *, summary: str = "", exit_code: int = BAD_INPUT):
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        self.summary = summary
        self.exit_code = exit_code
        super().__init__(str(self))

    def __str__(self) -> str:
        return "\n".join(filter(None, [printable(self.summary), *_told(self.problems)]))


class _BadDataError(SlimtuneError):
    """text: of all problems, where `problems` has the first of them only."""

    def __init__(self, problems: Sequence[Problem], summary: str, text: str):
        self.text = text
        super().__init__(problems, summary=summary)

    def __str__(self) -> str:
        return self.text


def fail(what: str, *, where: str = "", fix: str = "", exit_code: int = BAD_INPUT) -> SlimtuneError:
    """The error for a single problem: `raise fail("no such file", where=path, fix="…")`."""
    return SlimtuneError(Problem(what, where, fix), exit_code=exit_code)


def bad_data(problems: Mapping[str, Sequence[Problem]]) -> SlimtuneError:
    """The error for all problems of some files. problems: path to what was found in the file.

    It holds at most 50 problems of a file, by line. Its text tells each fault once; the summary and "… and N more" count
    all problems.
    """
    shown: list[Problem] = []
    counts: list[str] = []
    text: list[str] = []
    for path, found in problems.items():
        if not found:
            continue
        in_order = sorted(found, key=lambda problem: _line_of(problem, path))
        shown += in_order[:_SHOWN_PER_FILE]
        if len(found) > _SHOWN_PER_FILE:
            shown.append(Problem(f"… and {len(found) - _SHOWN_PER_FILE} more", path))
        text += _told(in_order)
        counts.append(f"{plural(len(found), 'problem')} in {path}")
    summary = printable(", ".join(counts))
    return _BadDataError(shown, summary, "\n".join([summary, *text]))


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
    return int(line) if line.isdecimal() else 0


def printable(text: str) -> str:
    """The text with control characters and lone surrogates as escapes, and overlong lines without their middle."""
    text = visible(text)
    return "\n".join(map(_within, text.split("\n"))) if len(text) > _LONGEST_LINE else text


def _within(line: str) -> str:
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} … {line[-half:]}"
