"""SIGKILL of a process alone: whatever it started ends with it, and its lock is free at once."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from support.paths import ROOT

from slimtune.core import processes
from slimtune.core.errors import SlimtuneError
from slimtune.core.run_lock import FILE, RunLock

PARENT = """
import multiprocessing, os, subprocess, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from slimtune.core.run_lock import RunLock

def forks(told):
    os.fork()
    sleeps(told)

def sleeps(told):
    told.put(os.getpid())
    time.sleep(600)

def start(kind, target):
    multiprocessing.get_context(kind).Process(target=target, args=[told]).start()

if __name__ == "__main__":
    with RunLock(Path(sys.argv[1]), print, command=["train"]):
        told = multiprocessing.get_context("spawn").SimpleQueue()
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
        pids = [pool.submit(os.getpid).result()]
        start("fork", forks)
        thread = threading.Thread(target=start, args=["fork", sleeps])
        thread.start()
        thread.join()
        start("spawn", sleeps)
        start("forkserver", forks)
        program = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
        pids += [program.pid, int(program.stdout.readline()), *(told.get() for _ in range(6))]
        print(*pids, flush=True)
        time.sleep(600)
"""


@pytest.fixture
def parent(tmp_path):
    """(a process that holds tmp_path's lock, all that it started)"""
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, script, tmp_path], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    children = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
    assert len(children) == 9 and all(child.is_running() for child in children)
    yield process, children
    process.kill()
    process.communicate()
    for child in children:
        if child.is_running():
            child.kill()


def test_a_killed_process_takes_its_children_with_it_and_its_lock(tmp_path, parent):
    process, children = parent
    # The thread that started one of them has ended; that one goes on for as long as the process does.
    time.sleep(1.2 * processes._LOOK_SECONDS)
    assert all(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    with pytest.raises(SlimtuneError, match=f"process {process.pid} "), RunLock(tmp_path, print):
        pytest.fail("two hold the lock")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    said = []
    with RunLock(tmp_path, said.append):
        assert (tmp_path / FILE).exists()
    assert "that process is gone" in said[0]
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []


def test_a_process_that_ends_by_itself_has_no_guardian_left(tmp_path):
    code = "import sys; from pathlib import Path; from slimtune.core.run_lock import RunLock\n"
    code += "with RunLock(Path(sys.argv[1]), print): import psutil; print([c.pid for c in psutil.Process().children()])"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    [guardian] = json.loads(done.stdout)
    assert not psutil.pid_exists(guardian)


def test_where_a_sandbox_allows_no_guardian_the_lock_is_taken_without(tmp_path, monkeypatch):
    def forbidden(pid):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", forbidden)
    monkeypatch.setattr(processes, "_guarded", {0})
    with RunLock(tmp_path, print):
        assert os.getpid() in processes._guarded
