"""Predict the card's peak memory in each phase of a run, from the breakdown of a training step. Pure arithmetic.

Training is the widest phase by design: questions are asked in batches of no more tokens than a micro-batch has, and a
forward pass alone keeps less. Loading can be the widest where the embedding only leaves the card afterwards.
"""

from __future__ import annotations

from slimtune.models.shapes import ModelShape
from slimtune.plan.memory import vram

_WEIGHTS = ("linear weights", "layer slots", "dynamic surplus", "embeddings", "norms and biases")
_KEPT_BY_UNSLOTH = ("dequantisation buffer", "checkpoint staging")


def peaks(
    shape: ModelShape, memory: vram.Breakdown, *, offload_embedding: bool, scoring_tokens: int, scoring_batch: int
) -> dict[str, int]:
    """Predicted peak bytes by phase, the CUDA context included.

    load: the weights and the fresh adapter. An embedding that will live in the computer's memory is first loaded onto
    the card (`offload_input_embedding` runs after the load in `models/llama.py`). evaluate: weights, adapter and a
    forward pass over `scoring_tokens` (padded), with the logits of one position for each of `scoring_batch` prompts.
    export: what Unsloth's buffers and the context still hold; merging happens in the computer's memory.
    """
    item = memory.items.get
    weights = sum(item(name, 0) for name in _WEIGHTS)
    context = item("CUDA context", 0)
    passed_through = 2 * shape.vocab_size * shape.hidden_size if offload_embedding and not shape.tied else 0
    adapter = item("LoRA weights", 0)
    scored = weights + adapter + item("dequantisation buffer", 0) + item("RoPE tables", 0)
    forward = scored + forward_pass(shape, scoring_tokens) + scoring_logits(shape, scoring_batch) + context
    trained = item("LoRA gradients", 0) + item("optimizer state", 0) + item("checkpoint staging", 0)
    return {
        "load": weights + adapter + passed_through + context,
        "evaluate_base": forward,
        "first_step": memory.total_bytes,
        "train": memory.total_bytes,
        "evaluate_tuned": forward + trained,
        "export": sum(item(name, 0) for name in _KEPT_BY_UNSLOTH) + context,
    }


def comparable(memory: vram.Breakdown) -> dict[str, int]:
    """The predictions that a run on a card can measure, under the names of the measurements."""
    item = memory.items.get
    context = item("CUDA context", 0)
    reserved = memory.total_bytes - context
    return {
        "weights": sum(item(name, 0) for name in _WEIGHTS),
        "LoRA weights": item("LoRA weights", 0),
        "optimizer state": item("optimizer state", 0),
        "peak allocated": reserved - item("fragmentation", 0),
        "peak reserved": reserved,
        "CUDA context": context,
        "peak on the card": memory.total_bytes,
    }


def forward_pass(shape: ModelShape, tokens: int) -> int:
    """A decoder layer's forward without gradients: 2·N·(3H + 3I), the MLP being the widest place.

    3H: residual, normalised input, output. 3I: gate, up and their product. Derived, not measured.
    """
    return 2 * tokens * (3 * shape.hidden_size + 3 * shape.intermediate_size)


def scoring_logits(shape: ModelShape, prompts: int) -> int:
    """One row of logits a prompt, in 16 bit, in fp32 and as log-probabilities: 10·V each."""
    return 10 * prompts * shape.vocab_size
