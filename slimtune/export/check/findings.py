"""What a look at a file gave: the lines that `slimtune export --check` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["problem", "warning", "note"]
_ORDER: dict[Level, int] = {"problem": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was seen.

    level: a problem is refused or answers wrongly; a warning may; a note only says what is there, or was not looked at.
    where: the file, with `:line` in a Modelfile. fix: what to do, "" where nothing has to be done.
    """

    level: Level
    what: str
    fix: str = ""
    where: str = ""


def render(findings: Sequence[Finding]) -> str:
    """Problems first, then warnings, then notes; the fix indented below each, and the counts at the end."""
    rows = []
    for finding in sorted(findings, key=lambda one: _ORDER[one.level]):
        place = f"{finding.where}: " if finding.where else ""
        rows.append(f"{finding.level:<8} {place}{finding.what}")
        rows += [f"         → {line.strip()}" for line in finding.fix.splitlines() if line.strip()]
    count = Counter(finding.level for finding in findings)
    return "\n".join([*rows, f"{_plural(count['problem'], 'problem')}, {_plural(count['warning'], 'warning')}"])


def first_difference(expected: str, found: str) -> str:
    """Where two texts part, with a little of both: "at character 12: '…' expected, '…' found"."""
    pairs = zip(expected, found, strict=False)
    place = next((i for i, (one, two) in enumerate(pairs) if one != two), min(len(expected), len(found)))
    window = slice(max(place - 16, 0), place + 32)
    return f"at character {place + 1}: {expected[window]!r} expected, {found[window]!r} found"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
