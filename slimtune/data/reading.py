"""The one reader of data files: their rows, or the records that these become, a few thousand at a time.

JSONL in UTF-8 is not held in memory; every other kind of file is read whole.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import BinaryIO

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.files import sha256_file
from slimtune.data import formats
from slimtune.data.formats import Converted
from slimtune.data.json_rows import Row, read_lines
from slimtune.data.sources import is_hub_id, read_rows

_BLOCK_BYTES = 4 * 2**20
_ROWS_AT_ONCE = 2000
"""Rows of a file that is read whole are passed on in pieces of this size."""
_LINE_SUFFIXES = (".jsonl", ".ndjson")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(slots=True)
class DataFile:
    """A data file or a data set on the hub, and how far it has been read.

    format: one of `formats.FORMATS`. setting: the option that asked for the format and its value, for messages.
    system: the system prompt of rows without one.
    layout: the format that the file has, "" until it is known. rows: objects read so far. done, total: bytes; rows for
    a data set on the hub. problems: what is wrong with the file, complete once everything has been read.
    """

    path: str
    format: str = "auto"
    system: str | None = None
    setting: tuple[str, str] | None = None
    layout: str = ""
    rows: int = 0
    done: int = 0
    total: int = 0
    problems: list[Problem] = field(default_factory=list)

    def records(self) -> Iterator[list[Converted]]:
        """The sound rows as records; what is wrong with the others is in `problems`."""
        blocks = self.row_blocks()
        first: list[Row] = []
        for rows in blocks:
            first += rows
            if len(first) >= formats.FIRST_ROWS:
                break
        name = formats.choose(first, self.format, self.path, self.problems, setting=self.setting) if first else None
        self.layout = name or ""
        for rows in itertools.chain([first], blocks):
            self.rows += len(rows)
            # Without a layout the lines are still read, to find the broken ones.
            if name and rows:
                yield formats.convert_rows(
                    rows, name, self.format, path=self.path, system=self.system, problems=self.problems
                )

    def row_blocks(self) -> Iterator[list[Row]]:
        """The rows as the file has them; `done`, `total` and `problems` are kept up to date."""
        path = Path(self.path)
        if is_hub_id(self.path) or not path.is_file():
            yield from self._whole()
            return
        self.total = path.stat().st_size
        if not _is_plain_jsonl(path):
            yield from self._whole()
            return
        line, found = 1, False
        with path.open("rb") as file:
            for block in _whole_lines(file):
                self.done += len(block)
                text = block.removeprefix(_BYTE_ORDER_MARK).decode("utf-8").replace("\r\n", "\n")
                rows = read_lines(text, self.path, frozenset(), self.problems, first_line=line)
                line += text.count("\n")
                found = found or bool(rows)
                yield rows
        if not found and not self.problems:
            self.problems.append(Problem("the file is empty", self.path, "write at least one example into it"))

    def _whole(self) -> Iterator[list[Row]]:
        try:
            rows = read_rows(self.path, self.problems)
        except SlimtuneError as error:  # from the hub
            self.problems += error.problems
            return
        self.total = self.total or len(rows)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            piece = rows[start : start + _ROWS_AT_ONCE]
            self.done = self.total * (start + len(piece)) // len(rows)
            yield piece


def distinct(paths: Sequence[str]) -> tuple[dict[str, str | None], list[Problem]]:
    """Each file with the SHA-256 of its bytes, and a problem for each that is listed again, by name or by content.

    The SHA-256 is None for a data set on the hub and for a file that cannot be read, which reading it reports.
    """
    hashes: dict[str, str | None] = {}
    problems: list[Problem] = []
    for path in paths:
        if path in hashes:
            problems.append(Problem("the file is listed twice", path, "list it once; a recipe can give it more weight"))
            continue
        sha256 = _sha256(path)
        same = next((other for other, known in hashes.items() if sha256 is not None and known == sha256), None)
        if same is None:
            hashes[path] = sha256
        else:
            what = f"the same content as {same}, which is listed too"
            problems.append(Problem(what, path, "list one of them; a recipe can give it more weight"))
    return hashes, problems


def _sha256(path: str) -> str | None:
    if is_hub_id(path):
        return None
    try:
        return sha256_file(Path(path))
    except OSError:
        return None


def _is_plain_jsonl(path: Path) -> bool:
    """Whether reading line by line gives what `read_rows` gives: UTF-8, usual line ends, an object in the first line."""
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
