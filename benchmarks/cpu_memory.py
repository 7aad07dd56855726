"""How well the peak resident set of a CPU run is predicted: trains small models, each in a process of its own.

    python benchmarks/cpu_memory.py                        # measure, and compare with the predictions
    python benchmarks/cpu_memory.py --write-calibration    # and write the part "computer" of calibration.json

Two constants are fitted, each to the cases that say so: what Python and its libraries take, and how much of the heap freed
tensors leave unusable. The other cases are only predicted; the errors of all are printed and written. Needs no network;
takes about ten minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # instead of this folder, so that both `benchmarks` and `slimtune` are found
    sys.path[0] = str(ROOT)

from slimtune import base_model, memory, versions
from slimtune.plan import calibration, hardware, models, ram
from slimtune.plan.models import ModelShape

MIB = 2**20
_MOST_SECONDS = 900


@dataclass(frozen=True)
class Case:
    """A random Qwen3 (query heads of 64 features, half as many key heads), and how it is trained; or the quickstart.

    fits: the constant that is fitted to this case. recomputed: with gradient checkpointing. rows, length: of a
    micro-batch. prequantised: the checkpoint holds NF4.
    """

    name: str
    fits: Literal["runtime", "gaps"] | None = None
    hidden: int = 512
    inner: int = 1536
    layers: int = 8
    vocabulary: int = 2048
    rows: int = 8
    length: int = 128
    recomputed: bool = False
    prequantised: bool = False

    @property
    def shape(self) -> ModelShape:
        return ModelShape(
            name=self.name,
            family="qwen3",
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            layers=self.layers,
            heads=self.hidden // 64,
            kv_heads=max(1, self.hidden // 128),
            head_dim=64,
            vocab_size=self.vocabulary,
            tied=True,
            qk_norm=True,
            qkv_bias=False,
            max_position_embeddings=2048,
        )


QUICKSTART = Case("quickstart")
CASES = (
    Case("smallest", fits="runtime", hidden=128, inner=128, layers=1, rows=2),
    # Tensors below 1 MiB, and many of them.
    Case("narrow", fits="gaps", hidden=256, inner=512, layers=16, rows=4),
    Case("narrow, recomputed", fits="gaps", hidden=256, inner=512, layers=16, rows=4, recomputed=True),
    QUICKSTART,
    Case("middle"),
    Case("middle, recomputed", recomputed=True),
    Case("more tokens", length=256),
    Case("deeper, recomputed", layers=16, recomputed=True),
    Case("wider, recomputed", hidden=1024, inner=3072, layers=4, length=256, recomputed=True),
    Case("larger vocabulary", vocabulary=32768),
    Case("prequantised", prequantised=True),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    chosen = [case for case in CASES if not options.only or case.name in options.only]
    if hardware.detect().kind != "cpu":
        sys.stderr.write("A card would be used here; set CUDA_VISIBLE_DEVICES= to measure the CPU.\n")
        return 2
    if options.write_calibration and not {"runtime", "gaps"} <= {case.fits for case in chosen}:
        sys.stderr.write("--write-calibration needs the cases that the constants are fitted to.\n")
        return 2
    measured = {}
    with tempfile.TemporaryDirectory(prefix="slimtune-memory-") as temporary:
        for case in chosen:
            measured[case.name] = run(case, Path(temporary) / case.name.replace(", ", "-").replace(" ", "-"))
            peak = measured[case.name]["measured"]["peak resident set"]
            print(f"{case.name}: {memory.shown(peak)} at its peak", flush=True)
    constants = calibration.current()
    runtime, gaps = constants.runtime_bytes, constants.heap_gaps
    if options.write_calibration:
        runtime, gaps = fit([(case, measured[case.name]) for case in chosen])
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions.installed(),
        "runtime_bytes": runtime,
        "heap_gaps": gaps,
        "cases": [entry(case, measured[case.name], runtime, gaps) for case in chosen],
    }
    print(table(result))
    if options.write_calibration:
        calibration.update("computer", {"source": source(result), "runtime_bytes": runtime, "heap_gaps": gaps})
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cpu_memory.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write-calibration", action="store_true", help="write what was measured for the plans to use")
    parser.add_argument("--output", type=Path, help="the measurements, as JSON")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", choices=[case.name for case in CASES])
    return parser.parse_args(arguments)


def run(case: Case, work: Path) -> dict[str, Any]:
    """Measure a case in a process of its own; see `cpu_memory_run.measure` for what comes back.

    Raises subprocess.CalledProcessError, after the process has told why, where it fails.
    """
    work.mkdir(parents=True)
    (work / "case.json").write_text(json.dumps(dataclasses.asdict(case)), encoding="utf-8")
    for part in ("build", "measure"):
        # Apart, so that what building a model took is not in the measured process.
        command = [sys.executable, "-m", "benchmarks.cpu_memory_run", part, str(work)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=_MOST_SECONDS)
    return json.loads((work / "measured.json").read_text(encoding="utf-8"))


def fit(cases: Sequence[tuple[Case, dict[str, Any]]]) -> tuple[int, float]:
    """Runtime bytes and heap gaps that the cases which fit them measured: what their other terms leave unexplained.

    Several cases of a kind: their mean. Both depend a little on each other, so they are found in turns.
    """
    runtime, gaps = 0, 1.0
    for _ in range(5):
        runtime = round(statistics.mean(_left(found, 0, gaps) for case, found in cases if case.fits == "runtime"))
        gaps = statistics.mean(
            _left(found, runtime, 0) / predict(found, 0, 1.0).items["heap gaps"]
            for case, found in cases
            if case.fits == "gaps"
        )
    return runtime, round(gaps, 3)


def _left(found: dict[str, Any], runtime: int, gaps: float) -> int:
    """Measured bytes that the prediction with these constants does not explain."""
    return found["measured"]["peak resident set"] - predict(found, runtime, gaps).total_bytes


def predict(found: dict[str, Any], runtime: int, gaps: float) -> ram.Breakdown:
    shape = models.from_config(found["config"], "measured")
    return ram.predict(shape, **found["job"], runtime_bytes=runtime, heap_gaps=gaps)


def entry(case: Case, found: dict[str, Any], runtime: int, gaps: float) -> dict[str, Any]:
    """What the JSON says of a case."""
    breakdown = predict(found, runtime, gaps)
    compared = memory.compare(ram.comparable(breakdown), found["measured"])
    return {
        "case": case.name,
        "fits": case.fits,
        "model": {
            key: value for key, value in dataclasses.asdict(models.from_config(found["config"], case.name)).items()
        },
        "job": found["job"],
        "predicted": {one.name: one.predicted for one in compared},
        "measured": {one.name: one.measured for one in compared},
        "errors": {one.name: round(one.error, 4) for one in compared},
        "predicted_phases": ram.phases(breakdown),
        "phases": found["phases"],
        "items": breakdown.items,
    }


def table(result: dict[str, Any]) -> str:
    """The errors, a line a case."""
    lines = [
        f"\nPython and libraries {result['runtime_bytes'] / MIB:.0f} MiB, heap gaps {result['heap_gaps']:.2f}\n",
        f"{'peak resident set':<26}{'predicted':>11}{'measured':>11}{'error':>8}  weights, LoRA, optimizer",
    ]
    for case in result["cases"]:
        name, errors = "peak resident set", case["errors"]
        sizes = [f"{case[kind][name] / MIB:>7.0f} MiB" for kind in ("predicted", "measured")]
        exact = ", ".join(f"{100 * errors[other]:+.1f} %" for other in errors if other != name)
        fitted = f"   ({case['fits']} fitted)" if case["fits"] else ""
        lines.append(f"{case['case']:<26}{''.join(sizes)}{100 * errors[name]:>+6.1f} %  {exact}{fitted}")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    found = hardware.detect()
    return {
        "name": found.name,
        "cores": found.cores,
        "memory_bytes": found.memory_bytes,
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
    }


def source(result: dict[str, Any]) -> str:
    """Where the constants come from, in a sentence."""
    of, libraries = result["machine"], result["versions"]
    named = ", ".join(f"{name} {libraries[name]}" for name in ("torch", "transformers", "unsloth"))
    return (
        f"measured by benchmarks/cpu_memory.py on {result['date']}: {of['name']}, {of['cores']} cores, {of['libc']}, "
        f"Python {of['python']}, {named}"
    )


if __name__ == "__main__":
    sys.exit(main())
