"""Find the fastest way to run a job within a memory budget: predict every batching with every knob and compare.

Knobs that cost much time or change what is learned (offloaded layers, a lower rank) are last resorts, which the recipe
must allow.
"""

import bisect
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from slimtune.models.shapes import is_dynamic
from slimtune.plan import speed
from slimtune.plan.batching import Batching, single
from slimtune.plan.memory import vram
from slimtune.plan.request import Job

# Prefer a plan with fewer knobs turned to one that is faster by less than this.
SIMPLER_WITHIN = 0.01
_LOWEST_RANK = 4
_PROMPTS_SCORED_AT_ONCE = 8


@dataclass(frozen=True)
class Knobs:
    """The settings that a plan may choose, under the plan's names; see `vram.predict`."""

    checkpoint_skip_layers: int = 0
    offload_embedding: bool = False
    double_buffer: bool = True
    offload_layers: int = 0

    @property
    def turned(self) -> int:
        return sum(getattr(self, name) != value for name, value in vars(Knobs()).items())


@dataclass(frozen=True)
class Choice:
    """One way to run a job. What is predicted of it is computed when it is first asked for."""

    job: Job
    batching: Batching
    knobs: Knobs = Knobs()

    @property
    def checkpointing(self) -> vram.GradientCheckpointing:
        return vram.effective_checkpointing(
            self.job.checkpointing,
            self.batching.peak_tokens,
            self.job.shape.hidden_size,
            self.job.request.model.max_seq_length,
        )

    @functools.cached_property
    def memory(self) -> vram.Breakdown:
        job, model, tokens = self.job, self.job.request.model, self.batching.peak_tokens
        capability = job.hardware.compute_capability or (8, 0)
        return vram.predict(
            job.shape,
            **job.adapted,
            **vars(self.knobs),
            tokens=tokens,
            optimizer=job.request.train.optim,
            gradient_checkpointing=job.checkpointing,
            max_seq_length=model.max_seq_length,
            dynamic=is_dynamic(model.base) and model.load_in_4bit,
            tiled_loss=vram.takes_tiled_loss(job.hardware.memory_bytes, capability, tokens),
            context_bytes=job.constants.context_bytes,
            fragmentation=job.constants.fragmentation,
        )

    @functools.cached_property
    def phases(self) -> dict[str, int]:
        """Peak bytes by phase of the run."""
        return vram.phases(
            self.job.shape,
            self.memory,
            offload_embedding=self.knobs.offload_embedding,
            scoring_tokens=self.scoring_batch * self.job.longest_prompt,
            scoring_batch=self.scoring_batch,
        )

    @property
    def scoring_batch(self) -> int:
        """Questions asked at once: no more tokens than a micro-batch has, so that asking is never the peak."""
        fitting = self.batching.peak_tokens // max(1, self.job.longest_prompt)
        return max(1, min(_PROMPTS_SCORED_AT_ONCE, fitting))

    @property
    def peak_bytes(self) -> int:
        return max(self.phases.values())

    @property
    def margin_bytes(self) -> int:
        """What the budget must offer beyond the peak: the prediction of activations is not measured on every card."""
        return round(self.job.constants.activation_margin * vram.growing(self.memory))

    @property
    def required_bytes(self) -> int:
        return self.peak_bytes + self.margin_bytes

    @functools.cached_property
    def micro_batch_seconds(self) -> float:
        job = self.job
        return speed.micro_batch_seconds(
            job.shape,
            job.card,
            job.constants,
            job.work,
            **job.adapted,
            **vars(self.knobs),
            tokens=self.batching.computed_tokens,
            checkpointing=self.checkpointing,
        )

    @property
    def tokens_per_second(self) -> float:
        """Without padding."""
        return self.batching.useful_tokens / self.micro_batch_seconds


def best(job: Job, budget_bytes: int, *, last_resorts: bool = False) -> Choice | None:
    """The fastest choice within the budget, or a simpler one that is nearly as fast; None where nothing fits.
    last_resorts: where nothing else fits, take as few layers off the card as needed, then also lower the rank."""
    found = _preferred(job, budget_bytes, _with_most_kept)
    rank = job.rank
    while found is None and last_resorts and rank >= min(job.rank, _LOWEST_RANK):
        lower = job.changed(lora={"rank": rank})
        found = _preferred(lower, budget_bytes, _with_most_kept) or _preferred(lower, budget_bytes, _with_fewest_off)
        rank //= 2
    return found


def smallest(job: Job) -> Choice:
    """The choice that needs the least memory without last resorts."""
    return min(_open_choices(job), key=lambda choice: choice.peak_bytes)


def longest_context(job: Job, budget_bytes: int) -> int:
    """Tokens of the longest single example that would still fit, every layer recomputed and the cheap knobs turned.
    At most the model's positions; 0 where not even one token fits."""
    knobs = {replace(choice.knobs, checkpoint_skip_layers=0) for choice in _open_choices(job)}

    def fits(tokens: int) -> bool:
        longer = replace(job.changed(model={"max_seq_length": tokens}), data=replace(job.data, prompts=(tokens,)))
        return any(Choice(longer, single(tokens), turned).required_bytes <= budget_bytes for turned in knobs)

    return _largest(job.shape.max_position_embeddings, fits)


def _open_choices(job: Job) -> list[Choice]:
    """Each batching with the embedding off the card or on it and one staging buffer or two, as far as the recipe leaves
    it open. Other knobs are as the recipe sets them."""
    model, train = job.request.model, job.request.train
    off = [False, True] if model.offload_embedding is None else [model.offload_embedding]
    double = [True, False] if train.double_buffer is None else [train.double_buffer]
    placements = itertools.product(
        job.batchings,
        off if not job.shape.tied else [False],  # a tied head needs the same matrix on the card
        double if job.checkpointing == "unsloth" else [True],
    )
    skipped, off_card = train.checkpoint_skip_layers or 0, model.offload_layers or 0
    return [Choice(job, batching, Knobs(skipped, offload, two, off_card)) for batching, offload, two in placements]


def _with_most_kept(plain: Choice, budget_bytes: int) -> Choice | None:
    """The choice with as many layers kept (not recomputed) as the budget holds; None where it does not hold any."""
    job, knobs = plain.job, plain.knobs

    def keeping(layers: int) -> Choice:
        return replace(plain, knobs=replace(knobs, checkpoint_skip_layers=layers))

    if plain.required_bytes > budget_bytes:
        return None
    lowest = knobs.checkpoint_skip_layers
    is_open = job.request.train.checkpoint_skip_layers is None and job.checkpointing != "none"
    most = job.shape.layers if is_open and knobs.offload_layers == 0 else lowest
    return keeping(_largest(most, lambda layers: keeping(layers).required_bytes <= budget_bytes, lowest))


def _with_fewest_off(plain: Choice, budget_bytes: int) -> Choice | None:
    """The choice with just as many layers off the card as it needs; None where that does not suffice."""
    if plain.job.checkpointing != "unsloth" or plain.knobs.checkpoint_skip_layers:
        return None
    most = plain.job.shape.layers - 1

    def with_on_card(layers: int) -> Choice:
        return replace(plain, knobs=replace(plain.knobs, offload_layers=most - layers))

    found = with_on_card(_largest(most, lambda layers: with_on_card(layers).required_bytes <= budget_bytes))
    return found if found.required_bytes <= budget_bytes else None


def _preferred(job: Job, budget_bytes: int, fitted: Callable[[Choice, int], Choice | None]) -> Choice | None:
    """The simplest of the fitted choices that are nearly as fast as the fastest; of equally simple ones the fastest."""
    choices = [choice for plain in _open_choices(job) if (choice := fitted(plain, budget_bytes))]
    fastest = max((choice.tokens_per_second for choice in choices), default=0.0)
    near = [choice for choice in choices if choice.tokens_per_second >= (1 - SIMPLER_WITHIN) * fastest]
    return min(
        near,
        key=lambda choice: (choice.knobs.offload_layers, choice.knobs.turned, -choice.tokens_per_second),
        default=None,
    )


def _largest(most: int, fits: Callable[[int], bool], least: int = 0) -> int:
    """The largest number up to `most` for which `fits` holds, given that it holds for `least` and below a threshold."""
    beyond = bisect.bisect_left(range(least + 1, most + 1), True, key=lambda number: not fits(number))
    return least + beyond
