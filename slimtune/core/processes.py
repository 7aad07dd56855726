"""Processes and their children: which ones still run, and children that end with the process that started them."""

import atexit
import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
import sys
import threading
import time

import psutil

from slimtune.core import guardian

VARIABLE = "SLIMTUNE_MAIN_PROCESS"
"""Tells the guardian which programs this process started."""
_SAME_START_SECONDS = 2.0
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h
_LOOK_SECONDS = 0.5
_libc = ctypes.CDLL(None)  # here, since a child that has just been forked should not load anything
_forking = threading.local()
_guarded: set[int] = set()
"""The process that has a guardian; a forked child, which has this set as well, is another one."""


def process_runs(pid: int, started: float) -> bool:
    """Whether this very process runs on this machine: a reused number belongs to one with another start."""
    if pid < 1:
        return False
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < _SAME_START_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children_end_with_us() -> None:
    """From now on, all processes that this one starts end when it ends, even by SIGKILL, and so do their own children.

    Libraries fork workers (`datasets`, torch's data loaders) and start programs, which would go on writing beside the run
    that is resumed. The kernel ends what is forked. A program is ended by a guardian, which finds it by a variable of its
    environment. Linux only: elsewhere a forked child looks for its parent twice a second.
    """
    if os.getpid() in _guarded:
        return
    if not _guarded:
        os.register_at_fork(before=_remember_who_forks, after_in_child=_end_with_parent)
    _guarded.add(os.getpid())
    os.environ[VARIABLE] = f"{os.getpid()}-{secrets.token_hex(8)}"
    if hasattr(os, "pidfd_open"):
        # Where a sandbox forbids it, or no process is left to be had, the run does without: its own children watch it too.
        with contextlib.suppress(OSError):
            _start_guardian(f"{VARIABLE}={os.environ[VARIABLE]}")


def _start_guardian(mark: str) -> None:
    descriptor = os.pidfd_open(os.getpid())
    try:
        # In a session of its own: it outlives Ctrl-C, a closed terminal and the end of the whole group.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, str(descriptor), mark],
            env={}, cwd="/", pass_fds=[descriptor], start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        os.close(descriptor)
    atexit.register(_dismiss, process, os.getpid())


def _dismiss(process: subprocess.Popen[bytes], ours: int) -> None:
    if os.getpid() == ours:
        process.kill()
        process.wait()


def _remember_who_forks() -> None:
    _forking.parent = os.getpid()
    _forking.in_main_thread = threading.get_native_id() == os.getpid()


def _end_with_parent() -> None:
    # The kernel's signal comes when the thread that forked ends, which only for the main one is the end of the process.
    if sys.platform == "linux" and _forking.in_main_thread:
        _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != _forking.parent:  # it ended before that
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(_forking.parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
