"""A folder full of other people's files, under names that the tool itself would use, and what has become of them."""

from __future__ import annotations

import contextlib
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

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


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[bool]:
    """Let no file on the folder's disk take a byte more; True where that is a file system of its own that is full.

    It is a tmpfs, whose writes fail with ENOSPC. Without the right to mount one (False), the process may not write past
    a file's first byte: those writes fail with EFBIG.
    """
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode == 0:
        try:
            _fill(folder)
            yield True
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield False
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024))
