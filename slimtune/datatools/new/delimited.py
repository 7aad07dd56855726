"""CSV, TSV and their relatives as spreadsheets save them: any usual delimiter, and the usual encodings where they are clear."""

import re
from collections import Counter
from pathlib import Path, PurePath

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError, bad_data
from slimtune.data import encoding
from slimtune.data.sources import csv_records
from slimtune.datatools.new.grid import Grid, line_of

_DELIMITERS = (",", "\t", ";", "|")
_SAMPLE_LINES = 200
_SEPARATOR = re.compile(r"sep=(.)\n", re.IGNORECASE)
# Rows with another number of cells than the others that are still a table's.
_RAGGED_SHARE = 0.1


def read(path: str) -> Grid | None:
    """The cells of a text file; None for text in which no delimiter makes columns.

    The rows are written anew as UTF-8, so that another encoding that is beyond doubt is read, and told in the notes.
    Raises SlimtuneError for one that is not clear, for quotes that are never closed, and for rows with too many cells.
    """
    data = inputs.read_bytes(Path(path), most=encoding.MOST_BYTES)
    notes: list[str] = []
    problems: list[Problem] = []
    text, bad_lines = _decoded(data, path, notes, problems)
    if problems:
        raise bad_data({path: problems})
    if not text.strip():
        raise SlimtuneError(Problem("the file is empty", path, "write at least one example into it"))
    told = _SEPARATOR.match(text)
    delimiter = told[1] if told else _delimiter(text, PurePath(path).suffix.lower())
    if not delimiter:
        return None
    grid = Grid(path, [], notes=notes)
    for number, cells in csv_records(text, delimiter, path, bad_lines, problems):
        if told and number == 1:
            continue
        line = line_of(number, cells)
        if line.filled:
            grid.lines.append(line)
        else:
            grid.empty.append(number)
    problems += _too_long(grid, path)
    if problems:
        raise bad_data({path: problems})
    return grid


def _decoded(data: bytes, path: str, notes: list[str], problems: list[Problem]) -> tuple[str, frozenset[int]]:
    found: list[Problem] = []
    text, bad_lines = encoding.decode(data, path, found)
    if not found:
        return text, bad_lines
    guess = encoding.certain(data)
    if guess is None:
        problems += found
        return "", frozenset()
    name, decoded = guess
    notes.append(f"the file is {name}, and the new files are UTF-8")
    return decoded, frozenset()


def _delimiter(text: str, suffix: str) -> str:
    """The delimiter that gives the most rows one and the same number of cells; "" where none gives two."""
    sample = "\n".join(text.split("\n")[:_SAMPLE_LINES])
    best, best_share = "", 0.0
    order = ("\t", *(one for one in _DELIMITERS if one != "\t")) if suffix in (".tsv", ".tab") else _DELIMITERS
    for delimiter in order:
        ignored: list[Problem] = []
        widths = [len(cells) for _, cells in csv_records(sample, delimiter, "", frozenset(), ignored) if any(cells)]
        several = Counter(width for width in widths if width > 1)
        if not several:
            continue
        share = several.most_common(1)[0][1] / len(widths)
        if share > best_share:
            best, best_share = delimiter, share
    if suffix in (".csv", ".tsv", ".tab"):
        # A single column is a table too, and a file of this name is one.
        return best or ","
    return best if best_share >= 1 - _RAGGED_SHARE else ""


def _too_long(grid: Grid, path: str) -> list[Problem]:
    """A problem for each row with more cells than nearly all others: what follows a delimiter would be lost."""
    widths = Counter(len(line.cells) for line in grid.lines)
    if not widths:
        return []
    width = max(widths, key=lambda one: (widths[one], one))
    heading = len(grid.lines[0].cells)
    width = max(width, heading) if widths[heading] else width
    fix = 'a cell with a delimiter, a quote or a line break needs "quotes" around it'
    return [
        Problem(f"{len(line.cells)} cells, but the other rows have {width}", f"{path}:{line.number}", fix)
        for line in grid.lines
        if any(line.cells[width:])
    ]
