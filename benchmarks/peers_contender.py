"""The process of one contender: reads its job, does it, writes what it measured after every part.

    python -m benchmarks.peers_contender WORK/job.json

`benchmarks/peers.py` starts it.
"""

import importlib
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks import peers_job
from benchmarks.peers_job import Job
from slimtune.core.files import write_json

CONTENDERS = ("trl", "unsloth", "slimtune")


def main(arguments: list[str]) -> int:
    job = peers_job.read(Path(arguments[0]))
    result: dict[str, Any] = {"data": {}, "context": None, "error": None}
    try:
        _work(job, result)
    except Exception:  # noqa: BLE001 a contender that fails is a result, with all that can be said of it
        result["error"] = traceback.format_exc()
    result["seconds"] = round(time.monotonic() - job.started, 1)
    write_json(job.result_file, result)
    return 1 if result["error"] else 0


def _work(job: Job, result: dict[str, Any]) -> None:
    # Its own libraries first: Unsloth patches the others while it is imported.
    contender = importlib.import_module(f"benchmarks.peers_{job.contender}")

    import torch

    from benchmarks import peers_measure
    from slimtune.core import memory

    if job.cuda != torch.cuda.is_available():
        raise RuntimeError(f"the job is for {'a card' if job.cuda else 'a CPU'}, but PyTorch sees something else")
    if job.limit_bytes is not None:
        memory.cap(job.limit_bytes)
    if not job.cuda:
        torch.set_num_threads(1)  # toy models wait longer for a second thread than they gain
    for name in job.data:
        result["data"][name] = contender.speed(job, name)
        peers_measure.free_memory()
        write_json(job.result_file, result)
    if job.context:
        result["context"] = contender.longest_context(job)
    result["process"] = {
        "unsloth_imported": "unsloth" in sys.modules,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "attention": peers_measure.attention(),
        "environment": {name: value for name, value in sorted(os.environ.items()) if _of_interest(name, value)},
    }


def _of_interest(name: str, value: str) -> bool:
    """Settings of Unsloth and PyTorch, but no paths of this machine."""
    return name.startswith(("UNSLOTH_", "PYTORCH_")) and not Path(value).is_absolute()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
