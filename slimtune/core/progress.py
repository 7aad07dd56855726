"""A line that says how far something is, for whatever takes longer than a moment."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from slimtune.core import console as consoles

PATIENCE_SECONDS = 1.5


class Progress:
    """Says nothing until 1.5 seconds have passed, then "Counting tokens: 12,000 of 100,000" on standard error.

    Used as a context manager, and called with what is done and, where it is known, how much there is:

        with Progress("Counting tokens") as progress:
            progress(done, total)

    What has not been called by then, such as the reading of a large file, is announced by its label alone.
    """

    def __init__(self, label: str, console: consoles.Console | None = None):
        self._label, self._console = label, console or consoles.stderr()
        self._began = time.monotonic()
        self._line = ""
        self._printing = threading.Lock()
        self._alarm = threading.Timer(PATIENCE_SECONDS, self._announce)
        self._alarm.daemon = True

    def __enter__(self) -> Progress:
        self._alarm.start()
        return self

    def __call__(self, done: int, total: int | None = None) -> None:
        if time.monotonic() - self._began < PATIENCE_SECONDS:
            return
        with self._printing:
            self._line = f"{self._label}: {done:,}" + (f" of {total:,}" if total is not None else "")
            self._console.progress(self._line)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarm.cancel()
        with self._printing:
            if self._line:
                self._console.progress(self._line, last=True)
                self._line = ""

    def _announce(self) -> None:
        with self._printing:
            if not self._line:
                self._line = f"{self._label} …"
                self._console.progress(self._line)
