"""End what a killed process left behind:  python -I -S guardian.py DESCRIPTOR NAME=VALUE

Waits until the process behind the descriptor (a pidfd) has ended, and kills every program that was started with this
variable: multiprocessing's spawned workers and fork servers, compilers, llama.cpp. It imports little, since it waits for as
long as a run lasts.
"""

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

_PAUSE_SECONDS = 0.1
_MOST_SECONDS = 10.0


def end_all(mark: bytes) -> None:
    """Kill the processes whose environment held the mark at their start. One may just be starting another one."""
    until, quiet = time.monotonic() + _MOST_SECONDS, 0
    while quiet < 3 and time.monotonic() < until:
        found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _is_marked(path, mark)]
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        quiet = 0 if found else quiet + 1
        time.sleep(_PAUSE_SECONDS)


def _is_marked(process: Path, mark: bytes) -> bool:
    try:
        return mark in (process / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is somebody else's
        return False


if __name__ == "__main__":
    select.select([int(sys.argv[1])], [], [])
    end_all(os.fsencode(sys.argv[2]))
