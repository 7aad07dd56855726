"""A table of text cells, as a spreadsheet or a CSV file has it, before anybody knows what its first row is."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import median

from slimtune.data.json_rows import Row
from slimtune.data.text import normalised
from slimtune.datatools.new import names

_SENTENCE_END = re.compile(r"[.。．!！?？…]$")
_NUMBER = re.compile(r"[-+]?[\d,.]+%?")
_LONGEST_NAME = 40
# Of the rows below a heading: enough to know what a column holds.
_COMPARED = 50
_TITLE_ROWS = 20
# A heading is at most this share of what usually stands below it.
_SHORT_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Line:
    """number: 1-based, in the file or the sheet. cells: without white space around them; "" for an empty one."""

    number: int
    cells: tuple[str, ...]

    @property
    def filled(self) -> int:
        return sum(map(bool, self.cells))


@dataclass(slots=True)
class Grid:
    """path: for messages, with the sheet where there are several. empty: the numbers of lines without any text."""

    path: str
    lines: list[Line]
    empty: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Table:
    """Rows under column names. headless: whether the file names no column, so that these are "column 1", "column 2" …

    empty: the numbers of lines without any text. notes: how the file was read.
    """

    path: str
    columns: list[str]
    rows: list[Row]
    headless: bool = False
    empty: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def line_of(number: int, cells: Sequence[str]) -> Line:
    return Line(number, tuple(cell.strip() for cell in cells))


def as_table(grid: Grid, wanted: Collection[str] = ()) -> Table:
    """The table below the heading. wanted: names of columns that somebody says are there.

    A title above the heading (a row with a single cell) is passed over. Empty columns are left out, and a column without
    a name is called by its number.
    """
    lines = grid.lines
    width = max((len(line.cells) for line in lines), default=0)
    used = [place for place in range(width) if any(place < len(line.cells) and line.cells[place] for line in lines)]
    start, has_heading = _heading(lines, used, wanted)
    notes = list(grid.notes)
    if start:
        notes.append(f"passed over above the table: {_shortened(' '.join(filter(None, lines[0].cells)))}")
    columns: list[str] = []
    for position, place in enumerate(used, start=1):
        name = _cell(lines[start], place) if has_heading else ""
        name = name or f"column {position}"
        columns.append(name if name not in columns else f"{name} ({position})")
    if not has_heading and lines:
        notes.append("the first row looks like data, so the columns have no names")
    rows = []
    for line in lines[start + has_heading :]:
        rows.append(Row(line.number, {name: _cell(line, place) for name, place in zip(columns, used, strict=True)}))
    return Table(grid.path, columns, rows, not has_heading, list(grid.empty), notes)


def _heading(lines: Sequence[Line], used: Sequence[int], wanted: Collection[str]) -> tuple[int, bool]:
    """The index of the first line of the table, and whether it names the columns."""
    for index, line in enumerate(lines[:_TITLE_ROWS]):
        if wanted and set(wanted) <= set(line.cells):
            return index, True
    start = 0
    # A title and remarks above a table have one cell each, the table has more.
    if len(used) > 1:
        while start < min(len(lines) - 1, _TITLE_ROWS) and lines[start].filled < 2:
            start += 1
        if lines and lines[start].filled < 2:
            start = 0
    if not lines:
        return 0, False
    return start, _names_columns(lines[start], lines[start + 1 : start + 1 + _COMPARED], used)


def _names_columns(first: Line, below: Sequence[Line], used: Sequence[int]) -> bool:
    """Whether a line looks like names of columns, and not like what stands in the lines below it."""
    cells = [_cell(first, place) for place in used]
    filled = [cell for cell in cells if cell]
    if any(names.is_known(cell) for cell in filled):
        return True
    if not below or not filled:
        return False
    if any(len(cell) > _LONGEST_NAME or _SENTENCE_END.search(cell) or _NUMBER.fullmatch(cell) for cell in filled):
        return False
    if len(set(filled)) < len(filled):
        return False
    differs = False
    for place in used:
        cell = _cell(first, place)
        values = [value for line in below if (value := _cell(line, place))]
        if not cell or not values:
            continue
        if cell in values:
            return False
        numbers = sum(bool(_NUMBER.fullmatch(value)) for value in values)
        differs |= numbers > len(values) / 2
        differs |= len(cell) <= _SHORT_SHARE * median(map(len, values))
        differs |= _script(cell) != _script("".join(values[:_COMPARED]))
    return differs


def _script(text: str) -> str:
    """The commonest script of the letters: "LATIN", "CJK" …, with kana as Chinese characters."""
    found: dict[str, int] = {}
    for character in normalised(text[:2000], "NFKC"):
        if character.isalpha():
            name = unicodedata.name(character, "").partition(" ")[0]
            name = "CJK" if name in ("HIRAGANA", "KATAKANA") else name
            found[name] = found.get(name, 0) + 1
    return max(found, key=lambda name: found[name]) if found else ""


def _cell(line: Line, place: int) -> str:
    return line.cells[place] if place < len(line.cells) else ""


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"
