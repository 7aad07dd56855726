"""One error for all the files of a run, short enough to read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from slimtune.core.errors import Problem, SlimtuneError

SHOWN_PER_FILE = 50


def bad_data(problems: Mapping[str, Sequence[Problem]]) -> SlimtuneError:
    """The error for all problems of some files. problems: path to what was found in the file.

    At most `SHOWN_PER_FILE` problems of a file are listed, by line; the summary and "… and N more" count them all.
    """
    shown: list[Problem] = []
    counts: list[str] = []
    for path, found in problems.items():
        if not found:
            continue
        in_order = sorted(found, key=lambda problem: _line_of(problem, path))
        shown += in_order[:SHOWN_PER_FILE]
        if len(found) > SHOWN_PER_FILE:
            shown.append(Problem(f"… and {len(found) - SHOWN_PER_FILE} more", path))
        counts.append(f"{len(found)} problem{'s' if len(found) > 1 else ''} in {path}")
    return SlimtuneError(shown, summary=", ".join(counts))


class Named(Protocol):
    """Something with an id, and "file:line"."""

    @property
    def id(self) -> str: ...
    @property
    def where(self) -> str: ...


def repeated_ids(things: Iterable[Named], noun: str) -> list[Problem]:
    """A problem for each thing whose id an earlier one has, with both places."""
    first: dict[str, Named] = {}
    problems: list[Problem] = []
    for thing in things:
        earlier = first.setdefault(thing.id, thing)
        if earlier is not thing:
            what = f"the id '{thing.id}' is used twice: {earlier.where} and {thing.where}"
            problems.append(Problem(what, thing.where, f"give each {noun} its own id"))
    return problems


def _line_of(problem: Problem, path: str) -> int:
    line = problem.where.removeprefix(f"{path}:")
    return int(line) if line.isdecimal() else 0
