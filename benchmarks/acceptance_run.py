"""Runs the acceptance's cases one after the other, each in a process of its own, against a deadline. No torch.

This process never touches the card, so that what a case measures there is its own. Everything goes into one report,
written to disk after every step of it.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import acceptance_cases, acceptance_tables, calibration_fit
from benchmarks.acceptance_case import Order
from benchmarks.acceptance_cases import Case
from slimtune.core import run_record, versions
from slimtune.core.files import write_json
from slimtune.models import cards, hardware
from slimtune.models import files as base_model
from slimtune.plan import calibration
from slimtune.plan.memory import vram

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BUILD_SECONDS = 45.0  # all models, on a fast card and disk
_TAIL_LINES = 40


@dataclass(frozen=True)
class Setting:
    """Where and for what the cases run. stand_in: a key of `cards.CARDS` that the machine's larger card stands for.

    spent: seconds expected and taken, of each process so far.
    """

    on_card: bool
    vram_gb: float
    stand_in: str | None
    models: Path
    work: Path
    deadline: float
    spent: list[tuple[float, float]] = field(default_factory=list)

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def environment(self) -> dict[str, str]:
        """What the processes are given beside this one's environment."""
        given = {"HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
        if not self.on_card:
            given["CUDA_VISIBLE_DEVICES"] = ""
        if self.stand_in:
            # On cards above 24.5 GiB Unsloth takes another loss, with other memory; this is that of smaller ones.
            given["UNSLOTH_FUSED_LINEAR_FLASH_MIN_ROWS"] = "0"
        return given


def run(
    cases: Sequence[Case],
    *,
    toy: bool,
    minutes: float,
    vram_gb: float,
    models: Path,
    work: Path,
    output: Path | None = None,
    write_calibration: bool = False,
) -> int:
    """Run the cases and print the tables; 0 where nothing failed, 1 otherwise. Cases left out are named, not failures.

    models: where the made models are, or will be. work: an empty folder. output: the JSON.
    Raises SlimtuneError where the disk cannot hold the models.
    """
    found = hardware.detect()
    larger = not toy and found.memory_bytes > vram.LOSS_SMALL_CARD_BYTES
    setting = Setting(
        on_card=not toy,
        vram_gb=vram_gb,
        stand_in=cards.typical(vram_gb).key if larger else None,
        models=models,
        work=work,
        deadline=time.monotonic() + 60 * minutes,
    )
    output = output or _default_output(found, toy)
    report: dict[str, Any] = {
        "status": "running",
        "started": run_record.now(),
        "command": sys.argv,
        "git": run_record.git_state(),
        "versions": versions.installed(),
        "toy": toy,
        "minutes": minutes,
        "vram_gb": vram_gb,
        "hardware": {"name": found.name, "card": found.card, "memory_bytes": found.memory_bytes},
        "stand_in": setting.stand_in,
        "environment": setting.environment,
        "models": [],
        "cases": [],
        "left_out": [],
        "knobs": [],
    }

    def save() -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, report)

    save()
    made = build(sorted({case.model for case in cases}), setting, report)
    for case in cases:
        save()
        if made:
            run_case(case, setting, report)
        else:
            report["left_out"].append({"name": case.name, "reason": "its model could not be made"})
    report["knobs"] = acceptance_tables.knobs(report["cases"])
    failed = [part for part in (*report["models"], *report["cases"]) if part["status"] != "complete"]
    report |= {"status": "failed" if failed else "complete", "finished": run_record.now()}
    if write_calibration:
        report["calibration"] = calibrate(report["cases"], found, report["started"])
    save()
    acceptance_tables.show(report, Console(width=None if sys.stdout.isatty() else 120, highlight=False))
    _say(f"JSON: {output}")
    return 1 if failed else 0


def build(names: Sequence[str], setting: Setting, report: dict[str, Any]) -> bool:
    """Make the models that are not there yet, in one process, so that nothing of it stays on the card."""
    missing = [name for name in names if not (_folder(name, setting) / "config.json").is_file()]
    if not missing:
        return True
    base_model.require_disk_space(setting.models, sum(map(_bytes, missing)), "making the models")
    _say(f"making {', '.join(missing)} …")
    started = time.monotonic()
    ended, tail = _process(["benchmarks.random_model", str(setting.models), *missing], setting)
    seconds = time.monotonic() - started
    setting.spent.append((BUILD_SECONDS, seconds))
    entry = {"names": missing, "seconds": round(seconds, 1), "status": "complete"}
    if ended != "exit code 0":
        entry |= {"status": "failed", "error": ended, "output_tail": tail}
    report["models"].append(entry)
    return entry["status"] == "complete"


def run_case(case: Case, setting: Setting, report: dict[str, Any]) -> None:
    """Run a case, or leave it out where it would not finish in time."""
    expected = expected_seconds(case, setting.spent)
    if expected > setting.seconds_left:
        reason = f"about {expected:.0f} s expected, {max(0.0, setting.seconds_left):.0f} s left"
        report["left_out"].append({"name": case.name, "reason": reason})
        return
    _say(f"{case.name} …")
    work = setting.work / re.sub(r"[^a-z0-9.]+", "-", case.name)
    work.mkdir(parents=True)
    order_file, result_file = work / "order.json", work / "result.json"
    order = Order(
        case, str(_folder(case.model, setting)), str(work), setting.vram_gb, setting.on_card, setting.stand_in
    )
    write_json(order_file, order.as_json())
    started = time.monotonic()
    ended, tail = _process(["benchmarks.acceptance_case", str(order_file), str(result_file)], setting)
    seconds = time.monotonic() - started
    setting.spent.append((case.expected_seconds, seconds))

    result: dict[str, Any] = {"case": case.as_json(), "status": "running", "measurements": []}
    if result_file.is_file():
        result = json.loads(result_file.read_text(encoding="utf-8"))
    if result["status"] == "running":  # it was stopped, by us or by the machine
        result |= {"status": "failed", "error": ended}
    if result["status"] == "failed":
        result["output_tail"] = tail
    report["cases"].append(result)
    _say(f"{case.name}: {result['status']} after {seconds:.0f} s")


def expected_seconds(case: Case, spent: Sequence[tuple[float, float]]) -> float:
    """How long a case will take on this machine, given what earlier processes were expected to take, and took."""
    if not spent:
        return case.expected_seconds
    expected, took = (sum(column) for column in zip(*spent, strict=True))
    return case.expected_seconds * took / expected


def _process(module_and_arguments: Sequence[str], setting: Setting) -> tuple[str, list[str]]:
    """Run a module in a process of its own until it ends or the time is up: how it ended, and its last lines."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", *module_and_arguments],
            cwd=ROOT,
            env={**os.environ, **setting.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=max(1.0, setting.seconds_left),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return "stopped at the deadline", _tail(error.stdout)
    return f"exit code {done.returncode}", _tail(done.stdout)


def _tail(output: bytes | None) -> list[str]:
    return (output or b"").decode("utf-8", errors="replace").splitlines()[-_TAIL_LINES:]


def calibrate(cases: Sequence[dict[str, Any]], found: hardware.Hardware, started: str) -> dict[str, dict[str, Any]]:
    """Write what was measured into the file that plans read; returns what was written, by part."""
    libraries = ", ".join(f"{name} {versions.installed()[name]}" for name in ("torch", "unsloth", "bitsandbytes"))
    parts = calibration_fit.fit(
        cases,
        card=cards.CARDS[found.card] if found.card else None,
        efficiency=calibration.current().efficiency,
        source=f"measured on {found.name} by benchmarks/gpu_acceptance.py, {started[:10]}; {libraries}",
    )
    for part, values in parts.items():
        calibration.update(part, values)
        _say(f"calibration of {part}: {json.dumps(values)}")
    return parts


def _bytes(model: str) -> int:
    """What a model takes on the disk."""
    shape = acceptance_cases.shape_of(model)
    return vram.linear_weights(shape, "nf4") + vram.embedding_weights(shape, offloaded=False)


def _folder(model: str, setting: Setting) -> Path:
    return setting.models / f"{model}-bnb-4bit"


def _default_output(found: hardware.Hardware, toy: bool) -> Path:
    when = re.sub(r"[-:]", "", run_record.now())
    if toy:
        return Path(tempfile.gettempdir()) / f"slimtune-acceptance-toy-{when}.json"
    return RESULTS / f"gpu-{re.sub(r'[^a-z0-9]+', '-', found.name.lower()).strip('-')}-{when}.json"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
