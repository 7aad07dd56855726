"""Standard streams that may be closed, full or gone: what cannot be printed ends the program in order, or not at all.

Python alone would answer with a traceback wherever it prints next, and with "Exception ignored" at its very end.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from slimtune.core.errors import BAD_INPUT, OUTPUT_CLOSED


class OutputLost(SystemExit):
    """Standard output cannot be written any more; nothing that is printed afterwards is shown.

    closed: its reader has ended (`| head`), which is nobody's mistake; exit code 141, as a shell reports it. Otherwise the
    disk is full or the terminal is gone; exit code 2.
    """

    def __init__(self, error: OSError):
        self.closed = isinstance(error, BrokenPipeError)
        self._why = "its reader has ended" if self.closed else error.strerror or str(error)
        super().__init__(OUTPUT_CLOSED if self.closed else BAD_INPUT)

    def __str__(self) -> str:
        return f"the output cannot be written: {self._why}"


def _raise(lost: OutputLost) -> NoReturn:
    raise lost


_on_lost: list[Callable[[OutputLost], None]] = [_raise]


@contextlib.contextmanager
def losing_output(handle: Callable[[OutputLost], None]) -> Iterator[None]:
    """While the block runs, call `handle` once standard output is lost, in the main thread. It may raise it, then or later."""
    _on_lost.append(handle)
    try:
        yield
    finally:
        _on_lost.remove(handle)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Around everything that the program does. Failures of standard output raise OutputLost; standard error may fail.

    A stream that was closed from the start is /dev/null: else the next file that is opened, perhaps a user's, would have
    its number, and what libraries print would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    earlier = sys.stdin, sys.stdout, sys.stderr
    with open(os.devnull, "r+", encoding="utf-8") as nothing:  # noqa: PTH123 — no user's file
        output, errors = _Guarded(sys.stdout or nothing, tells=True), _Guarded(sys.stderr or nothing, tells=False)
        sys.stdin, sys.stdout, sys.stderr = sys.stdin or nothing, output, errors
        try:
            yield
        finally:
            # What they still hold goes out here: at the end of Python nobody could handle a failure.
            errors.flush()
            sys.stdin, sys.stdout, sys.stderr = earlier
            with contextlib.suppress(OutputLost) if _fails(sys.exc_info()[1]) else contextlib.nullcontext():
                output.flush()


def _fails(error: BaseException | None) -> bool:
    """Whether the program ends with another exit code than 0 anyway; then that is the one to keep."""
    return error is not None and not (isinstance(error, SystemExit) and not error.code)


class _Guarded:
    """A text stream whose failures are remembered. tells: whether they raise OutputLost, in the main thread and once."""

    def __init__(self, stream: Any, *, tells: bool):
        self._stream, self._tells, self._process = stream, tells, os.getpid()
        self._lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        self._try(self._stream.writelines, lines)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, call: Callable[..., object], *arguments: Any) -> None:
        if self._lost is None:
            try:
                call(*arguments)
            except OSError as error:
                self._lost = error
                self._give_up()
        # An error in another thread ends nothing, and its traceback would be the last that is seen; one in a worker
        # process ends the worker alone.
        ours = threading.current_thread() is threading.main_thread() and os.getpid() == self._process
        if self._lost is not None and self._tells and ours:
            self._tells = False
            _on_lost[-1](OutputLost(self._lost))

    def _give_up(self) -> None:
        """Let what is still buffered, and what libraries and children print, go nowhere."""
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
