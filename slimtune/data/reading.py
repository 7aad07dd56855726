"""The one reader of data files: their rows, or the records that these become, a few thousand at a time.

JSONL in UTF-8 is not held in memory; every other kind of file is read whole.
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.units import plural
from slimtune.data import formats
from slimtune.data.json_rows import Row, read_lines
from slimtune.data.preference_keys import Marks, marks, refusal
from slimtune.data.sources import is_hub_id, read_rows
from slimtune.recipe.names import FormatName

_BLOCK_BYTES = 4 * 2**20
_LONGEST_LINE = 256 * 2**20
_ROWS_AT_ONCE = 2000  # of a file that is read whole
_LINE_SUFFIXES = (".jsonl", ".ndjson")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(slots=True)
class DataFile:
    """A data file or a data set on the hub, and what has been read of it so far.

    format: one of `formats.FORMATS`. setting: the option that asked for the format and its value, for messages.
    system: the system prompt of rows without one. problems: what is wrong with the file.
    layout: the format that the file has, "" until it is known. rows: its objects. sound: those that became records.
    nfc_changed: of these, whose text is changed by normalisation. ignored: keys that the format lacks, with their rows.
    excluded: turns of the assistant that carry no loss, by their author's wish. empty_systems: rows whose empty system
    prompt is left out.
    done, total: bytes; rows for a data set on the hub.
    """

    path: str
    format: str = "auto"
    system: str | None = None
    setting: tuple[str, str] | None = None
    layout: str = ""
    rows: int = 0
    sound: int = 0
    nfc_changed: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    excluded: int = 0
    empty_systems: int = 0
    done: int = 0
    total: int = 0
    problems: list[Problem] = field(default_factory=list)
    _comparisons: int = 0
    _first_comparison: tuple[int, Marks] | None = None

    def records(self) -> Iterator[list[Any]]:
        """The sound rows as records; what is wrong with the others is in `problems`."""
        blocks = self.row_blocks()
        first: list[Row] = []
        for rows in blocks:
            first += rows
            if len(first) >= formats.FIRST_ROWS:
                break
        usable = self._usable(first)
        name = self._choose(usable) if usable else None
        self.layout = name or ""
        for rows in itertools.chain([usable], (self._usable(rows) for rows in blocks)):
            # Without a layout the lines are still read, to find the broken ones.
            if name and rows:
                found = self._convert(rows, name)
                self.sound += len(found)
                for one in found:
                    self.nfc_changed += one.nfc_changed
                    self.ignored.update(one.ignored)
                    self.excluded += one.excluded
                    self.empty_systems += one.empty_system
                yield found
        self._finish()

    def _usable(self, rows: list[Row]) -> list[Row]:
        """The rows without those that compare or rate answers, which `_finish` reports all at once."""
        self.rows += len(rows)
        usable: list[Row] = []
        for row in rows:
            if mark := marks(row.value):
                self._comparisons += 1
                self._first_comparison = self._first_comparison or (row.line, mark)
            else:
                usable.append(row)
        return usable

    def _choose(self, rows: list[Row]) -> str | None:
        """The layout of the file, by its first rows; None, with the reason in `problems`, if there is none."""
        return formats.choose(rows, self.format, self.path, self.problems, setting=self.setting)

    def _convert(self, rows: list[Row], name: str) -> list[Any]:
        """The records of the sound ones of these rows."""
        return formats.convert_rows(
            rows, cast(FormatName, name), self.format, path=self.path, system=self.system, problems=self.problems
        )

    def _finish(self) -> None:
        if self._first_comparison:
            line, mark = self._first_comparison
            count = f"{self._comparisons:,} of {plural(self.rows, 'row')}"
            self.problems.append(refusal(mark, self.path, line, f"{count} are {mark.what}"))

    def row_blocks(self) -> Iterator[list[Row]]:
        """The rows as the file has them; `done`, `total` and `problems` are kept up to date."""
        try:
            yield from self._blocks()
        except SlimtuneError as error:  # from the hub, or a file that has gone or changed meanwhile
            self.problems += error.problems

    def _blocks(self) -> Iterator[list[Row]]:
        path = Path(self.path)
        is_file = inputs.is_file(path) and not is_hub_id(self.path)
        self.total = path.stat().st_size if is_file else 0
        if not is_file or not _is_plain_jsonl(path):
            yield from self._whole()
            return
        line = 1
        with inputs.opened(path) as file:
            for block in _whole_lines(file, self.path):
                self.done += len(block)
                text = block.removeprefix(_BYTE_ORDER_MARK).decode("utf-8").replace("\r\n", "\n")
                rows = read_lines(text, self.path, frozenset(), self.problems, first_line=line)
                line += text.count("\n")
                yield rows

    def _whole(self) -> Iterator[list[Row]]:
        rows = read_rows(self.path, self.problems)
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
        sha256 = None
        if not is_hub_id(path) and inputs.is_file(path) and os.access(path, os.R_OK):
            sha256 = inputs.sha256(Path(path))
        same = next((other for other, known in hashes.items() if sha256 and known == sha256), None)
        if same is None:
            hashes[path] = sha256
        else:
            what = f"the same content as {same}, which is listed too"
            problems.append(Problem(what, path, "list one of them; a recipe can give it more weight"))
    return hashes, problems


def _is_plain_jsonl(path: Path) -> bool:
    """Whether it may be read line by line: UTF-8, usual line ends, an object in the first line that is not blank."""
    if path.suffix.lower() not in _LINE_SUFFIXES or not os.access(path, os.R_OK):
        return False
    first = b""
    with inputs.opened(path) as file:
        if b"\0" in file.read(512):
            return False
        file.seek(0)
        for block in _whole_lines(file, str(path)):
            try:
                block.decode("utf-8")
            except UnicodeDecodeError:
                return False
            if b"\x1b$" in block or b"\0" in block or block.count(b"\r") != block.count(b"\r\n"):
                return False
            first = first or block.removeprefix(_BYTE_ORDER_MARK).lstrip().partition(b"\n")[0].strip()
    # A lone "{" begins an object over several lines.
    return first.startswith(b"{") and first != b"{"


def _whole_lines(file: BinaryIO, path: str) -> Iterator[bytes]:
    """The file in pieces that end where a line does. Raises SlimtuneError for a line of more than 256 MiB."""
    while block := file.read(_BLOCK_BYTES):
        rest = file.readline(_LONGEST_LINE)
        if len(rest) == _LONGEST_LINE:
            fix = "write one object per line (JSONL)"
            raise fail(f"a line has more than {_LONGEST_LINE:,} bytes", where=path, fix=fix)
        yield block + rest
