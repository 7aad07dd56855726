"""What an inspection finds: the one type behind `doctor`, `data check` and `export --check`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from slimtune.core.errors import Problem
from slimtune.core.units import plural

Level = Literal["error", "warning", "note", "ok"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note", "ok")
"""Worst first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an inspection found.

    level: an error is refused or gives wrong results, a warning may, a note only informs, ok is a check that passed.
    what, where, fix: as in `Problem`. code: the kind of finding ("label-at-prompt-end"), if these are counted.
    """

    level: Level
    what: str
    fix: str = ""
    where: str = ""
    code: str = ""


def refused(problem: Problem, code: str) -> Finding:
    """The finding for something that is an error elsewhere too."""
    return Finding("error", problem.what, problem.fix, problem.where, code)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by level and keep the order within a level."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def render(findings: Sequence[Finding]) -> str:
    """One line per finding, its fix indented below, and the number of errors and warnings at the end."""
    rows = []
    for finding in findings:
        place = f"{finding.where}: " if finding.where else ""
        rows.append(f"{finding.level:<8} {place}{finding.what}")
        rows += [f"         → {line.strip().removeprefix('→ ')}" for line in finding.fix.splitlines() if line.strip()]
    count = Counter(finding.level for finding in findings)
    return "\n".join([*rows, f"{plural(count['error'], 'error')}, {plural(count['warning'], 'warning')}"])
