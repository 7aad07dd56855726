"""Predict the seconds of a micro-batch and of a run, and what the run costs. Pure arithmetic.

A step is bound by the card's arithmetic. On top come the fixed cost of each micro-batch (dequantising every weight) and
the transfers from the host that nothing hides. Source: vram-model's limits, the
code of Unsloth 2026.10.9; the efficiency is measured, or assumed and then said to be.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from slimtune.models.cards import Card
from slimtune.models.shapes import ModelShape
from slimtune.plan.calibration import Calibration
from slimtune.plan.memory import vram

# Python's and the launches' share of a decoder layer in forward, recomputation and backward: what remains of a step's
# time when the tensors are tiny. Assumed.
LAYER_SECONDS = 0.002
_DEQUANTISED_BYTES = 2  # written in 16 bit


@dataclass(frozen=True)
class Work:
    """The work per token that the data require, whatever the plan.

    sequence_length: mean length of an example as its tokens see it, Σl²/Σl. labelled_share: of tokens that carry loss.
    extra_forwards: passes without gradients that the method makes over the same tokens.
    """

    sequence_length: float
    labelled_share: float
    extra_forwards: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A run's predicted time. tokens_per_second counts the examples' own tokens, never padding.

    seconds: training, evaluation losses and both rounds of questions; without loading and export. cost: in the
    currency of the price, None where no price is given. efficiency: of the card's peak; source: how it is known.
    """

    tokens_per_second: float
    micro_batch_seconds: float
    train_seconds: float
    evaluation_seconds: float
    efficiency: float
    source: str
    cost: float | None

    @property
    def seconds(self) -> float:
        return self.train_seconds + self.evaluation_seconds

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": self.seconds}


def micro_batch_seconds(
    shape: ModelShape,
    card: Card,
    calibration: Calibration,
    work: Work,
    *,
    tokens: float,
    rank: int,
    targets: Collection[str],
    quantisation: vram.Quantisation,
    checkpointing: vram.GradientCheckpointing,
    skip_layers: int = 0,
    offload_embedding: bool = False,
    double_buffer: bool = True,
    offload_layers: int = 0,
) -> float:
    """Seconds of forward, recomputation and backward of one micro-batch of `tokens`, padding included."""
    kept = shape.layers if checkpointing == "none" else skip_layers
    recomputed = (shape.layers - kept) / shape.layers
    flops = vram.flops_per_token(
        shape,
        rank=rank,
        targets=targets,
        sequence_length=work.sequence_length,
        labelled_share=work.labelled_share,
        recomputed_share=recomputed,
    )
    efficiency, _ = calibration.efficiency_of(card.key)
    arithmetic = tokens * flops / (card.tflops * 1e12 * efficiency)
    computed = max(
        arithmetic + dequantisation_seconds(shape, card, quantisation, recomputed), _launch(shape, recomputed)
    )

    # A fetched layer is used by the forward pass, and once more by recomputation and backward together; fetching
    # hides behind computing as far as that lasts.
    fetched = 2 * offload_layers * vram.swapped_layer_bytes(shape, quantisation) / calibration.host_bytes_per_second
    exposed = 0.0
    if offload_embedding:
        exposed += vram.checkpoint_bytes(shape, round(tokens)) / calibration.host_bytes_per_second
    if checkpointing == "unsloth" and not double_buffer:
        reloaded = (shape.layers - kept) * vram.checkpoint_bytes(shape, round(tokens))
        exposed += reloaded / calibration.host_bytes_per_second
    again = work.extra_forwards * forward_seconds(
        shape, card, calibration, tokens=tokens, batches=1, quantisation=quantisation
    )
    return max(computed, fetched) + exposed + again


def dequantisation_seconds(shape: ModelShape, card: Card, quantisation: vram.Quantisation, recomputed: float) -> float:
    """Every linear is read in NF4 and written in 16 bit for forward, recomputation and backward: bound by bandwidth.

    Qwen3-8B on 760 GB/s: 69 ms.
    """
    if quantisation == "16bit":
        return 0.0
    passes = 2 + recomputed
    moved = vram.linear_weights(shape, quantisation) + _DEQUANTISED_BYTES * shape.linear_parameters
    return passes * moved / card.bandwidth


def _launch(shape: ModelShape, recomputed: float) -> float:
    return shape.layers * LAYER_SECONDS * (2 + recomputed) / 3


def forward_seconds(
    shape: ModelShape,
    card: Card,
    calibration: Calibration,
    *,
    tokens: float,
    batches: int,
    quantisation: vram.Quantisation,
) -> float:
    """Seconds of forward passes alone, for evaluation: 2·P a token and one dequantisation a batch."""
    efficiency, _ = calibration.efficiency_of(card.key)
    arithmetic = tokens * 2 * shape.linear_parameters / (card.tflops * 1e12 * efficiency)
    moving = batches * dequantisation_seconds(shape, card, quantisation, 0.0) / 2
    return max(arithmetic + moving, batches * shape.layers * LAYER_SECONDS / 3)
