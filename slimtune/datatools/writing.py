"""Rows to a JSONL file: the same bytes for the same rows, all of it or nothing, and nobody's work written over."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core.errors import fail


@dataclass(frozen=True, slots=True)
class Written:
    """rows: in the file. sha256: of its bytes. unchanged: whether the very same file was there already."""

    path: Path
    rows: int
    sha256: str
    unchanged: bool


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], *, overwrite: bool = False) -> Written:
    """One JSON object a line, UTF-8, keys in the order given; an iterator is written as it comes.

    A temporary file beside `path` takes its place when it is whole. Raises SlimtuneError where another file is there
    and `overwrite` is not set; the same bytes are left alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    count, digest = 0, hashlib.sha256()
    try:
        with partial.open("wb") as file:
            for row in rows:
                line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
                digest.update(line)
                file.write(line)
                count += 1
        unchanged = path.is_file() and _sha256(path) == digest.hexdigest()
        if path.exists() and not unchanged and not overwrite:
            raise fail(
                "the file is there already, with another content",
                where=str(path),
                fix="name another file, or replace it with --overwrite",
            )
        if not unchanged:
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Written(path, count, digest.hexdigest(), unchanged)


def keep_apart(output: Path, inputs: Iterable[str]) -> None:
    """Raise SlimtuneError where a command would write over a file that it reads."""
    for path in inputs:
        if Path(path).resolve() == output.resolve():
            raise fail("the file is read and cannot be written over", where=path, fix="name another file with --output")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
