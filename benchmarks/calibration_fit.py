"""From measurements to the constants of `slimtune/plan/calibration.json`. Pure functions; no torch.

A measurement is an entry of a case's "measurements" as `measured_training.measure` makes it.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.acceptance_cases import shape_of
from slimtune.models.cards import Card
from slimtune.plan import speed
from slimtune.plan.memory import vram

Measurement = Mapping[str, Any]

_TRAINING = ("first_step", "train")
_NEAR_THE_LIMIT = 0.8


def fit(
    cases: Sequence[Mapping[str, Any]], *, card: Card | None, efficiency: Mapping[str, float], source: str
) -> dict[str, dict[str, Any]]:
    """Values for `calibration.update`, by part; a part that nothing was measured for is left out.

    cases: results of cases on a card. card: the machine's; None for one whose peak nobody knows. efficiency: what the
    calibration has for other cards, which stays. source: where and when, in words.
    """
    complete = [(case, entry) for case in cases for entry in case["measurements"] if entry["status"] == "complete"]
    if not complete:
        return {}
    contexts = [phase["context"] for _, entry in complete for phase in entry["measured"].values() if "context" in phase]
    parts: dict[str, dict[str, Any]] = {
        "card": {
            "source": source,
            "context_bytes": max(contexts),
            "fragmentation": round(fragmentation([entry for _, entry in complete]), 4),
            "activation_margin": activation_margin([entry for _, entry in complete]),
        }
    }
    if card is not None:
        reached = list(efficiencies(cases, card))
        if reached:
            found = {card.key: round(statistics.median(reached), 3)}
            parts["speed"] = {"source": source, "efficiency": {**efficiency, **found}}
    return parts


def fragmentation(entries: Sequence[Measurement]) -> float:
    """What the allocator reserved beyond what it handed out, as a share of the latter, where it was short of room.

    Far below its limit the allocator keeps freed blocks instead of using them again, and that would count as gaps. So
    only the phases that came near the limit count, or where none did, the one that came nearest.
    """
    seen: list[tuple[float, float]] = []  # share of the limit in use, share of gaps
    for entry in entries:
        for phase in (entry["measured"].get(name, {}) for name in _TRAINING):
            if "peak_reserved" in phase:
                reserved = phase["peak_reserved"]
                seen.append((reserved / entry["plan"]["memory_limit_bytes"], reserved / phase["peak_allocated"] - 1))
    _, gap_there = max(seen)
    return max((gap for full, gap in seen if full >= _NEAR_THE_LIMIT), default=gap_there)


def activation_margin(entries: Sequence[Measurement]) -> float:
    """By which share what grows with the tokens is larger than predicted, at its worst; at least 0.

    Weights, adapter and optimizer are known to the byte, so all that was allocated beyond the prediction is taken for it.
    """
    margins = [0.0]
    for entry in entries:
        memory = vram.Breakdown(entry["predicted"]["items"], {}, {})
        surplus = entry["measured"]["train"]["peak_allocated"] - vram.comparable(memory)["peak allocated"]
        if growing := vram.growing(memory):  # none where the optimizer's step is the peak
            margins.append(surplus / growing)
    return round(max(margins), 3)


def efficiencies(cases: Sequence[Mapping[str, Any]], card: Card) -> Iterator[float]:
    """The share of the card's peak that each model's baseline reached at its largest micro-batch.

    Small micro-batches are bound by launching kernels; a knob that moves data is bound by the bus.
    """
    largest: dict[str, Measurement] = {}
    for case, entry in _baselines(cases):
        model = case["case"]["model"]
        if model not in largest or entry["tokens"] > largest[model]["tokens"]:
            largest[model] = entry
    for model, entry in largest.items():
        yield efficiency_of(model, entry, card)


def efficiency_of(model: str, entry: Measurement, card: Card) -> float:
    """`slimtune.plan.speed.micro_batch_seconds` solved for the efficiency: FLOPs over the time beside dequantisation."""
    shape, plan, measured = shape_of(model), entry["plan"], entry["speed"]
    flops = speed.flops_per_token(shape, rank=plan["lora_rank"], targets=plan["lora_targets"], **entry["work"])
    seconds = measured["seconds_per_micro_batch"] - speed.dequantisation_seconds(shape, card, "nf4", 1.0)
    return measured["tokens_per_micro_batch"] * flops / (seconds * card.tflops * 1e12)


def _baselines(cases: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Measurement]]:
    for case in cases:
        if not case["case"]["knob"]:
            yield from ((case, entry) for entry in case["measurements"] if entry["status"] == "complete")
