"""Child processes: their last lines become the error message, and they end with the process that started them."""

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from slimtune.core import processes, run_watched
from slimtune.core.errors import SlimtuneError, fail

_POLL_SECONDS = 0.2
# NumPy's tofile does not tell the system's reason, but that fewer values were written than it was given.
_FULL = re.compile(
    f"{re.escape(os.strerror(errno.ENOSPC))}|{re.escape(os.strerror(errno.EDQUOT))}|[0-9]+ requested and [0-9]+ written"
)
_SHOWN_LINES = 8
_AGAIN = "run the command again; if it fails again, report what is said here"
_PACKAGE_ROOT = str(Path(__file__).parents[2])


def module(name: str) -> list[str]:
    """The command that runs a module of this package. `-P`: its folder must not hide packages of the same name."""
    return [sys.executable, "-P", "-m", name]


def script(path: Path, *arguments: str) -> list[str]:
    """The command that runs a script outside of this package, ended with this process (see run_watched.py)."""
    return [sys.executable, "-P", run_watched.__file__, str(path), *arguments]


def offline_environment(**more: str) -> dict[str, str]:
    """This process's environment with this package on the path. Offline: no local folder is looked up on the Hub.
    Whoever is started with it ends with this process (`processes.children_end_with_us`)."""
    processes.children_end_with_us()
    return os.environ | {"PYTHONPATH": _PACKAGE_ROOT, "HF_HUB_OFFLINE": "1"} | more


def run(
    command: Sequence[str],
    *,
    what: str,
    where: str = "",
    writes: Path | None = None,
    environment: Mapping[str, str],
    first_line: bytes = b"",
    on_poll: Callable[[], None] | None = None,
    timeout_seconds: float | None = None,
) -> bytes:
    """Run a command to its end and return its standard output.

    what: the message's subject where it fails. writes: the file that grows meanwhile. on_poll: called five times a
    second. first_line: written to its standard input, which then stays open for as long as this process lives.
    Raises SlimtuneError with the child's last lines where it fails, takes too long, or fills up the disk.
    """
    began = time.monotonic()
    with (
        # Not pipes: a full one would stop the child.
        scratch() as output,
        scratch() as messages,
        start(command, what, env=dict(environment), stdin=subprocess.PIPE, stdout=output, stderr=messages) as process,
    ):
        try:
            send_line(process, first_line)
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_SECONDS)
                if on_poll:
                    on_poll()
                if timeout_seconds is not None and time.monotonic() - began > timeout_seconds:
                    raise fail(f"{what}: no answer after {timeout_seconds:.0f} s", where=where, fix=_AGAIN)
        except BaseException:
            process.kill()
            raise
        if process.returncode:
            lines = last_lines(messages)
            if any(map(_FULL.search, lines)):
                raise fail("the disk is full", where=str(writes or where), fix="free some space and try again")
            raise failed(what, process.returncode, lines, where)
        output.seek(0)
        return output.read()


def start(command: Sequence[str], what: str, **options: Any) -> subprocess.Popen[bytes]:
    """The process of a command. what: the message's subject where it cannot be started. options: of subprocess.Popen.
    Raises SlimtuneError for a file that is no program, and where the system has no memory or processes left."""
    try:
        return subprocess.Popen(command, **options)
    except OSError as error:
        what = f"{what}: it cannot be started: {error.strerror or error}"
        raise fail(what, where=command[0], fix="see whether it is a program that you may run") from error


def scratch() -> IO[bytes]:
    """A temporary file without a name. Raises SlimtuneError where there is no room for one."""
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        fix = "free some space, or set TMPDIR to a folder that you may write to"
        raise fail(f"no temporary file can be made: {error.strerror or error}", fix=fix) from error


def send_line(process: subprocess.Popen[bytes], line: bytes) -> None:
    """Write to a child's standard input. A child that has ended already says why in another way."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(line)
        process.stdin.flush()


def last_lines(messages: IO[bytes]) -> list[str]:
    """The last lines of a child's standard error that are not blank."""
    messages.seek(0)
    lines = messages.read().decode("utf-8", "replace").splitlines()
    return [line for line in lines if line.strip()][-_SHOWN_LINES:]


def failed(what: str, exit_code: int, lines: Sequence[str], where: str = "") -> SlimtuneError:
    """The error of a child that ended with an exit code other than 0."""
    tail = "\n    ".join(lines) or "(it printed nothing)"
    killed = ", killed, as the system does where memory runs out" if exit_code == -signal.SIGKILL else ""
    return fail(f"{what} (exit code {exit_code}{killed}):\n    {tail}", where=where, fix=_AGAIN)
