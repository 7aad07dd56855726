"""The doctor finds what is wrong with a run's folder, says what to do, and changes nothing."""

import hashlib
import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy
import psutil
import pytest
from safetensors.numpy import save_file
from support.found import has, levels
from support.paths import ROOT

from slimtune.core import output_folders, versions
from slimtune.core.errors import SlimtuneError
from slimtune.core.findings import render
from slimtune.core.run_lock import FILE, RunLock
from slimtune.run import doctor_run
from slimtune.train.safeguards import checkpoints

GIB = 2**30
FILES = ("adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def a_checkpoint(run, step):
    folder = run / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(name.encode() * 100)
    write_json(folder / "trainer_state.json", {"global_step": step})
    checkpoints.seal(folder, step)
    return folder


def an_adapter(run):
    (run / "adapter").mkdir()
    save_file({"a": numpy.zeros((2, 3), numpy.float32)}, run / "adapter" / "adapter_model.safetensors")
    write_json(run / "adapter" / "adapter_config.json", {"r": 8})


def events(run, *rows):
    rows = [{"time": "2026-11-22T05:00:00Z", "step": None, **row} for row in rows]
    (run / "events.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def manifest(run, **changes):
    path = run / "manifest.json"
    write_json(path, {**json.loads(path.read_text("utf-8")), **changes})


@pytest.fixture
def unfinished(tmp_path, monkeypatch):
    """A run of 9 steps that was killed after step 6, with valid checkpoints 3 and 6."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs" / "law" / "20261122T050000Z"
    data = tmp_path / "train.jsonl"
    data.write_text("{}\n", "utf-8")
    write_json(
        run / "manifest.json",
        {
            "name": "law",
            "run_id": run.name,
            "status": "running",
            "complete": False,
            "finished": None,
            "command": ["train_unsloth.py", "--recipe", "my recipe.yaml"],
            "hashes": {"data": {"train.jsonl": hashlib.sha256(b"{}\n").hexdigest()}},
            "versions": versions.installed(),
        },
    )
    write_json(run / "plan.json", {"settings": {"total_steps": {"value": 9, "reason": ""}}})
    (run / "recipe.yaml").write_text("name: law\n", "utf-8")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n', "utf-8")
    events(run, {"event": "run_opened", "message": "run"}, {"event": "checkpoint", "message": "checkpoint-6 is there"})
    for step in (3, 6):
        a_checkpoint(run, step)
    return run


def contents(folder):
    """Every path below a folder with what it holds and when it was changed."""
    return {
        path: (path.read_bytes() if path.is_file() and not path.is_symlink() else None, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def test_a_killed_run(unfinished):
    before = contents(unfinished)
    findings = doctor_run.run(unfinished)
    assert contents(unfinished) == before
    has(findings, "warning", "did not end", "killed", "checkpoint-6 is there", "2026-11-22T05:00:00Z")
    has(findings, "ok", "checkpoint-3 is valid")
    has(findings, "ok", "checkpoint-6 is valid")
    has(findings, "ok", "no adapter yet")
    last = has(findings, "ok", "--resume auto continues after step 6 of 9 (checkpoint-6)")
    assert shlex.split(last.fix) == ["python", "train_unsloth.py", "--recipe", "my recipe.yaml", "--resume", "auto"]
    assert findings[-1] == last and len(findings) == 5


def test_a_link_to_the_run_will_do_and_its_parent_will_not(unfinished):
    latest = unfinished.parent / "latest"
    latest.symlink_to(unfinished.name)
    assert doctor_run.run(latest) == doctor_run.run(unfinished)
    parent = Path("outputs/law")
    with pytest.raises(SlimtuneError, match=r"no manifest\.json") as refused:
        doctor_run.run(parent)
    assert f"its latest run is {parent.absolute()}/latest" in str(refused.value) and refused.value.exit_code == 2
    with pytest.raises(SlimtuneError, match=r"nowhere: there is no such folder\n.*e\.g\. outputs/direct/latest"):
        doctor_run.run(Path("nowhere"))


def test_a_failed_run_says_why_in_one_line_and_what_to_do(unfinished):
    manifest(unfinished, status="failed", finished="2026-11-22T06:00:00Z")
    events(unfinished, {"event": "failed", "message": "/x: checkpoint-6 could not be written: disk\n    → make room"})
    failed = has(doctor_run.run(unfinished), "error", "failed, 2026-11-22T06:00:00Z: /x: checkpoint-6 could not")
    assert "\n" not in failed.what
    assert "\n         → make room\n" in render([failed])


def test_an_interrupted_run(unfinished):
    manifest(unfinished, status="interrupted", finished="2026-11-22T06:00:00Z")
    events(unfinished, {"event": "interrupted", "message": "stopped by a signal"})
    findings = doctor_run.run(unfinished)
    has(findings, "warning", "was interrupted, 2026-11-22T06:00:00Z: stopped by a signal")
    has(findings, "ok", "continues after step 6")


def test_a_complete_run(unfinished):
    manifest(unfinished, status="complete", complete=True, finished="2026-11-22T06:00:00Z")
    an_adapter(unfinished)
    Path("train.jsonl").unlink()  # what a complete run was trained on may go
    findings = doctor_run.run(unfinished)
    assert levels(findings) == {"ok"}
    has(findings, "ok", "has been complete since 2026-11-22T06:00:00Z")
    has(findings, "ok", "the adapter is intact: 1 tensors")
    assert not any("--resume" in finding.fix for finding in findings)


def test_a_newer_run_is_what_auto_would_take(unfinished):
    write_json(unfinished.parent / "20261123T050000Z" / "manifest.json", {})
    last = doctor_run.run(unfinished)[-1]
    assert "it is not the latest run of its recipe (that is 20261123T050000Z)" in last.what
    for number in (2, 10):  # runs of the same second
        write_json(unfinished.parent / f"20261123T050000Z-{number}" / "manifest.json", {})
    last = doctor_run.run(unfinished)[-1]
    assert "(that is 20261123T050000Z-10)" in last.what
    assert shlex.split(last.fix)[-2:] == ["--resume", str(unfinished)]


@pytest.mark.parametrize(
    "program", ["/somewhere/slimtune/cli.py", "/somewhere/slimtune/cli/__main__.py", "/somewhere/.venv/bin/slimtune"]
)
def test_a_run_started_with_slimtune_resumes_with_it(unfinished, program):
    manifest(unfinished, command=[program, "train", "-r", "a.yaml", "--resume", "auto"])
    assert doctor_run.run(unfinished)[-1].fix == "slimtune train -r a.yaml --resume auto"


def test_a_broken_checkpoint_is_passed_over(unfinished):
    path = unfinished / "checkpoints" / "checkpoint-6" / "optimizer.pt"
    path.write_bytes(path.read_bytes()[:-1])
    findings = doctor_run.run(unfinished)
    has(
        findings,
        "warning",
        "checkpoint-6 is broken: optimizer.pt is truncated: 1,199 of 1,200 bytes",
        "checkpoint-3 is used",
    )
    has(findings, "ok", "continues after step 3 of 9")
    assert "error" not in levels(findings)


def test_where_no_checkpoint_is_valid_that_is_a_problem(unfinished):
    for step in (3, 6):
        (unfinished / "checkpoints" / f"checkpoint-{step}" / "checkpoint.json").unlink()
    findings = doctor_run.run(unfinished)
    has(findings, "error", "no checkpoint is valid", "begins again with the first step")
    has(findings, "ok", "--resume auto continues from the beginning")


def test_what_only_looks_like_a_leftover_is_somebodys(unfinished):
    for name in ("checkpoint-99", ".partial-checkpoint-9", ".replaced-checkpoint-1"):
        (unfinished / "checkpoints" / name).mkdir(exist_ok=True)
        (unfinished / "checkpoints" / name / "thesis.txt").touch()
    (unfinished / ".export.0123456789abcdef.old").mkdir()
    output_folders.mark_finished(unfinished / ".export.0123456789abcdef.old", "an export")
    (unfinished / "export").rmdir() if (unfinished / "export").is_dir() else None
    findings = doctor_run.run(unfinished)
    for name in ("checkpoint-99", ".partial-checkpoint-9", ".replaced-checkpoint-1"):
        has(findings, "warning", f"{name} is left as it is: Slimtune did not write it", "move it elsewhere")
    assert not any("--resume removes" in one.fix for one in findings)
    has(findings, "warning", "a process ended while it wrote .export.", "gives it the name export back")


def test_leftovers_and_a_checkpoint_that_gets_its_name_back(unfinished):
    folder = unfinished / "checkpoints"
    (folder / "checkpoint-6").rename(folder / ".replaced-checkpoint-6")
    (folder / ".partial-checkpoint-9").mkdir()
    (unfinished / ".manifest.json.partial").write_text("{", "utf-8")
    before = contents(unfinished)
    findings = doctor_run.run(unfinished)
    assert contents(unfinished) == before
    has(findings, "ok", "checkpoint-6 is valid")
    has(findings, "warning", ".replaced-checkpoint-6", "gives it its name back")
    has(findings, "warning", "a process ended while it wrote or removed .partial-checkpoint-9", "--resume removes it")
    has(findings, "warning", "a process ended while it wrote .manifest.json.partial")
    has(findings, "ok", "continues after step 6")
    # What it foretells is what resuming does.
    assert checkpoints.clear_leftovers(folder)
    assert checkpoints.newest_valid(folder).step == 6


def test_files_that_a_resumed_run_needs(unfinished):
    (unfinished / "plan.json").write_text("{", "utf-8")
    (unfinished / "recipe.yaml").unlink()
    findings = doctor_run.run(unfinished)
    has(findings, "error", "plan.json: ", "cannot be resumed")
    has(findings, "error", "recipe.yaml: missing", "cannot be resumed")
    assert not any("--resume auto continues" in finding.what for finding in findings)


def test_a_damaged_log_does_not_hinder(unfinished):
    (unfinished / "metrics.jsonl").write_text('{"step": 1}\n{"st\n', "utf-8")
    findings = doctor_run.run(unfinished)
    assert has(findings, "error", "metrics.jsonl:2: ").fix == ""
    has(findings, "ok", "continues after step 6")


def test_what_cannot_be_read(unfinished, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(13, "Permission denied", "manifest.json")

    monkeypatch.setattr(doctor_run, "mapping", refuse)
    assert [one.what for one in doctor_run.run(unfinished)] == ["manifest.json cannot be read: Permission denied"]


def test_the_lock_of_a_run_that_goes_on(unfinished):
    (unfinished / "checkpoints" / ".partial-checkpoint-9").mkdir()
    with RunLock(unfinished, pytest.fail, command=["train"]):
        before = contents(unfinished)
        findings = doctor_run.run(unfinished)
        assert contents(unfinished) == before
    assert levels(findings) == {"ok"}
    has(findings, "ok", "is still going on")
    has(findings, "ok", f"locked by process {os.getpid()} on {socket.gethostname()}")
    assert not any("--resume" in f"{one.what}{one.fix}" or ".partial" in one.what for one in findings)


def test_a_lock_that_nobody_holds(unfinished):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    values = {"pid": done.pid, "host": socket.gethostname(), "started": 1.0, "since": "then", "command": "train"}
    write_json(unfinished / FILE, values)
    has(doctor_run.run(unfinished), "warning", f"process {done.pid} on", "left a lock behind", "replaces it")
    # Even where that number runs: it does not hold the lock of this file.
    write_json(unfinished / FILE, {**values, "pid": os.getpid(), "started": psutil.Process().create_time()})
    has(doctor_run.run(unfinished), "warning", f"process {os.getpid()} on", "left a lock behind")
    write_json(unfinished / FILE, {**values, "host": "another"})
    has(doctor_run.run(unfinished), "error", "on another", "cannot tell", f"rm {unfinished / FILE}")
    (unfinished / FILE).write_bytes(b"")
    has(doctor_run.run(unfinished), "warning", "nobody left a lock behind")
    assert (unfinished / FILE).read_bytes() == b""


def test_data_and_versions_that_changed_since(unfinished):
    manifest(unfinished, versions={**versions.installed(), "trl": "1.0.0", "python": "3.11.7"})
    Path("train.jsonl").write_text("{} \n", "utf-8")
    findings = doctor_run.run(unfinished)
    has(findings, "error", "train.jsonl has changed since the run began", "put the old file back")
    has(findings, "warning", "other versions", "trl 1.0.0 → 1.15.0", "install the earlier versions")
    Path("train.jsonl").unlink()
    has(doctor_run.run(unfinished), "warning", "train.jsonl is missing", "from the folder where the run was started")


def test_no_room_or_no_right_to_go_on(unfinished, monkeypatch):
    monkeypatch.setattr(doctor_run.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    monkeypatch.setattr(doctor_run.os, "access", lambda path, mode: False)
    findings = doctor_run.run(unfinished)
    has(findings, "error", "100 B are free, but the next checkpoint takes", "make room")
    has(findings, "error", "cannot be written to")


@pytest.mark.parametrize(
    "damage, text",
    [
        (lambda path: path.unlink(), "adapter_model.safetensors is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "adapter_model.safetensors is damaged"),
        (lambda path: path.write_bytes(b""), "adapter_model.safetensors is damaged"),
        (lambda path: (path.parent / "adapter_config.json").write_text("{"), "adapter_config.json is damaged"),
    ],
)
def test_a_broken_adapter(unfinished, damage, text):
    an_adapter(unfinished)
    damage(unfinished / "adapter" / "adapter_model.safetensors")
    has(doctor_run.run(unfinished), "warning", text, "--resume rewrites it")
    manifest(unfinished, status="complete", complete=True)
    has(doctor_run.run(unfinished), "error", text, "train again")


def test_a_complete_run_without_an_adapter(unfinished):
    manifest(unfinished, status="complete", complete=True)
    findings = doctor_run.run(unfinished)
    has(findings, "error", "adapter_model.safetensors is missing")
    has(findings, "error", "adapter_config.json is missing")


def test_events_worth_knowing_are_told_once(unfinished):
    skipped = {"event": "checkpoint_skipped", "message": "checkpoint-9 is not used: it is truncated"}
    events(
        unfinished,
        {"event": "out_of_memory", "step": 4, "message": "2 examples together did not fit"},
        skipped,
        skipped,
        {"event": "overfitting", "message": "the evaluation loss has risen"},
        {"event": "memory_differs", "message": "peak allocated: 8 % more\nsecond line"},
        {"event": "checkpoint", "message": "checkpoint-6"},
    )
    findings = doctor_run.run(unfinished)
    has(findings, "warning", "out_of_memory: 2 examples together did not fit")
    has(findings, "warning", "checkpoint_skipped (2 times): checkpoint-9 is not used")
    has(findings, "warning", "overfitting: the evaluation loss has risen")
    has(findings, "warning", "memory_differs: peak allocated: 8 % more", "second line")
    assert sum("checkpoint_skipped" in finding.what for finding in findings) == 1


def command(*arguments):
    code = (
        "import sys\nfrom slimtune.cli import app as cli\ntry:\n    cli.main(sys.argv[1:])\n"
        "finally:\n    print(sorted({'torch', 'transformers', 'datasets', 'matplotlib', 'unsloth'} & set(sys.modules)))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "doctor", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_command_imports_nothing_heavy_and_its_exit_code_tells(unfinished):
    Path("train.jsonl").unlink()
    done = command(unfinished)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    rows = done.stdout.splitlines()
    assert rows[-2:] == ["0 errors, 2 warnings", "[]"]
    assert rows[0].startswith("warning  run 20261122T050000Z of recipe law did not end")

    (unfinished / "recipe.yaml").unlink()
    assert command(unfinished).returncode == 1

    done = command()
    assert done.stdout.splitlines()[-1] == "[]"
    problems = [row for row in done.stdout.splitlines() if row.startswith("error")]
    assert done.returncode == (1 if problems else 0)
    assert "HF_HUB_OFFLINE is set" in done.stdout
