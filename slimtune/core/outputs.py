"""Every output that a person names is opened here: nothing that is not ours is ever replaced or removed.

A file or folder is ours by what is inside it, never by its name. What exists otherwise is refused, unless the person
said `--overwrite`; a file that the same command reads is refused in any case. All of it is checked before the work
begins, and once more when the output gets its name.
"""

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from slimtune.core import inputs
from slimtune.core.errors import fail
from slimtune.core.files import encoded, existing, staged, writing

SOFTWARE = "Slimtune"
"""What a picture's `Software` says: with it, `made_here` knows the picture again."""
_OTHER_PATH = "name another path"
PAGE_MARK = f'<meta name="generator" content="{SOFTWARE}">'
"""In the head of every page, for the same purpose."""
MOVE_IT = "move it elsewhere, and run the command again"
_EARLIER_PAGE = (
    b"""<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src""",
    b" \xc2\xb7 Slimtune</title>",
)
_MOST_FILES = 100_000  # of a folder that is read: the home folder, say, is not looked through
_PNG = b"\x89PNG\r\n\x1a\n"


# ---- files -----------------------------------------------------------------------------------------------------------


def file(
    path: Path | str,
    *,
    option: str = "",
    reads: Iterable[Path | str] = (),
    overwrite: bool = False,
    ours: Callable[[Path], bool] = lambda path: False,
    fix: str = "name another file, or replace it with --overwrite",
) -> Path:
    """The path to write to, after every check that can be made beforehand. Nothing is created.

    option: what named it, for messages. reads: the files and folders that the command reads. ours: whether an existing
    file is one that we made. A link's target is what is written; `~` is the home folder.
    Raises SlimtuneError where the path is a folder, a device, an input, somebody else's file, or not writable.
    """
    target = named(path, option)
    where = place_of(target, option)
    with writing(target):
        if (found := found_at(target)) is not None:
            if stat.S_ISDIR(found.st_mode):
                raise fail("this is a folder; the output is a file", where=where, fix="name a file")
            if not stat.S_ISREG(found.st_mode):
                raise fail("this is a pipe or a device, not a file", where=where, fix="name a file")
            require_no_input(target, reads, option)
            if not overwrite and not ours(target):
                raise fail("the file exists already", where=where, fix=fix)
            if not _allowed(target, os.W_OK):
                fix = "name another file, or make this one writable"
                raise fail("the file is write-protected", where=where, fix=fix)
        require_writable(target.parent, option)
        _require_short_names(target, option)
    return target


@contextlib.contextmanager
def staged_file(
    target: Path, *, overwrite: bool = False, ours: Callable[[Path], bool] = lambda path: False
) -> Iterator[Path]:
    """Yield a new path beside `target`, a path that `file` returned; afterwards the file takes `target`'s place.

    overwrite, ours: as for `file`; what has appeared at `target` since then is not replaced otherwise.
    Raises SlimtuneError where the disk is full, the place not writable, or the name taken by now. Nothing is left then.
    """
    with writing(target):
        replace = overwrite or (found_at(target) is not None and ours(target))
        try:
            with staged(target, replace=replace) as partial:
                yield partial
        except FileExistsError:
            if found_at(target) is None:
                raise
            what = "the file has appeared while the command ran, so it was not replaced"
            raise fail(what, where=str(target), fix="name another file, or replace it with --overwrite") from None


def write(
    target: Path, content: bytes | str, *, overwrite: bool = False, ours: Callable[[Path], bool] = lambda path: False
) -> bool:
    """Write the whole content as `staged_file` does; False where the file has it already, and is left alone.

    Text becomes UTF-8 with its line ends as they are, without the keys that this process knows.
    Raises SlimtuneError for other content that must not be replaced, and as `staged_file` does.
    """
    whole = encoded(content) if isinstance(content, str) else content
    if holds(target, whole):
        return False
    with writing(target):
        if not overwrite and found_at(target) is not None and not ours(target):
            fix = "name another file, or replace it with --overwrite"
            raise fail("the file exists already and has other content", where=str(target), fix=fix)
    with staged_file(target, overwrite=overwrite, ours=ours) as partial:
        partial.write_bytes(whole)
    return True


def holds(path: Path, content: bytes) -> bool:
    """Whether there is a file with just these bytes."""
    try:
        return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def made_here(path: Path, kind: str = "") -> bool:
    """Whether a file is a picture (PNG) or a page (HTML) that Slimtune wrote, by the mark near its beginning.

    kind: a page's title, or what follows "Slimtune" in a picture's `Software`; any, if empty.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return False
    if start.startswith(_PNG):
        name = f"{SOFTWARE} {kind}".rstrip()
        return f"tEXtSoftware\0{name}".encode() in start
    if kind and f"<title>{kind}".encode() not in start:
        return False
    marked = PAGE_MARK.encode() in start or all(part in start for part in _EARLIER_PAGE)
    return start.lower().startswith(b"<!doctype html>") and marked


def require_no_input(target: Path, reads: Iterable[Path | str], option: str = "") -> None:
    """Raise SlimtuneError where an existing output is one of the files that the command reads, or in such a folder."""
    for read in reads:
        place = inputs.at(read)
        try:
            inside = itertools.islice(place.rglob("*"), _MOST_FILES) if place.is_dir() else ()
            is_input = is_same(target, place) or any(is_same(target, one) for one in inside)
        except (OSError, ValueError):  # a hub id, or what cannot be a path
            continue
        if is_input:
            what = "the output is also an input of this command"
            raise fail(what, where=place_of(target, option), fix="name another file")


# ---- folders ---------------------------------------------------------------------------------------------------------


def folder(
    path: Path | str,
    *,
    option: str = "",
    ours: Callable[[Path], bool],
    what: str = "the results",
    reads: Iterable[Path | str] = (),
) -> Path:
    """The folder to write into, after every check that can be made beforehand. Nothing is created.

    ours: whether an existing folder is one that we made, by what it holds. what: what will be in it, for messages.
    Raises SlimtuneError where it is a file, an input, holds something else, or cannot be written.
    """
    target = named(path, option)
    with writing(target):
        if found_at(target) is not None:
            if not target.is_dir():
                fix = "name a folder that does not exist yet"
                raise fail(f"this is a file; {what} need a folder", where=place_of(target, option), fix=fix)
            if any(is_same(target, inputs.at(read)) for read in reads):
                fix = "name another folder"
                raise fail("the output is also an input of this command", where=place_of(target, option), fix=fix)
            if any(target.iterdir()) and not ours(target):
                text = "the folder holds files that Slimtune did not write"
                raise fail(
                    text, where=place_of(target, option), fix="name a folder that is empty or does not exist yet"
                )
        require_writable(target, option)
    return target


# ---- what the system says --------------------------------------------------------------------------------------------


def named(path: Path | str, option: str = "") -> Path:
    """A path as a person wrote it, with `~` and links resolved. Raises SlimtuneError for one that cannot be a path."""
    if "\0" in str(path):
        raise fail("a path cannot contain a NUL character", where=option or repr(str(path)), fix=_OTHER_PATH)
    try:
        os.fsencode(path)
        return Path(path).expanduser().resolve()
    except UnicodeEncodeError:
        what = "a path cannot contain half a character (a lone surrogate)"
        raise fail(what, where=option or repr(str(path)), fix=_OTHER_PATH) from None
    except RuntimeError as error:  # no such user, or links in a circle
        raise fail(f"not a usable path: {error}", where=place_of(Path(path), option), fix=_OTHER_PATH) from None
    except OSError as error:
        raise fail(
            f"not a usable path: {error.strerror}", where=place_of(Path(path), option), fix=_OTHER_PATH
        ) from None


def require_writable(folder: Path, option: str = "") -> None:
    """Raise SlimtuneError unless files can be created in the folder, or in the nearest one above it that exists."""
    folder = folder.absolute()
    place = existing(folder)
    if not place.is_dir():
        raise fail(f"{place} is a file, not a folder", where=place_of(folder, option), fix="name a place in a folder")
    _require_short_names(folder, option)
    if not _allowed(place, os.W_OK | os.X_OK):
        what = "Permission denied: you may not write here"
        raise fail(what, where=place_of(place, option), fix="name a folder that you may write to")


def found_at(path: Path) -> os.stat_result | None:
    """What is at a path, links not followed; None for nothing. `os.path.lexists` also denies what cannot be looked at."""
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _allowed(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _require_short_names(path: Path, option: str) -> None:
    """Raise SlimtuneError where a part of the path that does not exist yet has too long a name."""
    place = existing(path)
    longest = os.pathconf(place, "PC_NAME_MAX")
    if any(len(os.fsencode(part)) > longest for part in path.relative_to(place).parts):
        what = f"a name in this path is longer than the {longest} bytes that the file system allows"
        raise fail(what, where=place_of(path, option), fix="name a shorter path")


def is_same(path: Path, other: Path) -> bool:
    """Whether two paths are one file, by links of either kind too."""
    try:
        return path.resolve() == other.resolve() or path.samefile(other)
    except (OSError, RuntimeError, ValueError):
        return False


def place_of(path: Path, option: str) -> str:
    return f"{option} {path}" if option else str(path)
