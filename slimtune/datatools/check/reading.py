"""The rows of a training file one after another, as the loader would take them, without holding the file in memory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import BinaryIO

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.data import formats
from slimtune.data.formats import Converted
from slimtune.data.json_rows import Row, read_lines
from slimtune.data.sources import is_hub_id, read_rows
from slimtune.data.text import normalised

_BLOCK_BYTES = 4 * 2**20
# So many rows of a file that is read whole are passed on at once.
_ROWS_AT_ONCE = 2000
_LINE_SUFFIXES = (".jsonl", ".ndjson")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Reading:
    """One file on its way. rows: objects that were read. done, total: bytes; of a data set on the hub rows.

    problems: what the loader would refuse, complete when all rows have been taken.
    """

    path: str
    format: str = ""
    rows: int = 0
    done: int = 0
    total: int = 0
    problems: list[Problem] = field(default_factory=list)


def read(reading: Reading, *, format: str = "auto", system: str | None = None) -> Iterator[list[Converted]]:
    """The file's sound rows, in lists of a few thousand at most; what is wrong with the others is in `reading.problems`.

    JSONL in UTF-8 is read piece by piece; everything else, and a file with a damaged encoding, whole.
    """
    prompt = None if system is None else normalised(system)
    blocks = row_blocks(reading)
    first = _first_rows(blocks)
    name = formats.choose(first, format, reading.path, reading.problems) if first else None
    reading.format = name or ""
    for rows in itertools.chain([first], blocks):
        reading.rows += len(rows)
        # Without a format the lines are still read: what is broken in them is to be told, too.
        if name and rows:
            yield formats.convert_rows(rows, name, format, path=reading.path, system=prompt, problems=reading.problems)


def _first_rows(blocks: Iterator[list[Row]]) -> list[Row]:
    """As many blocks as it takes to tell the file's format as the loader does."""
    first: list[Row] = []
    for rows in blocks:
        first += rows
        if len(first) >= formats.FIRST_ROWS:
            break
    return first


def row_blocks(reading: Reading) -> Iterator[list[Row]]:
    """The file's rows as it has them, piece by piece; `done`, `total` and `problems` are kept up to date."""
    path = Path(reading.path)
    if is_hub_id(reading.path) or not path.is_file():
        yield from _whole(reading)
        return
    reading.total = path.stat().st_size
    if not _is_plain_jsonl(path):
        yield from _whole(reading)
        return
    line, found = 1, False
    with path.open("rb") as file:
        for block in _whole_lines(file):
            reading.done += len(block)
            text = block.removeprefix(_BYTE_ORDER_MARK).decode("utf-8").replace("\r\n", "\n")
            rows = read_lines(text, reading.path, frozenset(), reading.problems, first_line=line)
            line += text.count("\n")
            found = found or bool(rows)
            yield rows
    if not found and not reading.problems:
        reading.problems.append(Problem("the file is empty", reading.path, "write at least one example into it"))


def _whole(reading: Reading) -> Iterator[list[Row]]:
    """The rows of a file that is read at once, piece by piece, so that what follows can say how far it is."""
    try:
        rows = read_rows(reading.path, reading.problems)
    except SlimtuneError as error:  # of the hub
        reading.problems += error.problems
        return
    reading.total = reading.total or len(rows)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        piece = rows[start : start + _ROWS_AT_ONCE]
        reading.done = reading.total * (start + len(piece)) // len(rows)
        yield piece


def _is_plain_jsonl(path: Path) -> bool:
    """Whether reading line by line gives what `read_rows` gives: UTF-8, ordinary line ends, an object in the first line."""
    if PurePath(path).suffix.lower() not in _LINE_SUFFIXES or not os.access(path, os.R_OK):
        return False
    first = b""
    with path.open("rb") as file:
        for block in _whole_lines(file):
            try:
                block.decode("utf-8")
            except UnicodeDecodeError:
                return False
            if b"\x1b$" in block or b"\0" in block or block.count(b"\r") != block.count(b"\r\n"):
                return False
            first = first or block.removeprefix(_BYTE_ORDER_MARK).lstrip().partition(b"\n")[0].strip()
    # A lone "{" begins an object over several lines.
    return first.startswith(b"{") and first != b"{"


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """The file in pieces that end where a line does."""
    while block := file.read(_BLOCK_BYTES):
        yield block + file.readline()
