"""Output folders that appear whole, are replaced whole, and are known to be ours by a marker inside.

What is not ours is never replaced or removed, and neither is a folder of ours into which somebody put a file. A name
alone proves nothing.
"""

import contextlib
import glob
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.files import is_partial, short, sync_path, write_text, writing
from slimtune.core.outputs import found_at, is_same, named, place_of, require_writable
from slimtune.core.processes import process_runs

MARKER = ".slimtune"
"""A file in each folder that is made under another name first, or replaced whole: what made it, and of which files."""
Ours = Callable[[Path, str], None]
"""Called with a folder and what named it; raises SlimtuneError unless we may replace or remove it."""
_MIDDLE = re.compile("[0-9a-f]{16}")
_APART = "name a place apart from it"


def require_apart(outputs: Mapping[str, Path | str], inputs: Mapping[str, Path | str]) -> None:
    """Raise SlimtuneError where an output folder is an input, lies in one or holds one, or does so with another output.

    Both are by what names them in messages: an option or a recipe's key for outputs, "the adapter" for inputs.
    """
    problems = []
    for number, (option, path) in enumerate(outputs.items()):
        others = {**inputs, **dict(list(outputs.items())[:number])}
        for what, other in others.items():
            if relation := _relation(named(path, option), named(other)):
                problems.append(
                    Problem(f"the output {relation} {what} ({other})", place_of(Path(path), option), _APART)
                )
    if problems:
        raise SlimtuneError(problems)


def _relation(one: Path, other: Path) -> str:
    if is_same(one, other):
        return "is"
    if any(is_same(place, other) for place in one.parents):
        return "lies in"
    return "holds" if any(is_same(place, one) for place in other.parents) else ""


def replaceable(
    path: Path | str,
    option: str = "",
    *,
    what: str,
    fresh: bool,
    ours: Ours | None = None,
    fix: str = "--fresh replaces it",
) -> Path:
    """The folder to make whole or to replace whole with `staged_folder`, after every check that can be made beforehand.

    what: its kind, for messages. fresh: whether one of ours may be replaced; fix: what to do where it may not.
    ours: as for `staged_folder`.
    Raises SlimtuneError where it is a file, is not ours, holds what we did not write, or cannot be written.
    """
    target = named(path, option)
    with writing(target):
        if found_at(target) is not None:
            if not target.is_dir():
                fix = "name a folder that does not exist yet"
                raise fail(f"this is a file; {what} needs a folder", where=place_of(target, option), fix=fix)
            if any(target.iterdir()):
                (ours or require_ours)(target, option)
                if not fresh:
                    raise fail(f"there is {what} already", where=place_of(target, option), fix=fix)
        require_writable(target.parent, option)
    return target


@contextlib.contextmanager
def staged_folder(target: Path, *, what: str, ours: Ours | None = None) -> Iterator[Path]:
    """Yield a new folder beside `target` to write into; afterwards it takes `target`'s place in one step.

    what: the kind of folder, written into its marker. ours: called with a folder that is at `target` by then, and what
    named it; it raises SlimtuneError unless we may remove that. None: `require_ours`. After an error nothing is left.
    Leftovers of killed processes are removed first.
    Raises SlimtuneError where the disk is full or the place not writable. What errors say of the new folder's place, they
    say of `target`.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        began_with = found_at(target)
        staged = beside(target, "partial")
        staged.mkdir()
    try:
        with writing(target):
            mark(staged, what)
            yield staged
            _require_unchanged(target, began_with)
            publish(staged, target, ours)
    except SlimtuneError as error:
        raise as_if_at(error, staged, target) from error
    finally:
        remove(staged)


def _require_unchanged(target: Path, began_with: os.stat_result | None) -> None:
    """Raise SlimtuneError where another process has made the folder since it was looked at."""
    found = found_at(target)
    if found is not None and (began_with is None or found.st_ino != began_with.st_ino) and any(target.iterdir()):
        what = "another process has made this folder meanwhile, so it is not replaced"
        raise fail(what, where=str(target), fix="look at what is there, and name another folder")


def publish(staged: Path, target: Path, ours: Ours | None = None) -> None:
    """Give a marked folder its name. An older folder is whole until then, and removed afterwards; ours: see above."""
    what = _marker(staged).get("what", "results")
    mark(staged, what, complete=True)
    for path in staged.rglob("*"):
        if path.is_file():
            sync_path(path)
    sync_path(staged)
    old = None
    if found_at(target) is not None:
        (ours or require_ours)(target, "")
        old = beside(target, "old")
        target.rename(old)
    try:
        staged.rename(target)
    except BaseException:
        if old is not None:
            old.rename(target)
        raise
    sync_path(target.parent)
    with contextlib.suppress(SlimtuneError):
        # Whose process it was concerns nobody who is given the folder.
        _write_marker(target, {key: _marker(target)[key] for key in ("made_by", "what", "files")})
    if old is not None:
        remove(old)


def discard(folder: Path, ours: Ours | None = None) -> None:
    """Remove a finished folder; ours: as for `staged_folder`. Raises SlimtuneError where we may not."""
    if found_at(folder) is not None:
        (ours or require_ours)(folder, "")
        with writing(folder):
            doomed = beside(folder, "old")
            folder.rename(doomed)
        remove(doomed)


def as_if_at(error: SlimtuneError, place: Path, final: Path) -> SlimtuneError:
    """The error with another place in its texts, of a folder that has moved since or is gone."""

    def told(text: str) -> str:
        return text.replace(str(place), str(final))

    return error.mapped(
        lambda one: Problem(told(one.what), told(one.where), told(one.fix)), summary=told(error.summary)
    )


def mark(folder: Path, what: str, *, complete: bool = False) -> None:
    """Write the marker: what the folder is, the process that fills it, and once it is complete the files it holds."""
    process = psutil.Process()
    content: dict[str, Any] = {"made_by": "slimtune", "what": what}
    content |= {"process": process.pid, "host": socket.gethostname(), "started": process.create_time()}
    if complete:
        content["files"] = sorted(names_in(folder))
    _write_marker(folder, content)


def mark_finished(folder: Path, what: str, *more: str) -> None:
    """Write the marker of a folder that is complete but for the files of these names, without whose process it was."""
    _write_marker(folder, {"made_by": "slimtune", "what": what, "files": sorted({*names_in(folder), *more})})


def add(folder: Path, name: str) -> None:
    """Note a file that is written into a finished folder later. Call it before, so that a kill leaves none unknown."""
    content = _marker(folder)
    if content and name not in content.get("files", []):
        _write_marker(folder, content | {"files": sorted([*content.get("files", []), name])})


def is_marked(folder: Path, what: str | None = None) -> bool:
    """Whether the folder has our marker, for this kind of content if one is named."""
    content = _marker(folder)
    return bool(content) and what in (None, content.get("what"))


def is_new(folder: Path) -> bool:
    """Whether the folder was made by `staged_folder` and holds nothing yet."""
    return is_marked(folder) and not folder.is_symlink() and [path.name for path in folder.iterdir()] == [MARKER]


def foreign_files(folder: Path) -> list[str]:
    """The files in a finished folder of ours that we did not write, by their names in it."""
    listed = {*_marker(folder).get("files", []), MARKER}
    return sorted(name for name in names_in(folder) if name not in listed)


def names_in(folder: Path) -> Iterator[str]:
    """The names in the folder of all that is no folder; links are not followed."""
    for path in folder.rglob("*"):
        if (not path.is_dir() or path.is_symlink()) and not is_partial(path.name):
            yield str(path.relative_to(folder))


def require_ours(folder: Path, option: str = "") -> None:
    """Raise SlimtuneError unless the folder is empty or missing, or one of ours that nobody else put anything into."""
    if found_at(folder) is None:
        return
    if folder.is_symlink() or not folder.is_dir() or (not is_marked(folder) and any(folder.iterdir())):
        what = "this is not a folder that Slimtune made"
        raise fail(what, where=place_of(folder, option), fix="name a folder that does not exist yet")
    if is_marked(folder):
        refuse_foreign(folder, foreign_files(folder), option)


def refuse_foreign(folder: Path, names: list[str], option: str = "") -> None:
    """Raise SlimtuneError if there are names: of files in a folder of ours that somebody else put there."""
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        what = f"the folder would be replaced, and holds files that Slimtune did not write: {shown}"
        raise fail(what, where=place_of(folder, option), fix="move them elsewhere, or name another folder")


def remove_leftovers(target: Path) -> None:
    """Clear up beside `target` what processes left that have ended, see `leftovers`.

    Where a process ended between two renames, the folder that was to be replaced gets its name back.
    """
    for left in leftovers(target):
        if left.suffix == ".old" and found_at(target) is None:
            left.rename(target)
        else:
            remove(left)


def leftovers(target: Path) -> list[Path]:
    """The folders with our marker beside `target`, replaced or unfinished, whose processes have ended."""
    found = []
    for kind in ("old", "partial"):
        for left in target.parent.glob(f".{glob.escape(short(target.name))}.*.{kind}"):
            middle = left.name.removeprefix(f".{short(target.name)}.").removesuffix(f".{kind}")
            if _MIDDLE.fullmatch(middle) and not left.is_symlink() and _is_abandoned(_marker(left)):
                found.append(left)
    return found


def _is_abandoned(marker: dict[str, Any]) -> bool:
    """Whether the process that filled the folder has ended. Processes of other machines cannot be seen."""
    match marker:
        case {"process": int(pid), "started": float(started), "host": host}:
            return host == socket.gethostname() and not process_runs(pid, started)
    # A folder that had its final name.
    return "files" in marker


def remove_own(folder: Path) -> None:
    """Remove an unfinished folder if this process or an earlier one marked it; an empty one too."""
    if is_marked(folder):
        remove(folder)
    elif folder.is_dir() and not folder.is_symlink():
        with contextlib.suppress(OSError):
            folder.rmdir()


def remove(folder: Path, last: Collection[str] = (MARKER,)) -> None:
    """Remove a folder that is known to be ours. last: names of files by which what a kill leaves is still known."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in last:
                path.unlink(missing_ok=True)
        for name in last:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def beside(target: Path, kind: str) -> Path:
    """A new name for a folder that is unfinished ("partial") or replaced ("old"), as `remove_leftovers` knows it."""
    return target.with_name(f".{short(target.name)}.{secrets.token_hex(8)}.{kind}")


def _marker(folder: Path) -> dict[str, Any]:
    path = folder / MARKER
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 2**24:
            return {}
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    match content:
        case {"made_by": "slimtune", "what": str(), **more}:
            files = more.get("files", [])
            return content if isinstance(files, list) and all(isinstance(one, str) for one in files) else {}
    return {}


def _write_marker(folder: Path, content: dict[str, Any]) -> None:
    write_text(folder / MARKER, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
