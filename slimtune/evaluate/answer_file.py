"""Answers on disk while they come in: appended batch by batch, so that an evaluation that is killed can continue. No torch."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimtune.core.errors import fail
from slimtune.core.files import write_lines
from slimtune.core.redaction import without_keys


class AnswerFile:
    """A JSONL file of rows, each with its `id`. A last line that a kill cut off is removed."""

    def __init__(self, path: Path):
        self.path = path
        whole = path.read_bytes() if path.is_file() else b""
        complete = whole[: whole.rfind(b"\n") + 1]
        if complete != whole:
            os.truncate(path, len(complete))
        self.rows = {row["id"]: row for row in parse(complete, path)}

    def keep(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows in one write, and flush them to the disk."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with self.path.open("ab", buffering=0) as file:
            file.write(without_keys(lines).encode())
            os.fsync(file.fileno())
        self.rows |= {row["id"]: row for row in rows}

    def finish(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """All rows in the order of `ids`, which the file then has too; rows of other ids are dropped."""
        ordered = [self.rows[identifier] for identifier in ids]
        write_lines(self.path, ordered)
        return ordered


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a finished file. Raises SlimtuneError where it is missing or a line is not a row with an id."""
    if not path.is_file():
        raise fail("there are no answers", where=str(path), fix="run slimtune evaluate first")
    return parse(path.read_bytes(), path)


def parse(content: bytes, path: Path) -> list[dict[str, Any]]:
    rows = []
    # Not splitlines: U+2028 in a reply does not end a line.
    for number, line in enumerate(content.decode("utf-8").removesuffix("\n").split("\n") if content else (), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            fix = "delete the file and evaluate again"
            raise fail(f"not JSON: {error.msg}", where=f"{path}:{number}", fix=fix) from None
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise fail("not a row with an id", where=f"{path}:{number}", fix="evaluate again")
        rows.append(row)
    return rows
