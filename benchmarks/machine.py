"""What the machine is, with torch loaded, and how its memory is given back between measurements."""

import os
import platform
import shutil
import subprocess
import sys
from typing import Any

from slimtune.models import backend  # before torch: Unsloth patches what follows

import torch  # isort: skip

from slimtune.core import versions
from slimtune.models import hardware
from slimtune.train import trainer as trainers

_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG")


def facts() -> dict[str, Any]:
    """Names and versions that a measurement is worth nothing without."""
    found = hardware.detect()
    known: dict[str, Any] = {
        "name": found.name,
        "card": found.card,
        "memory_bytes": found.memory_bytes,
        "cores": found.cores,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "backend": backend.device_type(),
        "versions": versions.installed(),
    }
    if torch.cuda.is_available():
        known["compute_capability"] = list(torch.cuda.get_device_capability())
        known["driver"] = _driver()
        known["allocator_fraction"] = torch.cuda.get_per_process_memory_fraction()
        known["allocator_settings"] = {name: os.environ[name] for name in _ALLOCATOR if name in os.environ}
    return known


def _driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return answer.stdout.partition("\n")[0].strip() or None


def allocated() -> int | None:
    """Bytes that tensors hold on the card now; None without one."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else None


def release() -> None:
    """Give back what a trainer held. A step that failed leaves Unsloth's offload buffers in the middle of a pass."""
    checkpointing = sys.modules.get("unsloth_zoo.gradient_checkpointing")
    if checkpointing is not None and torch.cuda.is_available():
        checkpointing.reset_unsloth_gradient_checkpointing_buffers()
    trainers.release_memory()
