"""One process at a time; what a killed one leaves behind is recognised."""

import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.core.run_lock import FILE, RunLock

HOLD = """
import sys
from pathlib import Path
from slimtune.core.run_lock import RunLock

with RunLock(Path(sys.argv[1]), print, command=["train", "hf_abcdefghijkl"]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds tmp_path's lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def write(folder, **changes):
    """A lock file that nobody holds, of this very process but for the changes."""
    values = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": psutil.Process().create_time(),
        "since": "2026-01-02T03:04:05Z",
        "command": "train",
    }
    (folder / FILE).write_text(json.dumps({**values, **changes}), encoding="utf-8")


def a_pid_of_nobody():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def taken(folder, said=None):
    """Take and release the lock; returns what the file said meanwhile."""
    with RunLock(folder, (said if said is not None else []).append, command=["train"]):
        values = json.loads((folder / FILE).read_text("utf-8"))
    assert not (folder / FILE).exists()
    return values


def test_the_lock_says_who_holds_it_and_goes_at_the_end(tmp_path):
    said = []
    values = taken(tmp_path, said)
    assert (values["pid"], values["host"], values["command"]) == (os.getpid(), socket.gethostname(), "train")
    assert values["started"] == psutil.Process().create_time()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", values["since"])
    assert said == []


def test_an_exception_releases_it(tmp_path):
    with pytest.raises(ZeroDivisionError), RunLock(tmp_path, print):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    taken(tmp_path)


def test_a_second_process_is_named_with_pid_and_time(tmp_path, holder):
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(SlimtuneError) as caught, RunLock(tmp_path, print):
        pytest.fail("two hold the lock")
    text = str(caught.value)
    assert f"another run is using this folder: process {holder.pid} on {socket.gethostname()}, since 2" in text
    assert f"kill {holder.pid}" in text
    assert "hf_abcdefghijkl" not in text
    assert (tmp_path / FILE).read_bytes() == before
    holder.communicate()  # its input ends, and so does the run
    assert holder.returncode == 0
    taken(tmp_path)


def test_the_same_process_cannot_take_it_twice(tmp_path):
    with RunLock(tmp_path, print):
        with pytest.raises(SlimtuneError, match=f"process {os.getpid()} "), RunLock(tmp_path, print):
            pytest.fail("taken twice")
        assert (tmp_path / FILE).exists()


def test_a_killed_process_leaves_a_lock_that_is_replaced(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / FILE).read_text("utf-8"))["pid"] == holder.pid
    said = []
    assert taken(tmp_path, said)["pid"] == os.getpid()
    assert len(said) == 1
    assert said[0].startswith(f"replaced a lock left over by process {holder.pid} on {socket.gethostname()}, since 2")
    assert said[0].endswith("): that process is gone")


def test_a_zombie_is_no_owner(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the process table
    said = []
    taken(tmp_path, said)
    assert f"process {holder.pid} " in said[0]


def test_a_reused_pid_is_another_process(tmp_path):
    write(tmp_path, started=psutil.Process().create_time() - 3600)
    said = []
    taken(tmp_path, said)
    assert said[0].endswith("that process is gone and its number belongs to another one")


def test_a_copied_folder_is_not_locked_by_the_original(tmp_path):
    write(tmp_path)
    said = []
    taken(tmp_path, said)
    assert said[0].endswith("it runs, but does not hold this lock (a copied folder)")


def test_another_machines_lock_is_named_and_left_alone(tmp_path):
    write(tmp_path, host="elsewhere", pid=a_pid_of_nobody())
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(SlimtuneError, match="on elsewhere, since 2026-01-02T03:04:05Z") as caught:
        taken(tmp_path)
    assert f"rm {tmp_path / FILE}" in str(caught.value)
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b'{"pid": 12', b"[]", b'{"pid": null}', b"\xff"])
def test_a_file_that_names_nobody_is_taken(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    said = []
    taken(tmp_path, said)
    assert said == []


def test_a_file_removed_between_opening_and_locking_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    """The earlier owner releases, and a third process takes the folder, in just that moment."""
    real, calls = fcntl.flock, []
    third = RunLock(tmp_path, print)

    def flock(descriptor, operation):
        calls.append(operation)
        if len(calls) == 1:
            (tmp_path / FILE).unlink()
            monkeypatch.setattr(fcntl, "flock", real)
            third.__enter__()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(SlimtuneError, match="another run is using this folder"), RunLock(tmp_path, print):
        pytest.fail("two hold the lock")
    third.__exit__(None, None, None)
    taken(tmp_path)


def test_without_locks_in_the_file_system_the_file_decides(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    said = []
    taken(tmp_path, said)
    assert said == [f"the file system of {tmp_path} has no locks: start only one run on this folder"]
    write(tmp_path, pid=a_pid_of_nobody())
    taken(tmp_path, said)
    assert said[-1].endswith("that process is gone")
    write(tmp_path)
    with pytest.raises(SlimtuneError, match=f"process {os.getpid()} "):
        taken(tmp_path)


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    read, write_end = os.pipe()
    with RunLock(tmp_path, print):
        child = os.fork()
        if child == 0:  # pragma: no cover
            os.close(write_end)
            os.read(read, 1)  # lives until the parent has closed the pipe
            os._exit(0)
    try:
        taken(tmp_path)
    finally:
        os.close(write_end)
        os.waitpid(child, 0)
        os.close(read)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_an_error_and_not_locked(tmp_path, monkeypatch, number):
    def pwrite(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", pwrite)
        with pytest.raises(SlimtuneError, match=f"cannot be locked: {os.strerror(number)}"):
            taken(tmp_path)
    taken(tmp_path)


def test_a_missing_folder_or_a_link_is_an_error(tmp_path):
    with pytest.raises(SlimtuneError, match="No such file or directory"):
        taken(tmp_path / "missing")
    (tmp_path / FILE).symlink_to(tmp_path / "target")
    with pytest.raises(SlimtuneError, match="cannot be locked"):
        taken(tmp_path)
    assert not (tmp_path / "target").exists()
