"""Find the fastest way to run a job within a memory budget: predict every batching with every knob and compare.

Knobs that cost much time or change what is learned (offloaded layers, a lower rank) are last resorts, which the recipe
must allow.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from slimtune.models.cards import Card
from slimtune.models.shapes import ModelShape
from slimtune.plan import speed
from slimtune.plan.batching import Batching, single
from slimtune.plan.calibration import Calibration
from slimtune.plan.memory import vram

# Prefer a plan with fewer knobs turned to one that is faster by less than this.
SIMPLER_WITHIN = 0.01
_LOWEST_RANK = 4
_PROMPTS_SCORED_AT_ONCE = 8


@dataclass(frozen=True)
class Knobs:
    """The settings that a plan may choose; None where the recipe leaves the choice to the plan."""

    skip_layers: int | None = None
    offload_embedding: bool | None = None
    double_buffer: bool | None = None
    offload_layers: int | None = None


@dataclass(frozen=True)
class Job:
    """What is trained, how and on which card, without batching and knobs."""

    shape: ModelShape
    quantisation: vram.Quantisation
    rank: int
    targets: tuple[str, ...]
    optimizer: vram.Optimizer
    checkpointing: vram.GradientCheckpointing
    max_seq_length: int
    dynamic: bool
    batchings: tuple[Batching, ...]
    longest_prompt: int
    card: Card
    card_bytes: int
    compute_capability: tuple[int, int]
    work: speed.Work
    calibration: Calibration
    fixed: Knobs = field(default_factory=Knobs)


@dataclass(frozen=True)
class Choice:
    """One way to run a job, with its prediction.

    phases: peak bytes by phase; peak_bytes: the largest. margin_bytes: what the budget must offer beyond that, because
    few measurements back the prediction of kept activations; required_bytes: both. tokens_per_second: without padding.
    """

    batching: Batching
    skip_layers: int
    offload_embedding: bool
    double_buffer: bool
    offload_layers: int
    rank: int
    checkpointing: vram.GradientCheckpointing
    memory: vram.Breakdown
    phases: dict[str, int]
    margin_bytes: int
    scoring_batch: int
    micro_batch_seconds: float

    @property
    def peak_bytes(self) -> int:
        return max(self.phases.values())

    @property
    def required_bytes(self) -> int:
        return self.peak_bytes + self.margin_bytes

    @property
    def tokens_per_second(self) -> float:
        return self.batching.useful_tokens / self.micro_batch_seconds

    @property
    def knobs_turned(self) -> int:
        return sum([self.skip_layers > 0, self.offload_embedding, not self.double_buffer, self.offload_layers > 0])


def best(job: Job, budget_bytes: int, *, last_resorts: bool = False) -> Choice | None:
    """The fastest choice within the budget, or a simpler one that is nearly as fast; None where nothing fits.

    last_resorts: where nothing else fits, take as few layers off the card as needed, then also lower the rank.
    """
    found = _best(job, budget_bytes)
    rank = job.rank
    while found is None and last_resorts and rank >= min(job.rank, _LOWEST_RANK):
        lower = dataclasses.replace(job, rank=rank)
        found = _best(lower, budget_bytes) or _with_layers_off(lower, budget_bytes)
        rank //= 2
    return found


def _best(job: Job, budget_bytes: int) -> Choice | None:
    ways = ((batching, *placement) for batching in job.batchings for placement in _placements(job))
    tried = (_filled_up(job, batching, offload, double, budget_bytes) for batching, offload, double in ways)
    return _preferred([choice for choice in tried if choice])


def smallest(job: Job) -> Choice:
    """The choice that needs the least memory without last resorts."""
    return min(
        (
            evaluate(job, batching, job.fixed.skip_layers or 0, offload, double, job.fixed.offload_layers or 0)
            for batching in job.batchings
            for offload, double in _placements(job)
        ),
        key=lambda choice: choice.peak_bytes,
    )


def longest_context(job: Job, budget_bytes: int) -> int:
    """Tokens of the longest single example that would still fit, every layer recomputed and the cheap knobs turned.

    At most the model's positions; 0 where not even one token fits.
    """

    def fits(tokens: int) -> bool:
        longer = dataclasses.replace(job, max_seq_length=tokens, longest_prompt=tokens)
        return any(
            evaluate(longer, single(tokens), 0, offload, double, job.fixed.offload_layers or 0).required_bytes
            <= budget_bytes
            for offload, double in _placements(job)
        )

    return _largest(job.shape.max_position_embeddings, fits)


def evaluate(
    job: Job, batching: Batching, skip_layers: int, offload_embedding: bool, double_buffer: bool, offload_layers: int
) -> Choice:
    """Memory and speed of one choice."""
    adapter: dict[str, Any] = {"quantisation": job.quantisation, "rank": job.rank, "targets": job.targets}
    knobs: dict[str, Any] = {
        "skip_layers": skip_layers,
        "offload_embedding": offload_embedding,
        "double_buffer": double_buffer,
        "offload_layers": offload_layers,
    }
    memory = vram.predict(
        job.shape,
        **adapter,
        **knobs,
        tokens=batching.peak_tokens,
        optimizer=job.optimizer,
        gradient_checkpointing=job.checkpointing,
        max_seq_length=job.max_seq_length,
        dynamic=job.dynamic,
        tiled_loss=vram.takes_tiled_loss(job.card_bytes, job.compute_capability, batching.peak_tokens),
        context_bytes=job.calibration.context_bytes,
        fragmentation=job.calibration.fragmentation,
    )
    checkpointing = vram.effective_checkpointing(
        job.checkpointing, batching.peak_tokens, job.shape.hidden_size, job.max_seq_length
    )
    seconds = speed.micro_batch_seconds(
        job.shape,
        job.card,
        job.calibration,
        job.work,
        **adapter,
        **knobs,
        tokens=batching.computed_tokens,
        checkpointing=checkpointing,
    )
    # Questions are asked in batches that hold no more tokens than a micro-batch, so that asking is never the peak.
    scored = max(1, min(_PROMPTS_SCORED_AT_ONCE, batching.peak_tokens // max(1, job.longest_prompt)))
    return Choice(
        **knobs,
        batching=batching,
        rank=job.rank,
        checkpointing=checkpointing,
        memory=memory,
        phases=vram.phases(
            job.shape,
            memory,
            offload_embedding=offload_embedding,
            scoring_tokens=scored * job.longest_prompt,
            scoring_batch=scored,
        ),
        margin_bytes=round(job.calibration.activation_margin * memory.items.get("kept activations", 0)),
        scoring_batch=scored,
        micro_batch_seconds=seconds,
    )


def _placements(job: Job) -> Iterator[tuple[bool, bool]]:
    """Embedding off the card or on it, one staging buffer or two, as far as the recipe leaves it open."""
    fixed = job.fixed
    off = [False, True] if fixed.offload_embedding is None else [fixed.offload_embedding]
    double = [True, False] if fixed.double_buffer is None else [fixed.double_buffer]
    for offload in off if not job.shape.tied else [False]:  # a tied head needs the same matrix on the card
        for buffers in double if job.checkpointing == "unsloth" else [True]:
            yield offload, buffers


def _filled_up(job: Job, batching: Batching, offload: bool, double: bool, budget_bytes: int) -> Choice | None:
    """The choice with as many layers kept (not recomputed) as the budget holds; None where it does not hold any."""
    off_card = job.fixed.offload_layers or 0

    def with_kept(layers: int) -> Choice:
        return evaluate(job, batching, layers, offload, double, off_card)

    lowest = job.fixed.skip_layers or 0
    if with_kept(lowest).required_bytes > budget_bytes:
        return None
    open_to_choice = job.fixed.skip_layers is None and job.checkpointing != "none" and off_card == 0
    most = job.shape.layers if open_to_choice else lowest
    return with_kept(_largest(most, lambda layers: with_kept(layers).required_bytes <= budget_bytes, lowest))


def _with_layers_off(job: Job, budget_bytes: int) -> Choice | None:
    """The fastest choice with just as many layers off the card as each batching needs."""
    if job.checkpointing != "unsloth" or job.fixed.skip_layers:
        return None
    most = job.shape.layers - 1

    def with_fewest_off(batching: Batching, offload: bool, double: bool) -> Choice | None:
        def with_layers(on_card: int) -> Choice:
            return evaluate(job, batching, 0, offload, double, most - on_card)

        most_on_card = _largest(most, lambda on_card: with_layers(on_card).required_bytes <= budget_bytes)
        found = with_layers(most_on_card)
        return found if found.required_bytes <= budget_bytes else None

    tried = (with_fewest_off(batching, *placement) for batching in job.batchings for placement in _placements(job))
    return _preferred([choice for choice in tried if choice])


def _preferred(choices: list[Choice]) -> Choice | None:
    """The simplest of those that are nearly as fast as the fastest; of equally simple ones the fastest."""
    if not choices:
        return None
    fastest = max(choice.tokens_per_second for choice in choices)
    near = [choice for choice in choices if choice.tokens_per_second >= (1 - SIMPLER_WITHIN) * fastest]
    return min(near, key=lambda choice: (choice.offload_layers, choice.knobs_turned, -choice.tokens_per_second))


def _largest(most: int, fits: Callable[[int], bool], least: int = 0) -> int:
    """The largest number up to `most` for which `fits` holds, given that it holds for `least` and below a threshold."""
    low, high = least, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
