"""Hardware detection against a stand-in for nvidia-smi and against written /proc files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from slimtune.core.units import GIB, MIB
from slimtune.models import hardware
from slimtune.models.cards import CARDS
from slimtune.models.hardware import Hardware, assumed, card, cpu_bf16, detect

RTX_3080 = "NVIDIA GeForce RTX 3080, 10240, 312, 8.6"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a shell script called nvidia-smi on an otherwise empty PATH; returns the file that logs its arguments."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    called = tmp_path / "called"

    def install(body: str) -> Path:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho \"$@\" > '{called}'\n{body}\n", encoding="utf-8")
        program.chmod(0o755)
        return called

    return install


def test_detects_an_ampere_card(nvidia_smi):
    called = nvidia_smi(f"echo '{RTX_3080}'")
    found = detect()
    name, memory, used = "NVIDIA GeForce RTX 3080", 10240 * MIB, 312 * MIB
    assert found == Hardware("cuda", name, memory, True, found.cores, (8, 6), "rtx3080", used)
    assert found.cores >= 1
    arguments = called.read_text(encoding="utf-8").strip()
    assert arguments == "--query-gpu=name,memory.total,memory.used,compute_cap --format=csv,noheader,nounits"


def test_a_turing_card_has_no_bf16(nvidia_smi):
    nvidia_smi("echo 'Tesla T4, 15360, 0, 7.5'")
    found = detect()
    assert (found.name, found.bf16, found.compute_capability, found.card) == ("Tesla T4", False, (7, 5), "t4")


def test_the_first_of_several_cards_and_a_comma_in_its_name(nvidia_smi):
    nvidia_smi(f"echo 'Odd, Card, 24564, 5, 12.0'; echo '{RTX_3080}'")
    found = detect()
    assert (found.name, found.memory_bytes, found.compute_capability) == ("Odd, Card", 24564 * MIB, (12, 0))
    assert found.card is None


@pytest.mark.parametrize("hidden", ["", "-1", " -1", "-1,0"])
def test_hidden_cards_are_not_asked_for(nvidia_smi, monkeypatch, hidden: str):
    called = nvidia_smi(f"echo '{RTX_3080}'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert detect().kind == "cpu"
    assert not called.exists()


@pytest.mark.parametrize(("visible", "asked"), [("1", "--id=1"), ("GPU-5f1c,0", "--id=GPU-5f1c"), (" 2 ,3", "--id=2")])
def test_the_first_visible_card_is_asked_for(nvidia_smi, monkeypatch, visible: str, asked: str):
    called = nvidia_smi(f"echo '{RTX_3080}'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert detect().kind == "cuda"
    assert called.read_text(encoding="utf-8").split()[-1] == asked


@pytest.mark.parametrize(
    "body",
    [
        "echo 'driver/library mismatch' >&2; exit 18",
        "exit 0",
        "echo 'NVIDIA GB10, [N/A], [N/A], 12.1'",
        "echo nonsense",
    ],
)
def test_a_card_that_gives_no_figures_is_none_and_the_log_says_so(nvidia_smi, caplog, body: str):
    nvidia_smi(body)
    assert detect().kind == "cpu"
    assert "no CUDA card is used" in caplog.text


def test_a_hanging_nvidia_smi_is_given_up(nvidia_smi, monkeypatch, caplog):
    monkeypatch.setattr(hardware, "_NVIDIA_SMI_SECONDS", 0.2)
    nvidia_smi("exec /bin/sleep 30")
    assert detect().kind == "cpu"
    assert "timed out" in caplog.text


def test_no_nvidia_smi_means_the_cpu(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = detect()
    assert found.kind == "cpu" and found.compute_capability is None and found.name
    assert found.memory_bytes == pytest.approx(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), rel=0.01)
    assert caplog.text == ""


def test_bf16_of_cpus(monkeypatch):
    monkeypatch.delenv("UNSLOTH_CPU_BF16", raising=False)
    assert cpu_bf16(frozenset({"avx512f", "avx512_bf16"}), "x86_64")
    assert cpu_bf16(frozenset({"amx_bf16"}), "AMD64")
    assert not cpu_bf16(frozenset({"avx2", "bf16"}), "x86_64")
    assert cpu_bf16(frozenset({"asimd", "bf16"}), "aarch64")
    assert not cpu_bf16(frozenset({"asimd"}), "arm64")
    assert not cpu_bf16(frozenset(), "x86_64")


def test_bf16_of_cpus_can_be_overridden(monkeypatch):
    monkeypatch.setenv("UNSLOTH_CPU_BF16", "0")
    assert not cpu_bf16(frozenset({"amx_bf16"}), "x86_64")
    monkeypatch.setenv("UNSLOTH_CPU_BF16", " ON ")
    assert cpu_bf16(frozenset(), "x86_64")
    monkeypatch.setenv("UNSLOTH_CPU_BF16", "perhaps")
    assert cpu_bf16(frozenset({"amx_bf16"}), "x86_64")


def test_cpu_facts_are_those_of_the_first_processor(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: Some CPU: fast\nflags\t\t: fpu AMX_bf16\n\nprocessor\t: 1\nflags\t\t: none\n",
        encoding="utf-8",
    )
    facts = hardware._cpu_facts(cpuinfo)
    assert (facts["model name"], facts["flags"]) == ("Some CPU: fast", "fpu AMX_bf16")
    assert hardware._cpu_facts(tmp_path / "absent") == {}


def test_system_memory(tmp_path, nvidia_smi, monkeypatch):
    fields = {"MemTotal": 24576000, "MemFree": 1000, "MemAvailable": 1000, "Buffers": 0, "Cached": 0, "Shmem": 0}
    meminfo = "".join(f"{name}:{size:>16} kB\n" for name, size in (fields | {"Active": 0, "Inactive": 0}).items())
    (tmp_path / "meminfo").write_text(meminfo, encoding="utf-8")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert detect().memory_bytes == 24576000 * 1024


def test_an_assumed_card():
    usual = card(10)
    assert usual.name == "GeForce RTX 3080 (assumed)"
    assert (usual.kind, usual.memory_bytes, usual.bf16, usual.card) == ("cuda", 10 * GIB, True, "rtx3080")
    assert usual.compute_capability == (8, 6)
    assert card(7.5).name == "GeForce RTX 3070 with 7.5 GB (assumed)"
    assert assumed(CARDS["t4"]).bf16 is False
