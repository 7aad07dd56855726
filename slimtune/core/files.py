"""Files that are written whole or not at all, and the hash of a file's bytes."""

import contextlib
import errno
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

from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.redaction import without_keys

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_PARTIAL = re.compile(r"\..+\.slimtune-([0-9]{1,9})-[0-9a-f]{8}\.partial", re.DOTALL)


@contextlib.contextmanager
def staged(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; afterwards, flush that file to disk and rename it to `path`.

    replace: whether a file that is there by then is replaced; if not, it stays.
    After an error nothing is left over. Leftovers of killed processes are removed first; a child of such a process may
    still write under its process id. Delete the temporary file to leave `path` as it is.
    Raises SlimtuneError, see `writing`, and FileExistsError for a file that must not be replaced.
    """
    partial = path.with_name(f".{short(path.name)}.slimtune-{os.getpid()}-{secrets.token_hex(4)}.partial")
    taken = False
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path)
            yield partial
            if partial.exists():
                sync_path(partial)
                taken = not replace and not _linked(partial, path)
                if replace:
                    partial.replace(path)
                sync_path(path.parent)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
    if taken:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says while `path` is written into a SlimtuneError that names it and says what to do."""
    try:
        yield
    except BaseException as error:
        failure = failure_to_write(error)
        if failure is None or isinstance(error, SlimtuneError):
            raise
        named = Path(os.fsdecode(failure.filename)) if isinstance(failure.filename, str | bytes) else path
        where = str(path if is_partial(named.name) else named)
        if failure.errno in _FULL:
            raise fail("the disk is full", where=where, fix="free some space and try again") from failure
        if failure.errno in (errno.EEXIST, errno.ENOTDIR):
            raise fail("this is a file, not a folder", where=where, fix="name another place") from failure
        fix = "name a place that you may write to" if failure.errno in _FORBIDDEN else "name another place"
        raise fail(f"cannot be written: {failure.strerror or failure}", where=where, fix=fix) from failure


def failure_to_write(error: BaseException) -> OSError | None:
    """What kept a file from being written, also where `writing` has told so already; None for any other error.

    safetensors and tokenizers raise errors of their own that end in "(os error 28)", and torch.save a RuntimeError of its
    C++ writer that does not say why.
    """
    if isinstance(error, SlimtuneError):
        return error.__cause__ if isinstance(error.__cause__, OSError) else None
    if isinstance(error, OSError):
        return error
    if number := re.search(r"\(os error ([0-9]+)\)", str(error)):
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if isinstance(error, RuntimeError) and "inline_container" in str(error):
        return OSError(errno.EIO, "PyTorch could not write a file to its end, as on a full disk")
    return None


def short(name: str) -> str:
    """The name's first 150 bytes: with an addition it is still a valid name."""
    return os.fsencode(name)[:150].decode(errors="ignore")


def is_partial(name: str) -> bool:
    """Whether a file's name is that of a file which is being written, or was when its process ended."""
    return _PARTIAL.fullmatch(name) is not None


def _remove_leftovers(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(short(path.name))}.slimtune-*.partial"):
        found = _PARTIAL.fullmatch(left.name)
        if found and not left.is_symlink() and not psutil.pid_exists(int(found[1])):
            left.unlink(missing_ok=True)


def _linked(partial: Path, path: Path) -> bool:
    """Give the file its name; False where that is taken.

    A rename would replace what another program put there since it was last looked at. It is the way where the file system
    has no hard links.
    """
    try:
        os.link(partial, path)
    except OSError:
        if os.path.lexists(path):
            return False
        partial.replace(path)
    return True


def write_text(path: Path, text: str, *, replace: bool = True) -> None:
    """Write UTF-8 text with its line ends as they are, without the keys that this process knows."""
    with staged(path, replace=replace) as partial:
        partial.write_bytes(encoded(text))


def encoded(text: str) -> bytes:
    """Text as every file of ours holds it: UTF-8, without the keys that this process knows.

    Half a character, as in the name of a file that is not UTF-8, is written out as \\udcff, which JSON reads as the same.
    """
    return without_keys(text).encode("utf-8", "backslashreplace")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write a JSONL file."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file. Where the last line was cut off, by a full disk or a kill, the new one takes its place.

    Raises SlimtuneError, see `writing`.
    """
    with writing(path), path.open("a+b", buffering=0) as file:
        size = whole = file.seek(0, os.SEEK_END)
        while whole and os.pread(file.fileno(), 1, whole - 1) != b"\n":
            whole -= 1
        if whole < size:
            file.truncate(whole)
        rest = encoded(line + "\n")
        while rest:  # a disk that is nearly full takes a part of it
            rest = rest[file.write(rest) :]


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
