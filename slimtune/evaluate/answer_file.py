"""Answers on disk while they come in: appended batch by batch, so that an evaluation that is killed can continue. No torch."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimtune.core import inputs, run_folder
from slimtune.core.errors import fail
from slimtune.core.files import encoded, write_lines, writing

_MOST_BYTES = 2**32  # a file of answers is read whole
_ELSEWHERE = "move it elsewhere: answers are kept under this name"


class AnswerFile:
    """A JSONL file of rows, each with its `id`. A last line that a kill cut off is removed.

    keys: what a row of ours has besides. holds: the name of such rows, as `core.run_schema` has it. Raises SlimtuneError for a file whose rows are others, and leaves it as it is.
    """

    def __init__(self, path: Path, *, keys: Sequence[str] = (), holds: str = "answers.jsonl"):
        self.path = path
        if path.is_symlink():
            raise fail(
                "Slimtune keeps answers in a file of its own, and this is a link", where=str(path), fix=_ELSEWHERE
            )
        whole = inputs.read_bytes(path, most=_MOST_BYTES) if path.exists() else b""
        end = whole.rfind(b"\n") + 1
        if not _is_cut_off(whole[end:]):
            raise fail("the last line is not the beginning of an answer", where=str(path), fix=_ELSEWHERE)
        self.rows = {row["id"]: row for row in parse(whole[:end], path, holds)}
        if any(key not in row for row in self.rows.values() for key in keys):
            raise fail("Slimtune did not write these rows", where=str(path), fix=_ELSEWHERE)
        if end < len(whole):
            with writing(path):
                os.truncate(path, end)

    def keep(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows, and flush them to the disk. After an error none of them is left in the file."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        is_new = not self.path.exists()
        with writing(self.path):
            # A link that somebody has put there by now is not followed.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                try:
                    # Of a call's bytes, a nearly full disk takes a part only.
                    left = memoryview(encoded(lines))
                    while left:
                        left = left[file.write(left) :]
                    os.fsync(descriptor)
                except OSError:
                    file.truncate(end)
                    if is_new:
                        self.path.unlink()
                    raise
        self.rows |= {row["id"]: row for row in rows}

    def finish(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """All rows in the order of `ids`, which the file then has too; rows of other ids are dropped."""
        ordered = [self.rows[identifier] for identifier in ids]
        write_lines(self.path, ordered)
        return ordered


def _is_cut_off(line: bytes) -> bool:
    """Whether a last line without its end is the beginning of a row, whose first key is the id, and not a whole value."""
    start = b'{"id": "'
    if not (line.startswith(start) or start.startswith(line)):
        return False
    try:
        return json.loads(line) is None
    except inputs.FAULTS:
        return True


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a finished file. Raises SlimtuneError where it is missing, and with every line that is no such row."""
    if not inputs.exists(path):
        raise fail("there are no answers", where=str(path), fix="run slimtune evaluate first")
    like = path.name if path.name == "items.jsonl" else "answers.jsonl"
    return run_folder.read_lines(path, fix="delete the file and evaluate again", like=like)


def parse(content: bytes, path: Path, like: str = "answers.jsonl") -> list[dict[str, Any]]:
    """The rows of a file's content. like: the name of what it holds, a key of `run_schema`."""
    return run_folder.read_lines(path, fix="delete the file and evaluate again", content=content, like=like)
