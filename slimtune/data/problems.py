"""One error for all the files of a run, short enough to read."""

from collections.abc import Iterable, Mapping, Sequence

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.units import plural

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
        counts.append(f"{plural(len(found), 'problem')} in {path}")
    return SlimtuneError(shown, summary=", ".join(counts))


def repeated_ids(places: Iterable[tuple[str, str]], noun: str) -> list[Problem]:
    """A problem for each thing whose id an earlier one has. places: the id and "file:line" of each thing."""
    first: dict[str, str] = {}
    problems: list[Problem] = []
    for id, where in places:
        if id in first:
            what = f"the id '{id}' is used twice: {first[id]} and {where}"
            problems.append(Problem(what, where, f"give each {noun} its own id"))
        first.setdefault(id, where)
    return problems


def _line_of(problem: Problem, path: str) -> int:
    line = problem.where.removeprefix(f"{path}:")
    return int(line) if line.isdecimal() else 0
