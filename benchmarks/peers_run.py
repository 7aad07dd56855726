"""The comparison: examples and jobs written, a process for each contender, the report after every one of them. No torch."""

import argparse
import dataclasses
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import peers_data, peers_report
from benchmarks.peers_job import Job
from slimtune.core import run_record, versions
from slimtune.core.files import write_json
from slimtune.data.chat_template import IGNORE_INDEX, ChatTokenizer
from slimtune.models import builtin, hardware
from slimtune.models import files as base_model
from slimtune.models import shapes as models
from slimtune.plan import calibration
from slimtune.plan.memory import vram

ROOT = Path(__file__).resolve().parent.parent
MODEL = "Qwen3-8B"
GRACE_SECONDS = 60
"""A process that is out of time ends by itself; after so many seconds more it is ended."""
_TOY_SHORTER = 6
_TOY_EXAMPLES = 16


def compare(options: argparse.Namespace, machine: hardware.Hardware) -> int:
    """Run all contenders; returns the exit code. options: those of `benchmarks/peers.py`."""
    started = time.monotonic()
    console = Console(width=120, highlight=False)
    with tempfile.TemporaryDirectory(prefix="peers-") as temporary:
        work = Path(options.work or temporary).resolve()
        work.mkdir(parents=True, exist_ok=True)
        model = _model(options, work, console)
        report, jobs = _plan(options, machine, model, work)
        output = Path(options.output) if options.output else _output(options, machine)
        output.parent.mkdir(parents=True, exist_ok=True)
        for index, job in enumerate(jobs):
            left = 60 * options.minutes - (time.monotonic() - started)
            what = f"{job.contender}: {', '.join([*job.data, *(['longest context'] if job.context else [])])}"
            console.print(f"({index + 1}/{len(jobs)}) {what}; {max(0, left):.0f} s left", markup=False)
            # Up to twice its share of the time that is left; most need less.
            seconds = left * min(1.0, 2 / (len(jobs) - index))
            _merge(report, job, _run(dataclasses.replace(job, seconds=seconds), console))
            _conclude(report)
            write_json(output, report)
    report["complete"] = True
    write_json(output, report)
    _tell(report, output, console)
    return 1 if any(result["errors"] for result in report["contenders"].values()) else 0


def _output(options: argparse.Namespace, machine: hardware.Hardware) -> Path:
    """Toy results say nothing of speed, so they stay out of the repository."""
    name = "toy" if options.toy else re.sub(r"[^a-z0-9]+", "-", machine.name.lower()).strip("-")
    folder = ROOT / "outputs" / "benchmarks" if options.toy else ROOT / "benchmarks" / "results"
    return folder / f"peers-{name}-{run_record.now()[:10]}.json"


def _model(options: argparse.Namespace, work: Path, console: Console) -> Path:
    """The folder of the base model for all contenders."""
    if options.model:
        return Path(options.model).resolve()
    if options.toy:
        return builtin.resolve("builtin:tiny-qwen3")
    console.print(f"Building {MODEL} in NF4 with random weights")
    command = [sys.executable, "-m", "benchmarks.random_model", str(work / "models"), MODEL]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.splitlines()[-1])


def _plan(
    options: argparse.Namespace, machine: hardware.Hardware, model: Path, work: Path
) -> tuple[dict[str, Any], list[Job]]:
    """The report as far as it is known before anything has run, and the processes to run, in order."""
    rows = {name: _examples(name, options, model, work) for name in options.data}
    limit = None if options.toy else vram.budget_bytes(options.vram_gb) - calibration.current().context_bytes
    shape = models.from_config(base_model.read_config(model), model.name)
    base = Job(
        contender="",
        work="",
        model=str(model),
        rows={name: str(work / f"{name}.jsonl") for name in rows},
        data=(),
        context=False,
        cuda=not options.toy,
        bf16=machine.bf16,
        vram_gb=options.vram_gb,
        limit_bytes=limit,
        used_before_bytes=machine.used_bytes,
        seconds=0.0,
        batch=8,
        epochs=options.epochs,
        skip_steps=1 if options.toy else 4,
        rank=16,
        alpha=32,
        learning_rate=2e-4,
        max_length=2048,
        context_most=shape.max_position_embeddings,
        toy_lengths=(64, 256),
        trl_micro_batch=options.trl_micro_batch,
        seed=42,
    )
    settings = dataclasses.asdict(base)
    for name in ("contender", "work", "model", "rows", "data", "context", "seconds", "started"):
        del settings[name]
    report = {
        "date": run_record.now(),
        "git": run_record.git_state(),
        "complete": False,
        "toy": options.toy,
        "machine": {**dataclasses.asdict(machine), "system": platform.platform(), "python": platform.python_version()},
        "versions": versions.installed(),
        "model": {"name": model.name, "parameters": shape.total_parameters},
        "settings": {**settings, "budget_bytes": vram.budget_bytes(options.vram_gb)},
        "lengths": peers_data.source(),
        "data": {name: _facts(model, examples) for name, examples in rows.items()},
        "contenders": {name: {"data": {}, "context": None, "errors": []} for name in options.contenders},
    }
    return report, _processes(base, options, work)


def _processes(base: Job, options: argparse.Namespace, work: Path) -> list[Job]:
    """On a card one process for each data set and one for the context, so that nothing is left over from before."""
    parts: list[tuple[tuple[str, ...], bool]] = [((name,), False) for name in options.data]
    if options.toy:
        parts = [(tuple(options.data), not options.no_context)]
    elif not options.no_context:
        parts.append(((), True))
    return [
        dataclasses.replace(
            base,
            contender=contender,
            data=data,
            context=context,
            work=str(work / "-".join([contender, *data, *(["context"] if context else [])])),
        )
        for data, context in parts
        for contender in options.contenders
    ]


def _examples(name: str, options: argparse.Namespace, model: Path, work: Path) -> list[peers_data.Row]:
    """Writes the examples of a data set, the same for all contenders; shorter and fewer of them for a toy run."""
    lengths = peers_data.read_lengths(name)[: options.examples or (_TOY_EXAMPLES if options.toy else None)]
    if options.toy:
        lengths = [(prompt // _TOY_SHORTER, max(2, response // _TOY_SHORTER)) for prompt, response in lengths]
    examples = peers_data.rows(model, lengths, seed=42)
    peers_data.write(work / f"{name}.jsonl", examples)
    return examples


def _facts(model: Path, examples: list[peers_data.Row]) -> dict[str, Any]:
    """What an epoch of these examples has to be for every contender, and their longest."""
    tokenizer = ChatTokenizer(model)
    documents = []
    for row in examples:
        prompt, completion = tokenizer.encode(row.prompt), tokenizer.encode(row.completion)
        documents.append((prompt + completion, [IGNORE_INDEX] * len(prompt) + completion))
    return {
        "epoch": {
            "examples": len(examples),
            "tokens": sum(row.tokens for row in examples),
            "supervised_tokens": sum(row.supervised for row in examples),
            "digest": peers_data.digest(documents),
        },
        "longest": max(row.tokens for row in examples),
    }


def _run(job: Job, console: Console) -> dict[str, Any]:
    """What the contender's process wrote; with "error" where it failed, was ended, or had no time left."""
    if job.seconds <= 0:
        return {"data": {}, "context": None, "error": "not run: time was up"}
    file = job.write()
    job.result_file.unlink(missing_ok=True)
    log = job.folder / "log.txt"
    with log.open("w", encoding="utf-8") as output:
        try:
            code = subprocess.run(
                [sys.executable, "-m", "benchmarks.peers_contender", str(file)],
                cwd=ROOT,
                env=_environment(job),
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=job.seconds + GRACE_SECONDS,
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
    result: dict[str, Any] = {"data": {}, "context": None, "error": None}
    if job.result_file.is_file():
        result.update(json.loads(job.result_file.read_text(encoding="utf-8")))
    if code != 0 and not result["error"]:
        how = "was ended: time was up" if code is None else f"ended with code {code}"
        last = "".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-20:])
        result["error"] = f"{job.contender} {how}; the end of its log:\n{last}"
    if result["error"]:
        console.print(f"  failed: {result['error'].strip().splitlines()[-1]}", markup=False)
    return result


def _environment(job: Job) -> dict[str, str]:
    """The process's environment: no network, and Unsloth's loss as a small card would have it."""
    values = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(job.folder / "datasets"),
        "TOKENIZERS_PARALLELISM": "false",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_COMPILE_LOCATION": str(job.folder / "unsloth_compiled"),
    }
    if job.cuda:
        # One card: TRL refuses to train on several from one process.
        values["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        # Above 24.5 GiB Unsloth's loss takes a path that needs more memory; smaller cards take this one anyway.
        values["UNSLOTH_FUSED_LINEAR_FLASH_MIN_ROWS"] = "0"
    return values


def _merge(report: dict[str, Any], job: Job, result: dict[str, Any]) -> None:
    into = report["contenders"][job.contender]
    into["data"].update(result["data"])
    into["context"] = result["context"] or into["context"]
    into["process"] = result.get("process", into.get("process"))
    if result["error"]:
        into["errors"].append(result["error"])


def _conclude(report: dict[str, Any]) -> None:
    report["differences"] = peers_report.differences(report)
    report["goals"] = peers_report.goals(report)


def _tell(report: dict[str, Any], output: Path, console: Console) -> None:
    for difference in report["differences"]:
        console.print(f"not the same examples: {difference}", markup=False)
    for goal in report["goals"]:
        console.print(f"{goal['goal']}: {goal['state']} ({goal['why']})", markup=False)
    console.print(f"results: {output}", markup=False)
    console.print(peers_report.table(report))
