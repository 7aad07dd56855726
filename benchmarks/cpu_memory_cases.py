"""The cases of `cpu_memory`, and what their measurements say: the two fitted constants and every error. No torch."""

import dataclasses
import datetime
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from slimtune.core import memory, versions
from slimtune.models import hardware
from slimtune.models import shapes as models
from slimtune.models.shapes import ModelShape
from slimtune.plan.memory import ram

MIB = 2**20


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


def result(measured: Mapping[str, dict[str, Any]], chosen: Sequence[Case], runtime: int, gaps: float) -> dict[str, Any]:
    """What the JSON holds: machine, versions, the constants, and each case. measured: by the names of the cases."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions.installed(),
        "runtime_bytes": runtime,
        "heap_gaps": gaps,
        "cases": [entry(case, measured[case.name], runtime, gaps) for case in chosen],
    }


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
        "model": dataclasses.asdict(models.from_config(found["config"], case.name)),
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
