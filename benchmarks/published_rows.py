"""Published peaks beside the plan's predictions of them; see published_memory.py, which prints both."""

import dataclasses
import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slimtune.core.units import GIB
from slimtune.models import shapes
from slimtune.models.shapes import ModelShape
from slimtune.plan.memory import vram

AGREES = 0.10
"""The share of the published figure by which a prediction may be off without an explanation."""
_NOT_TILED = ("Tesla T4",)  # older than Ampere, see `vram.takes_tiled_loss`
_TOO_MANY = 2**20  # tokens: no card that is asked about takes so many

_LIKE = "Llama-3.1-8B"
_SIZES: Mapping[str, Mapping[str, Any]] = {
    "Llama-2-7B": {"intermediate_size": 11008, "kv_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096},
    "Llama-3-8B": {"max_position_embeddings": 8192},
    "Llama-3.2-1B": {"hidden_size": 2048, "intermediate_size": 8192, "layers": 16, "head_dim": 64, "tied": True},
    "Llama-3.2-3B": {"hidden_size": 3072, "intermediate_size": 8192, "layers": 28, "heads": 24, "tied": True},
    "Llama-3.3-70B": {"hidden_size": 8192, "intermediate_size": 28672, "layers": 80, "heads": 64},
    "Ministral-8B": {"intermediate_size": 12288, "layers": 36, "vocab_size": 131072, "max_position_embeddings": 32768},
    "Mistral-7B": {"vocab_size": 32000, "max_position_embeddings": 32768},
    "Mistral-7B-v0.3": {"vocab_size": 32768, "max_position_embeddings": 32768},
    "Phi-4": {
        "hidden_size": 5120,
        "intermediate_size": 17920,
        "layers": 40,
        "heads": 40,
        "kv_heads": 10,
        "vocab_size": 100352,
        "max_position_embeddings": 16384,
    },
    "gemma-2-9b": {
        "hidden_size": 3584,
        "layers": 42,
        "heads": 16,
        "head_dim": 256,
        "vocab_size": 256000,
        "tied": True,
        "max_position_embeddings": 8192,
    },
}
"""What published models outside the families of Slimtune have other than `_LIKE`. Where their adapters' parameters are
published, a test compares them."""

Row = Mapping[str, Any]


def compare(published: Mapping[str, Any]) -> dict[str, Any]:
    """Every row with its prediction, and the context lengths; rows that the plan cannot express with the reason."""
    rows = [compared(row) if "shape" in row else {**_named(row), "why": row["why"]} for row in published["rows"]]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "agrees_within": AGREES,
        "rows": rows,
        "longest_context": contexts(published["longest_context"]),
    }


def shape_of(name: str) -> ModelShape:
    """A family's shape, or one of `_SIZES`. Raises KeyError for a name that neither has."""
    return shapes.find(name) or dataclasses.replace(shapes.known()[_LIKE], name=name, **_SIZES[name])


def targets_of(row: Row, shape: ModelShape) -> tuple[str, ...]:
    return tuple(shape.projections) if row["targets"] == "all" else tuple(row["targets"])


def compared(row: Row) -> dict[str, Any]:
    """A row beside its prediction: bytes loaded and at the peak, by how much these are off, and what may explain it."""
    shape = shape_of(row["shape"])
    memory = _predicted(row, shape, row["batch"] * (row["row_tokens"] if "row_tokens" in row else row["cap"]))
    measures = vram.comparable(memory)
    loaded = measures["weights"] + measures["LoRA weights"]
    name = {"allocated": "peak allocated", "reserved": "peak reserved"}.get(row["peak"], "peak on the card")
    found: dict[str, Any] = _named(row) | {
        "tokens": row["batch"] * row.get("row_tokens", 0) or None,
        "tokens_at_most": row["batch"] * row.get("cap", 0) or None,
        "peak": {"published": row["peak_gib"], "predicted": _gib(measures[name]), "measure": name},
        "terms_gib": {term: _gib(size) for term, size in memory.items.items()},
    }
    if row["logits"] == "full":  # in 16 bit, in fp32, and a gradient in fp32
        found["all_logits_gib"] = _gib(10 * (found["tokens"] or found["tokens_at_most"]) * shape.vocab_size)
    if "loaded_gib" in row:
        found["loaded"] = {"published": row["loaded_gib"], "predicted": _gib(loaded)}
        found["loaded"]["off"] = round(found["loaded"]["predicted"] / row["loaded_gib"] - 1, 3)
    peak = found["peak"]
    if "row_tokens" in row:
        peak["off"] = round(peak["predicted"] / peak["published"] - 1, 3)
    else:
        peak["least"] = _gib(loaded)
        peak["within"] = peak["least"] <= peak["published"] <= peak["predicted"]
    if not agrees(found):
        found["may_explain"] = dict(_explanations(row, found))
    return found


def _predicted(row: Row, shape: ModelShape, tokens: int) -> vram.Breakdown:
    return vram.predict(
        shape,
        rank=row["rank"],
        targets=targets_of(row, shape),
        tokens=tokens,
        optimizer=row["optimizer"],
        gradient_checkpointing=row["checkpointing"],
        dynamic=row.get("dynamic", False),
        tiled_loss=row.get("card") not in _NOT_TILED,
    )


def _named(row: Row) -> dict[str, Any]:
    return {"source": row["source"], "stack": row["stack"], "model": row["model"]}


def _gib(size: int) -> float:
    return round(size / GIB, 3)


def agrees(found: Mapping[str, Any]) -> bool:
    loaded = found.get("loaded")
    return (loaded is None or abs(loaded["off"]) <= AGREES) and _peak_agrees(found["peak"])


def _peak_agrees(peak: Mapping[str, Any]) -> bool:
    return abs(peak["off"]) <= AGREES if "off" in peak else bool(peak["within"])


def _explanations(row: Row, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Term of the prediction -> why it may differ there."""
    unsloth, peak, loaded = row["stack"].startswith("Unsloth"), found["peak"], found.get("loaded")
    if loaded and abs(loaded["off"]) > AGREES:
        yield "linear weights", "what loading needs for a moment stays reserved"
        if row.get("dynamic"):
            yield "dynamic surplus", "how many linears stay in 16 bit is assumed, and differs between models"
    if _peak_agrees(peak):
        return
    if row["logits"] == "full":
        yield "cross entropy", "all logits are kept, by Unsloth too until November 2024"
    elif row["logits"] == "tiled":
        yield "cross entropy", "older releases take larger parts of the logits at once, on a T4 still today"
    else:
        yield "cross entropy", "another loss in parts"
    if unsloth:
        yield "MLP backward", "older releases keep more of a token"
    else:
        yield "MLP backward", "PyTorch's own, which keeps more of a token"
        yield "LoRA weights", "in 16 bit or in fp32, by the stack"
    if row["checkpointing"] == "none":
        yield "kept activations", "PyTorch's own backward keeps more of a layer"
    if peak["measure"] == "peak reserved":
        yield "fragmentation", "assumed to be none until it is measured"


def contexts(published: Mapping[str, Any]) -> dict[str, Any]:
    """The longest row that trains on cards of some sizes, published and predicted under the same settings."""
    shape = shape_of(published["shape"])
    rows = []
    for size, tokens in published["tokens_by_card_gb"].items():
        predicted = longest(published, shape, vram.budget_bytes(float(size)))
        rows.append({"card_gb": int(size), "published": tokens, "predicted": predicted})
        rows[-1]["off"] = round(predicted / tokens - 1, 3)
    slopes = {who: _bytes_a_token(rows, who) for who in ("published", "predicted")}
    return {
        **{key: published[key] for key in ("source", "stack", "shape")},
        "rows": rows,
        "bytes_a_token": slopes,
        "may_explain": {
            "cross entropy": "older releases take larger parts of the logits at once",
            "MLP backward": "older releases keep more of a token",
        },
    }


def longest(row: Row, shape: ModelShape, budget: int) -> int:
    """The most tokens of a row with which a step fits the budget, 0 for none, by bisection."""
    fits, too_many = 0, _TOO_MANY
    while too_many - fits > 1:
        tokens = (fits + too_many) // 2
        memory = _predicted({"optimizer": "adamw_8bit", **row}, shape, tokens)
        fits, too_many = (tokens, too_many) if memory.total_bytes <= budget else (fits, tokens)
    return fits


def _bytes_a_token(rows: Sequence[Mapping[str, Any]], who: str) -> int:
    """Between the smallest and the largest card, if a card offers what the plan assumes."""
    first, last = rows[0], rows[-1]
    between = vram.budget_bytes(last["card_gb"]) - vram.budget_bytes(first["card_gb"])
    return round(between / (last[who] - first[who]))
