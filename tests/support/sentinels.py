"""A folder full of other people's files, under names that the tool itself would use, and what has become of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from support import command_line
from support.command_line import Outcome

from slimtune.core.defects import MARK

NAMES = (
    *(
        "items.jsonl",
        "answers.jsonl",
        "base.jsonl",
        "tuned.jsonl",
        "golden.jsonl",
        "samples.jsonl",
        "majority-vote.jsonl",
    ),
    *(
        "evaluation.json",
        "verdict.json",
        "figures.json",
        "contamination.json",
        "parity.json",
        "ollama.json",
        "plan.json",
    ),
    *("comparison.json", "comparison.md", "comparison.html", "judgements-second.jsonl", "split.json", "sha256.json"),
    *("manifest.json", "recipe.yaml", "events.jsonl", "metrics.jsonl", "report.html", "experiment_log.md", "Modelfile"),
    *("x.jsonl.teacher.jsonl", "out.jsonl.teacher.jsonl", "replies.rescored.jsonl.bak", "train.train.jsonl.old"),
    *(
        ".lock",
        ".slimtune",
        ".out.partial",
        ".out.jsonl.partial",
        ".out.jsonl.old",
        "out.jsonl.unverified",
        "out.jsonl~",
    ),
    *(
        "exp.old/a",
        "exp.unverified/a",
        "exp.partial/a",
        ".exp.0123456789abcdef.partial/a",
        ".exp.0123456789abcdef.old/a",
    ),
    *("mm.old/a", "mm.unverified/a", "mm-16bit.unverified/a", "export.unverified/a", "eval/base.jsonl", "latest/a"),
    *("checkpoints/checkpoint-10/a", "evaluations/test-direct/answers.jsonl", "outputs/evaluations/note.txt"),
    *("outputs/comparisons/note.txt", ".out.0123456789abcdef.partial/a", ".out.0123456789abcdef.old/a", "out.old/a"),
)
WORK = b"somebody's work, without the end of a line"


def plant(folder: Path) -> None:
    """Put a file of each name into the folder."""
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(WORK + name.encode())


def tree(folder: Path) -> dict[str, str]:
    """What is at each path below a folder: another file, or one written anew, differs also where the bytes stay."""
    found = {}
    for path in folder.rglob("*"):
        there = path.lstat()
        of_file = (there.st_ino, there.st_size, there.st_mtime_ns)
        what = "folder" if stat.S_ISDIR(there.st_mode) else f"{stat.S_IFMT(there.st_mode):o} {of_file}"
        found[str(path.relative_to(folder))] = what
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """The paths that are new, gone or other, but for folders that hold what is new."""
    return {
        path
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path) and not (path not in before and after[path] == "folder")
    }


def ends(done: Outcome, code: int) -> None:
    """With this exit code, and if it is not 0 with one message."""
    assert done.code == code, done.stderr
    assert MARK not in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == (1 if code else 0), done.stderr


def refused(
    box: Path, *arguments: object, run: Callable[..., Outcome] = command_line.run, unless: str = "127.0.0.1"
) -> str:
    """What is said to a command that must be refused, and must change nothing below the folder above `box`.

    unless: must not be said: it is of the work itself, which must not have begun.
    """
    before = tree(box.parent)
    done = run(*arguments)
    ends(done, 2)
    assert tree(box.parent) == before
    assert unless not in done.stderr, done.stderr
    return done.stderr


# Where an output may be pointed: each makes the place in a folder that is empty but for other places; the path, and what
# is said of it, one of several. suffix: of a file; empty for a folder.


def _file(folder: Path, suffix: str) -> tuple[Path | str, str]:
    path = folder / f"taken{suffix}"
    path.write_bytes(WORK)
    return path, "the file exists already|this is a file|is a file, not a folder"


def _folder(folder: Path, suffix: str) -> tuple[Path | str, str]:
    path = folder / f"folder{suffix}"
    plant(path)
    return path, "this is a folder|holds files that Slimtune did not write|holds something else"


def _below_a_file(folder: Path, suffix: str) -> tuple[Path | str, str]:
    path = folder / "file.txt"
    path.write_bytes(WORK)
    return path / f"out{suffix}", "is a file, not a folder"


def _pipe(folder: Path, suffix: str) -> tuple[Path | str, str]:
    path = folder / f"pipe{suffix}"
    os.mkfifo(path)
    return path, "pipe or a device|this is a file|is a file, not a folder"


def _circle(folder: Path, suffix: str) -> tuple[Path | str, str]:
    path = folder / f"circle{suffix}"
    path.symlink_to(path.name)
    return path, "not a usable path|pipe or a device|this is a file"


def _long_name(folder: Path, suffix: str) -> tuple[Path | str, str]:
    return folder / f"new/{'あ' * 90}{suffix}", "longer than the 255 bytes"


def _long_path(folder: Path, suffix: str) -> tuple[Path | str, str]:
    return f"{folder}/{'deep/' * 1000}out{suffix}", "too long"


def _unknown_home(folder: Path, suffix: str) -> tuple[Path | str, str]:
    return f"~nobody-of-this-name/out{suffix}", "not a usable path"


PLACES: dict[str, Callable[[Path, str], tuple[Path | str, str]]] = {
    "a file": _file,
    "a folder": _folder,
    "a path below a file": _below_a_file,
    "a pipe": _pipe,
    "a circle of links": _circle,
    "too long a name": _long_name,
    "too long a path": _long_path,
    "the home of nobody": _unknown_home,
}
