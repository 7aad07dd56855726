"""Disks that take no more: a tmpfs, whose writes fail with ENOSPC, over a folder."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def _mount(folder: Path, options: str) -> bool:
    """Whether this process has the right to do it."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextlib.contextmanager
def full_disk(folder: Path, *, holding: Path | None = None) -> Iterator[bool]:
    """Let no file on the folder's disk take a byte more; True where that is a file system of its own that is full.

    Without the right to mount one (False), the process may not write past a file's first byte: those writes fail with
    EFBIG. holding: a folder that is moved there first, under its own name.
    """
    if _mount(folder, "size=16m"):
        try:
            if holding is not None:
                shutil.move(holding, folder)
            with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(2**16)):
                    pass
            yield True
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
        return
    import resource

    if holding is not None:
        shutil.move(holding, folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield False
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[], None]]:
    """A disk of so many bytes over an empty folder; what it yields makes it large. Skips without the right to mount one."""
    if not _mount(folder, f"size={max(size, 4096)}"):
        pytest.skip("a small disk is a tmpfs, which only root may mount")
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=2g", folder], check=True)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
