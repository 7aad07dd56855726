"""Measure the memory that a process needs while it works; no system records that peak."""

import threading
from pathlib import Path
from typing import Self

_STATUS = Path("/proc/self/status")
_LOOK_SECONDS = 0.02


class MemoryWatch:
    """Bytes that this process needs at the start of the block, and its peak within it."""

    def __init__(self) -> None:
        self.first, self.source = needed_bytes()
        self.peak = self.first
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()
        self.peak = max(self.peak, needed_bytes()[0])

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            self.peak = max(self.peak, needed_bytes()[0])


def needed_bytes() -> tuple[int, str]:
    """Bytes that this process holds now, and what was counted: "anonymous memory" (with swap), or else the "resident set"."""
    if _STATUS.exists():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
        if "RssAnon" in lines:
            sizes = [lines[field].split()[0] for field in ("RssAnon", "VmSwap") if field in lines]
            return sum(map(int, sizes)) * 1024, "anonymous memory"
    import psutil

    return psutil.Process().memory_info().rss, "resident set"
