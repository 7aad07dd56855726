"""The one exception that is meant for a person's eyes. It says what happened, where, and what to do.

All problems of one kind are shown at once, so that a file with twenty bad lines costs one run, not twenty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slimtune.core.units import plural

DEFECT = 1
BAD_INPUT = 2
DOES_NOT_FIT = 3
INTERRUPTED = 130
_SHOWN_PER_FILE = 50


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
        return f"{text}\n    → {self.fix}" if self.fix else text


class SlimtuneError(Exception):
    """Bad input or an impossible wish; the command line prints it and exits with `exit_code`."""

    def __init__(self, problems: Problem | Sequence[Problem], *, summary: str = "", exit_code: int = BAD_INPUT):
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        self.summary = summary
        self.exit_code = exit_code
        super().__init__(str(self))

    def __str__(self) -> str:
        return "\n".join(filter(None, [self.summary, *map(str, self.problems)]))


def fail(what: str, *, where: str = "", fix: str = "", exit_code: int = BAD_INPUT) -> SlimtuneError:
    """The error for a single problem: `raise fail("no such file", where=path, fix="…")`."""
    return SlimtuneError(Problem(what, where, fix), exit_code=exit_code)


def bad_data(problems: Mapping[str, Sequence[Problem]]) -> SlimtuneError:
    """The error for all problems of some files. problems: path to what was found in the file.

    At most 50 problems of a file are listed, by line; the summary and "… and N more" count them all.
    """
    shown: list[Problem] = []
    counts: list[str] = []
    for path, found in problems.items():
        if not found:
            continue
        shown += sorted(found, key=lambda problem: _line_of(problem, path))[:_SHOWN_PER_FILE]
        if len(found) > _SHOWN_PER_FILE:
            shown.append(Problem(f"… and {len(found) - _SHOWN_PER_FILE} more", path))
        counts.append(f"{plural(len(found), 'problem')} in {path}")
    return SlimtuneError(shown, summary=", ".join(counts))


def _line_of(problem: Problem, path: str) -> int:
    line = problem.where.removeprefix(f"{path}:")
    return int(line) if line.isdecimal() else 0
