"""The one exception that is meant for a person's eyes. It says what happened, where, and what to do.

All problems of one kind are shown at once, so that a file with twenty bad lines costs one run, not twenty.
"""

from collections.abc import Sequence
from dataclasses import dataclass

BAD_INPUT = 2
DOES_NOT_FIT = 3
INTERRUPTED = 130


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
