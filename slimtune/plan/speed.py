"""Predict the seconds of a micro-batch and of a run, and what the run costs. Pure arithmetic.

The card's arithmetic bounds a step. On top come dequantising every weight once a micro-batch, and the transfers from the
host that nothing hides. Source: the code of Unsloth 2026.10.9.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from slimtune.models.cards import Card
from slimtune.models.shapes import ModelShape
from slimtune.plan.calibration import Calibration
from slimtune.plan.memory import vram

# A decoder layer's forward, recomputation and backward where the tensors are tiny: Python and launches. Assumed.
LAYER_SECONDS = 0.002


@dataclass(frozen=True)
class Work:
    """sequence_length: mean length of an example as its tokens see it, Σl²/Σl. labelled_share: of tokens that carry loss.
    extra_forwards: see `StepCost`."""

    sequence_length: float
    labelled_share: float
    extra_forwards: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A run's predicted time: training, evaluation losses and both rounds of questions; without loading and export.

    tokens_per_second: without padding. cost: None without a price. efficiency: of the card's peak; source: how it is
    known.
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
    checkpoint_skip_layers: int = 0,
    offload_embedding: bool = False,
    double_buffer: bool = True,
    offload_layers: int = 0,
) -> float:
    """Seconds of forward, recomputation and backward of one micro-batch of `tokens`, padding included."""
    kept = shape.layers if checkpointing == "none" else checkpoint_skip_layers
    recomputed = (shape.layers - kept) / shape.layers
    flops = flops_per_token(
        shape,
        rank=rank,
        targets=targets,
        sequence_length=work.sequence_length,
        labelled_share=work.labelled_share,
        recomputed_share=recomputed,
    )
    efficiency, _ = calibration.efficiency_of(card.key)
    arithmetic = tokens * flops / (card.tflops * 1e12 * efficiency)
    launching = shape.layers * LAYER_SECONDS * (2 + recomputed) / 3
    computed = max(arithmetic + dequantisation_seconds(shape, card, quantisation, recomputed), launching)

    # Forward fetches a layer once, recomputation and backward together once more; computing hides it while it lasts.
    fetched = 2 * offload_layers * vram.swapped_layer_bytes(shape, quantisation) / calibration.host_bytes_per_second
    # Transfers that nothing hides: the embedded tokens, and checkpoints that only one buffer waits for.
    exposed = int(offload_embedding)
    exposed += shape.layers - kept if checkpointing == "unsloth" and not double_buffer else 0
    waited = exposed * vram.checkpoint_bytes(shape, round(tokens)) / calibration.host_bytes_per_second
    forward = forward_seconds(shape, card, calibration, tokens=tokens, batches=1, quantisation=quantisation)
    return max(computed, fetched) + waited + work.extra_forwards * forward


def dequantisation_seconds(shape: ModelShape, card: Card, quantisation: vram.Quantisation, recomputed: float) -> float:
    """Every linear is read in NF4 and written in 16 bit for forward, recomputation and backward: bound by bandwidth."""
    if quantisation == "16bit":
        return 0.0
    moved = vram.linear_weights(shape, quantisation) + 2 * shape.linear_parameters
    return (2 + recomputed) * moved / card.bandwidth


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


def flops_per_token(
    shape: ModelShape,
    *,
    rank: int,
    targets: Collection[str],
    sequence_length: float,
    labelled_share: float = 1.0,
    recomputed_share: float = 1.0,
) -> float:
    """FLOPs of one trained token: 6·P + 4·V·H·f + 9·Hq·T·L + 8·P_lora with every layer recomputed.

    Letters as in `vram`. sequence_length: T, the mean length of an example (packed examples do not see each other).
    labelled_share: f, only labelled tokens pass the head. recomputed_share: of the layers.
    Counting: 2·P forward, 2·P recomputed, 2·P for the input's gradient, none for frozen weights; attention is
    causal, so half of 4·Hq·T forward, and its backward costs 2.5 forwards.
    """
    again = 2 * recomputed_share
    linears = (4 + again) * shape.linear_parameters
    head = 4 * shape.vocab_size * shape.hidden_size * labelled_share
    attention = (7 + again) * shape.query_size * sequence_length * shape.layers
    adapter = (6 + again) * shape.lora_parameters(rank, targets)
    return linears + head + attention + adapter
