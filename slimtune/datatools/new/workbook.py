"""Excel workbooks (.xlsx): the values that Excel saw, within bounds.

openpyxl streams the sheets. What a workbook would unpack to is known before, and a document type, with which XML grows
without limit, is refused.
"""

import datetime
import io
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.units import plural
from slimtune.datatools.new.grid import Grid, Line, line_of

SUFFIXES = (".xlsx", ".xlsm")
_MOST_BYTES = 2**28
_MOST_UNPACKED = 2**29
_MOST_PARTS = 10_000
_MOST_CELLS = 20_000_000
_MOST_LINES = 1_048_576
_SHOWN_CELLS = 5
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell ref="([A-Z]{1,3})([0-9]{1,7}):([A-Z]{1,3})([0-9]{1,7})"')
_FORMULA = re.compile(rb"<(?:\w+:)?f[ >/]")
_AGAIN = "open it in a spreadsheet program, save it again, or export the sheet as CSV (UTF-8)"
_UNREADABLE = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, struct.error, SyntaxError),
    *(KeyError, IndexError, AttributeError, TypeError, ValueError, OverflowError, NotImplementedError, RuntimeError),
    *(MemoryError, RecursionError, OSError, AssertionError),
)
"""What zipfile, XML parsers and openpyxl raise for a damaged workbook."""


def is_workbook(head: bytes) -> bool:
    """Whether a file with these first bytes may be a workbook."""
    return head.startswith(b"PK\x03\x04")


def read(path: str, sheet: str | None = None) -> Grid:
    """The cells of a sheet as text: the named one, or that with the most rows.

    Numbers are written as Excel's general format has them, dates as ISO 8601. The cells of a merged area that stand below
    its first one get its value. Raises SlimtuneError for what is no workbook, an unknown sheet, formulas without values,
    and cells that hold an error.
    """
    data = inputs.read_bytes(Path(path), most=_MOST_BYTES)
    try:
        parts = _parts(data, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on styles and extensions, which are not read
            return _read(data, parts, path, sheet)
    except SlimtuneError:
        raise
    except _UNREADABLE as error:
        raise fail(f"the workbook cannot be read: {inputs.reason(error)}", where=path, fix=_AGAIN) from error


def _parts(data: bytes, path: str) -> frozenset[str]:
    """The names of its parts. Raises SlimtuneError for one that unpacks to too much."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = archive.infolist()
        unpacked = sum(part.file_size for part in found)
        if len(found) > _MOST_PARTS or unpacked > _MOST_UNPACKED:
            what = f"the workbook unpacks to {len(found):,} parts of {unpacked:,} bytes"
            fix = f"export the sheet as CSV (UTF-8): at most {_MOST_UNPACKED:,} bytes are unpacked"
            raise fail(what, where=path, fix=fix)
        if any(part.flag_bits & 1 for part in found):
            raise fail("the workbook is protected with a password", where=path, fix="save it without one")
        names = frozenset(part.filename for part in found)
        if "xl/workbook.xml" not in names:
            what = "this is an archive, but not an Excel workbook"
            raise fail(what, where=path, fix="name an .xlsx file, or export the table as CSV (UTF-8)")
        for part in found:
            if part.filename.endswith((".xml", ".rels")) and b"<!DOCTYPE" in _start(archive, part):
                what = f"the part {part.filename} has a document type, which no workbook has"
                raise fail(what, where=path, fix=_AGAIN)
    return names


def _start(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bytes:
    with archive.open(part) as file:
        return file.read(4096)


def _read(data: bytes, parts: frozenset[str], path: str, wanted: str | None) -> Grid:
    from openpyxl import load_workbook

    book = load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
    sheets = list(book.worksheets)
    titles = [sheet.title for sheet in sheets]
    shown = ", ".join(map(repr, titles)) or "none"
    if wanted is not None and wanted not in titles:
        raise fail(f"there is no sheet '{wanted}'", where=f"{path} --sheet", fix=f"the sheets are {shown}")
    problems: dict[str, list[Problem]] = {}
    grids: dict[str, Grid] = {}
    cells = 0
    for sheet in sheets:
        if wanted is not None and sheet.title != wanted:
            continue
        where = f"{path} ({sheet.title})" if len(sheets) > 1 else path
        sheet.reset_dimensions()  # what a file says of its size may be anything
        grid, faulty = Grid(where, []), []
        for number, row in enumerate(sheet.iter_rows(), start=1):
            cells += len(row)
            if cells > _MOST_CELLS or number > _MOST_LINES:
                what = f"the workbook has more than {_MOST_CELLS:,} cells"
                raise fail(what, where=where, fix="export the sheet as CSV (UTF-8), or delete what is not needed")
            faulty += [f"{cell.coordinate} {cell.value}" for cell in row if cell.value and cell.data_type == "e"]
            line = line_of(number, [_text(cell.value) for cell in row])
            if line.filled:
                grid.lines.append(line)
            else:
                grid.empty.append(number)
        grid.empty = [number for number in grid.empty if grid.lines and number < grid.lines[-1].number]
        grids[sheet.title] = grid
        if faulty:
            told = ", ".join(faulty[:_SHOWN_CELLS]) + (", …" if len(faulty) > _SHOWN_CELLS else "")
            what = f"{plural(len(faulty), 'cell')} {'holds an error' if len(faulty) == 1 else 'hold errors'}: {told}"
            problems[sheet.title] = [Problem(what, where, "correct the formulas, or delete these cells")]
    title = max(grids, key=lambda name: len(grids[name].lines), default="")
    if not title or not grids[title].lines:
        raise fail("the workbook has no cell with text", where=path, fix="name the file that you meant")
    chosen = grids[title]
    source = next(sheet for sheet in sheets if sheet.title == title)._worksheet_path.lstrip("/")
    found = problems.get(title, []) + _without_values(data, source, title, chosen)
    if found:
        raise SlimtuneError(found)
    if len(sheets) > 1:
        others = ", ".join(repr(name) for name in titles if name != title)
        why = "" if wanted else ", as it has the most rows"
        chosen.notes.append(f"the sheet '{title}' is read{why}; the others are {others}")
    _fill_merged(data, source, chosen)
    return chosen


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "seconds")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value).replace("_x000D_", "").replace("\r\n", "\n").replace("\r", "\n")


def _without_values(data: bytes, source: str, title: str, grid: Grid) -> list[Problem]:
    """A problem where formulas were saved without what they come to, as programs do that are no spreadsheet."""
    if not any(_FORMULA.search(block) for block in _blocks(data, source)):
        return []
    from openpyxl import load_workbook

    values = {line.number: line.cells for line in grid.lines}
    missing = []
    sheet = load_workbook(io.BytesIO(data), read_only=True, keep_links=False)[title]
    sheet.reset_dimensions()
    for number, row in enumerate(sheet.iter_rows(), start=1):
        cells = values.get(number, ())
        for place, cell in enumerate(row):
            if cell.data_type == "f" and not (place < len(cells) and cells[place]):
                missing.append(cell.coordinate)
    if not missing:
        return []
    told = ", ".join(missing[:_SHOWN_CELLS]) + (", …" if len(missing) > _SHOWN_CELLS else "")
    what = f"{plural(len(missing), 'formula')} without a value: {told}"
    fix = "open the file in a spreadsheet program and save it, or replace the formulas by their values"
    return [Problem(what, grid.path, fix)]


def _blocks(data: bytes, source: str) -> Iterator[bytes]:
    """The XML of a part, in pieces that overlap by the length of a short tag."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(source) as file:
        before = b""
        while block := file.read(2**20):
            yield before + block
            before = block[-200:]


def _fill_merged(data: bytes, source: str, grid: Grid) -> None:
    """Give every row of a merged area what stands in its first one; across columns it stays one cell."""
    areas = {match.groups() for block in _blocks(data, source) for match in _MERGED.finditer(block)}
    place_of = {line.number: index for index, line in enumerate(grid.lines)}
    filled = 0
    for column, first, _, last in sorted(areas):
        top, bottom, place = int(first), int(last), _column(column.decode())
        if bottom <= top or top not in place_of:
            continue
        above = grid.lines[place_of[top]].cells
        value = above[place] if place < len(above) else ""
        for number in range(top + 1, min(bottom, grid.lines[-1].number) + 1):
            index = place_of.get(number)
            if value and index is not None:
                cells = list(grid.lines[index].cells)
                cells += [""] * (place + 1 - len(cells))
                if not cells[place]:
                    cells[place] = value
                    grid.lines[index] = Line(number, tuple(cells))
                    filled += 1
    if filled:
        what = "cell of a merged area gets" if filled == 1 else "cells of merged areas get"
        grid.notes.append(f"{filled:,} {what} the value of the first one")


def _column(letters: str) -> int:
    """ "A" is 0, "AA" is 26."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - 64
    return number - 1
