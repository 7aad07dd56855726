"""Rows to a JSONL file: the same bytes for the same rows, all of it or nothing, and nobody's work written over."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from slimtune.core.errors import fail
from slimtune.core.files import staged


def as_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def write_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], *, overwrite: bool = False
) -> Literal["written", "unchanged"]:
    """Write one JSON object per line, UTF-8, keys in the order given. A file with the same bytes is left alone.

    Raises SlimtuneError if another file exists and `overwrite` is not set.
    """
    content = b"".join(map(as_line, rows))
    if path.is_file() and path.read_bytes() == content:
        return "unchanged"
    if path.exists() and not overwrite:
        fix = "name another file, or replace it with --overwrite"
        raise fail("the file exists already and has other content", where=str(path), fix=fix)
    with staged(path) as partial:
        partial.write_bytes(content)
    return "written"


def keep_apart(output: Path, inputs: Iterable[str]) -> None:
    """Raise SlimtuneError where a command would write over a file that it reads."""
    for path in inputs:
        if Path(path).resolve() == output.resolve():
            raise fail("the output file is also an input", where=path, fix="name another file with --output")
