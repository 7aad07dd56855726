"""SIGKILL of a run's main process alone, as the kernel's memory killer and `kill -9 PID` do it, at any moment.

Its workers, converters and servers end too, nobody holds its lock, and what is resumed ends with the same bits, verdict and
files. tests/run/test_kill.py kills at what a run does; here the clock, the events and the children say when.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.paths import ROOT
from support.short_run import differences

from slimtune.core.files import sha256_file
from slimtune.core.run_lock import RunLock

pytestmark = pytest.mark.fault

ENDING_SECONDS = 5
SHORT_CHAINS, QUICK = 8, 1
STAGES = ["checkpoints/.partial-checkpoint-*", "adapter*", "eval/tuned.jsonl", "eval/verdict.json", "report.html"]
"""What a run writes, in its order."""
CHILDREN = ["run_converter.py", "merged_model", "llama_server"]
"""What an export starts, in its order."""
WORKER = "forked_runs.py"
"""What the workers of `datasets` are copies of."""
LOADING_SECONDS = (1, 4, 9, 15)
"""Importing everything takes 20 seconds or more."""


@pytest.fixture(scope="module")
def undisturbed(runs):
    """(a run that exports, how many seconds it took, how many one takes that does not)"""
    places = runs.place("exported"), runs.place("timed")
    with_export(places[0])
    seconds = []
    for place in places:
        began = time.monotonic()
        code, text = place.do(fault="workers")
        assert code == 0, text
        seconds.append(time.monotonic() - began)
    return places[0], *seconds


def with_export(place):
    place.write_recipe(export={"gguf": ["f16"], "require_verdict": False})


def latest(place):
    """The folder of the latest run; one that does not exist where none has begun."""
    return place.outputs / "short" / "latest"


def kill_alone(pid):
    """Kill this process and no other; returns those of its children that live on for five seconds."""
    process = psutil.Process(pid)
    process.suspend()  # it starts no other while they are counted
    children = process.children(recursive=True)
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([process], timeout=ENDING_SECONDS)
    return psutil.wait_procs(children, timeout=ENDING_SECONDS)[1]


def wait_for(started, due):
    """Wait until `due()` is true; False where the run has ended before."""
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(started.pid).status() != psutil.STATUS_ZOMBIE:
            if due():
                return True
            time.sleep(0.002)
    return False


def after(seconds):
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until


def written(place, pattern):
    """Whether a file of that name has been written since now."""
    since = time.time()
    return lambda: any(path.lstat().st_mtime >= since for path in latest(place).glob(pattern) if path.exists())


def child(started, name):
    """Whether the run has started such a program."""

    def runs():
        for one in psutil.Process(started.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if name in " ".join(one.cmdline()):
                    return True
        return False

    return runs


def killed(place, moment):
    """Run, or resume, and kill it once `moment(started)` is due; returns whether it was killed before its end."""
    begun = list((place.outputs / "short").glob("2*/manifest.json"))
    arguments = ["--resume", "auto"] if begun else []
    started = place.start(*arguments, fault="workers")
    due = wait_for(started, moment(started))
    survivors = kill_alone(started.pid) if due else []
    code, text = started.ended()
    assert code == (-signal.SIGKILL if due else 0), text
    assert survivors == []
    if latest(place).exists():
        with RunLock(latest(place).resolve(), print):
            assert (latest(place) / ".lock").is_file()
    return due


def assert_same(place, run):
    arguments = ["--resume", "auto"] if latest(place).exists() else []
    code, text = place.do(*arguments)
    assert code == 0, text
    assert differences(place.run(), run) == []
    assert (place.run() / "eval/verdict.json").read_bytes() == (run / "eval/verdict.json").read_bytes()
    assert [path for path in (place.outputs / "short").glob(".opening.*") if (path / "recipe.yaml").exists()] == []


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] if seed >= QUICK else []) for seed in range(SHORT_CHAINS)]
)
def test_killed_alone_four_times_it_ends_with_the_same_bits(runs, undisturbed, seed):
    place, rng, seconds = runs.place(f"alone-{seed}"), random.Random(seed), undisturbed[2]
    first = seconds * (seed + rng.random()) / SHORT_CHAINS
    kills = [
        killed(place, lambda started: after(first)),
        killed(place, lambda started: child(started, WORKER)),
        killed(place, lambda started: after(seconds * 0.6 * rng.random())),
        killed(place, lambda started: written(place, STAGES[seed % len(STAGES)])),
    ]
    print(f"seed {seed}: {kills.count(True)} kills; {seconds:.0f} s undisturbed, the first after {first:.1f} s")
    assert_same(place, runs.undisturbed)


@pytest.mark.parametrize("chain", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_killed_alone_while_it_exports_the_files_are_the_same(runs, undisturbed, chain):
    (whole, seconds, without), place, rng = undisturbed, runs.place(f"export-{chain}"), random.Random(chain)
    with_export(place)
    moments = [lambda started, name=name: child(started, name) for name in CHILDREN]
    if chain:
        moments.insert(chain, lambda started: after(without + (seconds - without) * rng.random()))
    kills = [killed(place, moment) for moment in moments]
    # Where the run has ended before the drawn moment, nothing is left to be killed behind it.
    assert all(kills[: chain or None]) and kills == sorted(kills, reverse=True), kills
    assert_same(place, whole.run())
    exports = [place.run() / "export" for place in (place, whole)]
    hashes = [{path.name: sha256_file(path) for path in folder.glob("*.gguf")} for folder in exports]
    assert hashes[0] == hashes[1] != {}
    assert json.loads((exports[0] / "parity.json").read_text("utf-8"))["passed"]


@pytest.mark.slow
def test_killed_alone_while_everything_is_imported(runs):
    place = runs.place("loading")
    command = [sys.executable, str(ROOT / "train_unsloth.py"), *place.arguments()]
    for number, seconds in enumerate(LOADING_SECONDS):
        again = ["--resume", "auto"] if number and latest(place).exists() else []
        process = subprocess.Popen([*command, *again], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        assert kill_alone(process.pid) == []
        process.wait()
        if latest(place).exists():
            with RunLock(Path(latest(place)).resolve(), print):
                assert (latest(place) / ".lock").is_file()
    assert_same(place, runs.undisturbed)
