"""Rows to a JSONL file: the same bytes for the same rows, all of it or nothing, and nobody's work written over."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from slimtune.core import outputs


def as_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def write_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], *, overwrite: bool = False
) -> Literal["written", "unchanged"]:
    """Write one JSON object per line, UTF-8, keys in the order given. A file with the same bytes is left alone.

    path: as `target` returned it. Raises SlimtuneError if another file exists and `overwrite` is not set, and where the
    disk is full.
    """
    content = b"".join(map(as_line, rows))
    return "written" if outputs.write(path, content, overwrite=overwrite) else "unchanged"


def target(output: Path | str, reads: Iterable[str], *, option: str = "--output") -> Path:
    """Where to write rows, after every check that can be made before they are known: an older file may have the same.

    reads: the inputs. Raises SlimtuneError where the output is one of them, or cannot be written.
    """
    return outputs.file(output, option=option, reads=reads, ours=lambda path: True)
