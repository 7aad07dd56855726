"""A line that says how far something is, for whatever takes longer than a moment."""

from __future__ import annotations

import time
from types import TracebackType

from slimtune import console as consoles

_PATIENCE_SECONDS = 1.5


class Progress:
    """Says nothing until 1.5 seconds have passed, then "Counting tokens: 12,000 of 100,000" on standard error.

    Used as a context manager, and called with what is done and, where it is known, how much there is:

        with Progress("Counting tokens") as progress:
            progress(done, total)
    """

    def __init__(self, label: str, console: consoles.Console | None = None):
        self._label, self._console = label, console or consoles.stderr()
        self._began = time.monotonic()
        self._line = ""

    def __enter__(self) -> Progress:
        return self

    def __call__(self, done: int, total: int | None = None) -> None:
        if time.monotonic() - self._began < _PATIENCE_SECONDS:
            return
        self._line = f"{self._label}: {done:,}" + (f" of {total:,}" if total is not None else "")
        self._console.progress(self._line)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._line:
            self._console.progress(self._line, last=True)
