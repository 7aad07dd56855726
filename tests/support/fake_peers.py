"""What the tests of the comparison share: its jobs, without a process, and a card that is not here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from support.chat_templates import chat_template

from benchmarks import peers, peers_run
from benchmarks.peers_job import Job
from slimtune.models import builtin, hardware

GIB = 2**30
TINY = builtin.resolve("builtin:tiny-qwen3")
H200 = hardware.Hardware("cuda", "NVIDIA H200", 140 * GIB, True, 16, (9, 0), "h200", GIB // 2)


def planned(
    work: Path, arguments: list[str], machine: hardware.Hardware, model: Path
) -> tuple[dict[str, Any], list[Job]]:
    """The report before anything has run, and its jobs."""
    options = peers._options([*arguments, "--model", str(model)])
    return peers_run._plan(options, machine, model, work)


def job(work: Path) -> Job:
    """A toy job for a contender that there is not."""
    _, jobs = planned(work, ["--toy", "--data", "direct"], hardware.detect(), TINY)
    return dataclasses.replace(jobs[0], contender="nobody", seconds=60.0)


def qwen3_8b(parent: Path) -> Path:
    """A model folder without a weight: enough to plan with."""
    from tokenizers import Tokenizer

    from benchmarks import random_model
    from scripts.builtin import tokenizer
    from slimtune.models import shapes as models

    folder = parent / "Qwen3-8B-bnb-4bit"
    tokenizer.save(Tokenizer.from_file(str(TINY / "tokenizer.json")), folder, chat_template=chat_template("qwen3"))
    (folder / "config.json").write_text(json.dumps(random_model.config(models.known()["Qwen3-8B"])), encoding="utf-8")
    return folder
