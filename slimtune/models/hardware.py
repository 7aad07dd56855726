"""Detect without torch what the machine trains on: a CUDA card (through nvidia-smi), else the CPU."""

import logging
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from slimtune.core.units import GIB, MIB
from slimtune.models import cards

log = logging.getLogger(__name__)

AMPERE = (8, 0)  # bf16 from here on
_NVIDIA_SMI_SECONDS = 10
_SMALL_MODEL = 50_000_000  # parameters; below, a second thread costs more than it gains


@dataclass(frozen=True)
class Hardware:
    """Where a run will train.

    memory_bytes: the card's whole memory, or the computer's on a CPU. bf16: in hardware. cores: CPU cores that this
    process may use. card: its key in `cards.CARDS`, None where it is not in that table. used_bytes: held by other
    programs when it was looked at; 0 for an assumed card.
    """

    kind: Literal["cuda", "cpu"]
    name: str
    memory_bytes: int
    bf16: bool
    cores: int
    compute_capability: tuple[int, int] | None
    card: str | None = None
    used_bytes: int = 0


def detect() -> Hardware:
    """The first CUDA card that this process may see, if nvidia-smi tells its figures, else the CPU; the log says why."""
    return _cuda_card() or _cpu()


def card(vram_gb: float) -> Hardware:
    """A typical card sold with that much memory, to plan without having it."""
    return assumed(cards.typical(vram_gb), vram_gb)


def assumed(like: cards.Card, vram_gb: float | None = None) -> Hardware:
    """A card of the table, to plan without having it. vram_gb: replaces the card's own memory."""
    size = vram_gb or like.vram_gb
    other = "" if size == like.vram_gb else f" with {size:g} GB"
    capability = like.compute_capability
    name = f"{like.name}{other} (assumed)"
    return Hardware("cuda", name, round(size * GIB), capability >= AMPERE, _cores(), capability, like.key)


def _cuda_card() -> Hardware | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    first = None if visible is None else visible.split(",")[0].strip()
    program = shutil.which("nvidia-smi")
    if first in ("", "-1") or program is None:
        return None
    command = [program, "--query-gpu=name,memory.total,memory.used,compute_cap", "--format=csv,noheader,nounits"]
    if first is not None:
        command.append(f"--id={first}")  # an index or a UUID, as CUDA_VISIBLE_DEVICES has it
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", timeout=_NVIDIA_SMI_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("nvidia-smi is there but gives no answer, so no CUDA card is used: %s", error)
        return None
    # One line a card; a card's name may hold a comma, the three figures after it do not.
    name, _, figures = answer.stdout.partition("\n")[0].strip().partition(", ")
    try:
        *more, mebibytes, used, capability = figures.split(", ")
        major, minor = (int(part) for part in capability.split("."))
        memory, used_bytes = int(mebibytes) * MIB, int(used) * MIB
    except ValueError:
        log.warning("nvidia-smi reports no memory size, so no CUDA card is used: %r", answer.stdout)
        return None
    full_name, found = ", ".join([name, *more]), (major, minor)
    known = cards.recognise(full_name, memory)
    key = known.key if known else None
    return Hardware("cuda", full_name, memory, found >= AMPERE, _cores(), found, key, used_bytes)


def _cpu() -> Hardware:
    facts = _cpu_facts(Path("/proc/cpuinfo"))
    name = facts.get("model name") or platform.processor() or platform.machine() or "CPU"
    flags = frozenset(facts.get("flags", facts.get("features", "")).lower().split())
    memory = psutil.virtual_memory().total
    return Hardware("cpu", name, memory, cpu_bf16(flags, platform.machine()), _cores(), None)


def cpu_bf16(flags: frozenset[str], machine: str) -> bool:
    """Whether the CPU multiplies bf16 in hardware, decided as Unsloth does (`unsloth_zoo/cpu/runtime.py`).

    flags: lower-case features of /proc/cpuinfo. machine: as `platform.machine()` says.
    UNSLOTH_CPU_BF16 = 0 or 1 overrides. Without any flags (no /proc) the answer is no; Unsloth would time it.
    """
    override = os.environ.get("UNSLOTH_CPU_BF16", "").strip().lower()
    if override in ("1", "true", "yes", "on"):
        return True
    if override in ("0", "false", "no", "off"):
        return False
    if machine.lower() in ("aarch64", "arm64"):
        return "bf16" in flags
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def _cpu_facts(path: Path) -> dict[str, str]:
    """The first processor's facts in /proc/cpuinfo, keys in lower case; empty where there is no such file."""
    if not path.exists():
        return {}
    first_block = path.read_text(encoding="utf-8", errors="replace").strip().split("\n\n")[0]
    pairs = (line.partition(":") for line in first_block.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_threads(parameters: int, cores: int) -> int:
    """How many threads speed up a model of that many parameters."""
    return 1 if parameters < _SMALL_MODEL else cores


def precision(hardware: Hardware) -> tuple[str, str]:
    """The number format ("bf16", "fp16" or "fp32"), and why."""
    if hardware.bf16:
        return "bf16", f"{hardware.name} computes in bfloat16"
    if hardware.kind == "cuda":
        return "fp16", f"{hardware.name} has no bfloat16 (before Ampere)"
    return "fp32", "this processor has no bfloat16 instructions"
