"""One process at a time writes into a run's folder.

The lock is `flock` on the file `.lock`, held open for as long as the run lasts. The kernel takes it back when the
process ends, even by SIGKILL or a power cut. A file made with O_EXCL would stay behind, and two processes could both
replace a stale one. What the file says (who, where, since when) is for people, and for file systems whose locks do not
reach other machines.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.files import encoded
from slimtune.core.processes import children_end_with_us, process_runs
from slimtune.core.redaction import redacted_command
from slimtune.core.run_record import now

FILE = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_held: set[int] = set()
"""Descriptors of this process's locks. A forked child has them too, and would hold the lock for as long as it lives."""
_KEYS = ("pid", "host", "started", "since", "command")


@dataclass(frozen=True)
class Owner:
    """Who holds a lock. started: the process's start in seconds since 1970; since: when it took the lock, UTC."""

    pid: int
    host: str
    started: float
    since: str
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since} ({self.command})"

    @property
    def running(self) -> bool:
        return process_runs(self.pid, self.started)


class RunLock:
    """A context manager that holds an existing folder's lock.

    say: called with one line if a lock was left by a process that is gone, or if the file system has no locks.
    Raises SlimtuneError if another process or another machine holds the lock, or if the folder is not writable.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], *, command: Sequence[str] | None = None):
        self.path, self.say = folder / FILE, say
        self.command = sys.argv if command is None else command

    def __enter__(self) -> Self:
        children_end_with_us()
        try:
            self._descriptor = self._take()
        except OSError as error:
            fix = "choose a folder that exists, that you may write to and that has room"
            what = f"the run's folder cannot be locked: {error.strerror}"
            raise fail(what, where=str(self.path), fix=fix) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor not in _held:  # a forked child that leaves the block
            return
        try:
            # Removed while it is still held, so that nobody can hold the file that is being removed.
            if _is_at(self._descriptor, self.path):
                self.path.unlink()
        finally:
            # Says it explicitly: a child that is just being forked still has the same open file.
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            _close(self._descriptor)

    def _take(self) -> int:
        while True:
            with contextlib.ExitStack() as opened:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                _held.add(descriptor)
                opened.callback(_close, descriptor)
                certain = self._lock(descriptor)
                # Between opening and locking, the earlier owner may have removed this file: then it is nobody's.
                if _is_at(descriptor, self.path):
                    self._replace(descriptor, certain)
                    opened.pop_all()
                    return descriptor

    def _lock(self, descriptor: int) -> bool:
        """Take the kernel's lock; False where the file system has none. Raises SlimtuneError where another holds it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._held(read(descriptor)) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self.say(f"the file system of {self.path.parent} has no locks: start only one run on this folder")
            return False
        return True

    def _replace(self, descriptor: int, certain: bool) -> None:
        """Write this process into the file, unless what it says forbids that."""
        host = socket.gethostname()
        if left := read(descriptor):
            if left.host != host:
                what = f"the folder is locked by {left}; from {host} it cannot be seen whether that process still runs"
                raise fail(what, where=str(self.path), fix=f"if it has ended, delete the lock:  rm {self.path}")
            if left.running and not certain:
                raise self._held(left)
            self.say(f"replaced a lock left over by {left}: {_why_stale(left)}")
        process = psutil.Process()
        command = " ".join(redacted_command(self.command))
        owner = Owner(process.pid, host, process.create_time(), now(), command)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, encoded(json.dumps(asdict(owner), ensure_ascii=False) + "\n"), 0)
        os.fsync(descriptor)

    def _held(self, owner: Owner | None) -> SlimtuneError:
        if owner is None:
            what, fix = "another process is just taking this folder", "wait for its run to end"
        elif owner.host == socket.gethostname() and not owner.running:
            what = f"the folder is locked by a process that was started by {owner}; that one has ended"
            fix = f"find what still runs with  fuser {self.path}  and end it"
        else:
            what, fix = f"another run is using this folder: {owner}", f"wait for it, or end it with  kill {owner.pid}"
        return fail(what, where=str(self.path), fix=fix)


def _close(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _let_go() -> None:
    """In a forked child: close the locks, which stay with the parent alone and go with it."""
    while _held:
        with contextlib.suppress(OSError):
            os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that has this path now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def read(descriptor: int) -> Owner | None:
    """Who the file names; None where it is empty or its writing was cut off."""
    try:
        content = json.loads(os.pread(descriptor, 1 << 20, 0))
    except (ValueError, RecursionError):
        return None
    match content:
        case {"pid": int(pid), "host": str(), "started": int() | float(), "since": str(), "command": str()}:
            # What else it says is of another version.
            return Owner(**{key: content[key] for key in _KEYS}) if 0 < pid < 2**31 else None
    return None


def _why_stale(left: Owner) -> str:
    if left.running:
        return "it runs, but does not hold this lock (a copied folder)"
    if psutil.pid_exists(left.pid):
        return "that process is gone and its number belongs to another one"
    return "that process is gone"
