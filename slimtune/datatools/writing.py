"""Rows to a JSONL file: the same bytes for the same rows, all of it or nothing, and nobody's work written over."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core.errors import fail
from slimtune.core.files import sha256_file, staged


@dataclass(frozen=True, slots=True)
class Written:
    """rows: in the file. sha256: of its bytes. unchanged: whether the very same file was there before."""

    path: Path
    rows: int
    sha256: str
    unchanged: bool

    @property
    def state(self) -> str:
        return "unchanged" if self.unchanged else "written"


def as_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], *, overwrite: bool = False) -> Written:
    """One JSON object per line, UTF-8, keys in the order given; an iterator is written as it comes.

    Raises SlimtuneError if another file exists and `overwrite` is not set; a file with the same bytes is left alone.
    """
    count, digest = 0, hashlib.sha256()
    with staged(path) as partial:
        with partial.open("wb") as file:
            for row in rows:
                line = as_line(row)
                digest.update(line)
                file.write(line)
                count += 1
        unchanged = path.is_file() and sha256_file(path) == digest.hexdigest()
        if path.exists() and not unchanged and not overwrite:
            raise fail(
                "the file exists already and has other content",
                where=str(path),
                fix="name another file, or replace it with --overwrite",
            )
        if unchanged:
            partial.unlink()
    return Written(path, count, digest.hexdigest(), unchanged)


def keep_apart(output: Path, inputs: Iterable[str]) -> None:
    """Raise SlimtuneError where a command would write over a file that it reads."""
    for path in inputs:
        if Path(path).resolve() == output.resolve():
            raise fail("the output file is also an input", where=path, fix="name another file with --output")
