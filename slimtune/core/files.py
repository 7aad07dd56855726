"""Files that are written whole or not at all, and the hash of a file's bytes."""

import contextlib
import glob
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from slimtune.core.redaction import without_keys


@contextlib.contextmanager
def staged(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; afterwards, flush that file to disk and rename it to `path`.

    replace: whether a file that is there by then is replaced; if not, FileExistsError is raised and it stays.
    After an error nothing is left over. Leftovers of killed processes are removed first; a child of such a process may
    still write under its process id. Delete the temporary file to leave `path` as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    partial = path.with_name(f".{short(path.name)}.slimtune-{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield partial
        if partial.exists():
            sync_path(partial)
            if replace or not _linked(partial, path):
                partial.replace(path)
            sync_path(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def short(name: str) -> str:
    """The name's first 150 bytes: with an addition it is still a valid name."""
    return name.encode()[:150].decode(errors="ignore")


def _remove_leftovers(path: Path) -> None:
    ours = re.compile(rf"\.{re.escape(short(path.name))}\.slimtune-([0-9]+)-[0-9a-f]{{8}}\.partial")
    for left in path.parent.glob(f".{glob.escape(short(path.name))}.slimtune-*.partial"):
        found = ours.fullmatch(left.name)
        if found and not left.is_symlink() and not psutil.pid_exists(int(found[1])):
            left.unlink(missing_ok=True)


def _linked(partial: Path, path: Path) -> bool:
    """Give the file its name unless that is taken; False where the file system has no hard links.

    A rename would replace what another program put there since it was last looked at.
    """
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(path):
            raise FileExistsError(17, "File exists", str(path)) from None
        return False
    return True


def write_text(path: Path, text: str, *, replace: bool = True) -> None:
    """Write UTF-8 text with its line ends as they are, without the keys that this process knows."""
    with staged(path, replace=replace) as partial:
        partial.write_text(without_keys(text), encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write a JSONL file."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def sync_path(path: Path) -> None:
    """Make a file's content, or a folder's list of names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
