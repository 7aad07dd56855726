"""Run a test's body as an ordinary user, for whom read-only places are read-only, also where the tests run as root.

The body runs in a fork that has given up every capability of root and cannot get them back, nor can what it starts. It
stays the owner of root's files: a file of mode 0444 and a folder of mode 0555 are to it what they are to their owner.
"""

import ctypes
import functools
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

_SET_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS of <linux/prctl.h>
_CAPABILITY_VERSION_3 = 0x20080522  # of <linux/capability.h>: sets of 64 bits


def run(body: Callable[[], Any], *, seconds: int = 120) -> Any:
    """What `body` returns, called as an ordinary user in a fork. What it changes in memory is lost.

    Raises AssertionError with the traceback if the body raises, and if it takes longer than `seconds`.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(body, writing, seconds)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        raise AssertionError(f"the body ended its process: exit code {os.waitstatus_to_exitcode(status)}")
    returned, value = pickle.loads(answer)
    if not returned:
        raise AssertionError(f"as an ordinary user:\n{value}")
    return value


def as_user(test: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a test whose body is to run as an ordinary user. Its fixtures are made and removed as always."""

    @functools.wraps(test)
    def forked(*arguments: Any, **fixtures: Any) -> None:
        run(lambda: test(*arguments, **fixtures))

    return forked


def _answer(body: Callable[[], Any], writing: int, seconds: int) -> NoReturn:
    answer = b""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        if sys.platform == "linux":
            give_up_privileges()
        answer = pickle.dumps((True, body()))
    except BaseException:  # noqa: BLE001  whatever it is, the parent raises it
        answer = pickle.dumps((False, traceback.format_exc()))
    finally:
        with os.fdopen(writing, "wb") as file:
            file.write(answer)
        os._exit(0)


def give_up_privileges() -> None:
    """Give up all capabilities of this process for good. Raises OSError if the system refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.capset(header, nothing):
        raise OSError(ctypes.get_errno(), "the capabilities of root cannot be given up")
