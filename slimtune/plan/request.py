"""What a plan is made for: the recipe's sections, the cost of the method, the data, model and machine. No torch."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.units import GIB
from slimtune.models import cards, families
from slimtune.models.hardware import Hardware
from slimtune.models.shapes import ModelShape, is_prequantised
from slimtune.plan import batching, calibration, speed
from slimtune.plan.batching import Batching
from slimtune.plan.calibration import Calibration
from slimtune.plan.lengths import Lengths
from slimtune.plan.memory import ram, vram
from slimtune.recipe.schema import BudgetSection, LoraSection, ModelSection, TrainSection

_CPU_MICRO_BATCH = 8
_CHECKPOINTING: dict[str | bool, vram.GradientCheckpointing] = {"unsloth": "unsloth", True: "true", False: "none"}


@dataclass(frozen=True)
class StepCost:
    """What a training step of a method asks for beyond one forward and backward pass over each example.

    sequences: rows of the model's batch that one example takes, padded to the same length: 2 for a chosen and a rejected
    reply. extra_forwards: passes without gradients over the same tokens: 1 for a reference model's log-probabilities.
    packs: whether several examples can share a row.
    """

    sequences: int = 1
    extra_forwards: float = 0.0
    packs: bool = True


@dataclass(frozen=True)
class PlanRequest:
    """The recipe's sections that a plan follows, and what a step of its method costs.

    max_overlong: share of the examples that may be left out because they are longer than max_seq_length.
    repeats: how often an epoch reads the examples that it reads most.
    """

    model: ModelSection
    lora: LoraSection
    train: TrainSection
    budget: BudgetSection
    seed: int
    report_to: tuple[str, ...] = ()
    max_overlong: float = 0.0
    repeats: float = 1.0
    cost: StepCost = StepCost()

    def targets(self, shape: ModelShape) -> tuple[str, ...]:
        """The linears that get an adapter: a preset of the model's family, or those that are named."""
        wanted = self.lora.target
        return families.get(shape.family).lora_targets[wanted] if isinstance(wanted, str) else tuple(wanted)

    def require_possible(self, shape: ModelShape) -> None:
        """Raise SlimtuneError for settings that no model of this shape has, whatever the data and the machine are."""
        problems = []
        limit, positions = self.model.max_seq_length, shape.max_position_embeddings
        if limit > positions:
            what = f"max_seq_length {limit} is more than the {positions} positions of {shape.name}"
            problems.append(Problem(what, "model.max_seq_length", f"set it to {positions} or less"))
        if unknown := [name for name in self.targets(shape) if name not in shape.projections]:
            what = f"{shape.name} has no linear called {', '.join(unknown)}"
            presets = ", ".join(families.get(shape.family).lora_targets)
            problems.append(Problem(what, "lora.target", f"use {presets}, or a list of {', '.join(shape.projections)}"))
        if problems:
            raise SlimtuneError(problems)

    @property
    def longest_example(self) -> int:
        """Places of the longest example that is trained on, all its sequences together."""
        return self.model.max_seq_length * self.cost.sequences


@dataclass(frozen=True)
class Data:
    """Lengths in tokens. held_out: of the examples for the evaluation loss, or None. prompts: of the questions."""

    train: Lengths
    held_out: Lengths | None = None
    prompts: Sequence[int] = ()

    def kept(self, limit: int) -> list[int]:
        """The training examples of at most `limit` tokens; where none is, one of that length."""
        return [count for count in self.train.tokens if count <= limit] or [limit]

    def longest(self, limit: int) -> int:
        """Of everything that passes through the model, as far as it is not left out."""
        held_out = self.held_out.tokens if self.held_out else ()
        return max(count for count in (*self.kept(limit), *held_out) if count <= limit)


@dataclass(frozen=True)
class Job:
    """What is trained, how, and on which machine; batching and knobs are still open."""

    request: PlanRequest
    data: Data
    shape: ModelShape
    hardware: Hardware
    constants: Calibration = field(default_factory=calibration.current)

    def changed(self, **sections: dict[str, Any]) -> "Job":
        """The job with other values in the request's sections."""
        new = {name: getattr(self.request, name).model_copy(update=values) for name, values in sections.items()}
        return dataclasses.replace(self, request=dataclasses.replace(self.request, **new))

    @functools.cached_property
    def kept(self) -> list[int]:
        """Tokens of each training example that is not left out."""
        return self.data.kept(self.request.longest_example)

    @functools.cached_property
    def batchings(self) -> list[Batching]:
        """Every batching that the recipe leaves open: packed on a card, padded on a CPU."""
        train, limit = self.request.train, self.request.longest_example
        longest, on_gpu = self.data.longest(limit), self.hardware.kind == "cuda"
        if train.packing and on_gpu:
            return batching.packed(train, self.kept, longest=longest, max_seq_length=limit)
        most = None if on_gpu else _CPU_MICRO_BATCH
        row_length = self.request.model.max_seq_length
        return batching.padded(train, self.kept, longest=longest, max_seq_length=row_length, most=most)

    @property
    def rank(self) -> int:
        return self.request.lora.rank

    @property
    def targets(self) -> tuple[str, ...]:
        return self.request.targets(self.shape)

    @property
    def quantisation(self) -> vram.Quantisation:
        return "nf4" if self.request.model.load_in_4bit else "16bit"

    @property
    def adapted(self) -> dict[str, Any]:
        """How the model is loaded and what is trained of it, as every prediction asks for it."""
        return {"quantisation": self.quantisation, "rank": self.rank, "targets": self.targets}

    @property
    def checkpointing(self) -> vram.GradientCheckpointing:
        return _CHECKPOINTING[self.request.train.gradient_checkpointing]

    @property
    def longest_prompt(self) -> int:
        return max(self.data.prompts, default=0)

    @property
    def card(self) -> cards.Card:
        """The card, or a typical one of its size where it is not in the table."""
        known = self.hardware.card
        return cards.CARDS[known] if known else cards.typical(self.hardware.memory_bytes / GIB)

    @functools.cached_property
    def work(self) -> speed.Work:
        return speed.Work(
            sequence_length=sum(count * count for count in self.kept) / sum(self.kept) / self.request.cost.sequences,
            labelled_share=min(1.0, sum(self.data.train.supervised) / max(1, self.data.train.total)),
            extra_forwards=self.request.cost.extra_forwards,
        )

    def cpu_memory(self, chosen: Batching) -> vram.Breakdown:
        """The predicted peak resident set of a run on the CPU."""
        return ram.predict(
            self.shape,
            **self.adapted,
            precision="bf16" if self.hardware.bf16 else "fp32",
            tokens=chosen.peak_tokens,
            rows=chosen.micro * self.request.cost.sequences,
            labelled_tokens=max(1, chosen.micro * max(self.data.train.supervised, default=0)),
            gradient_checkpointing=self.checkpointing,
            prequantised=is_prequantised(self.request.model.base),
        )

    def budget(self) -> tuple[int, list[str]]:
        """Bytes of the card that the run may use, and notes for the user."""
        there_gb, wanted = self.hardware.memory_bytes / GIB, self.request.budget.vram_gb
        allowed, notes = vram.budget_bytes(min(wanted or there_gb, there_gb)), []
        if wanted and wanted > 1.02 * there_gb:
            notes.append(
                f"budget.vram_gb is {wanted:g}, but the card has {there_gb:.1f} GiB. The plan is for the card."
            )
        free = vram.usable_bytes(self.hardware.memory_bytes - self.hardware.used_bytes)
        if free < allowed:
            used = f"Other programs hold {self.hardware.used_bytes / GIB:.2f} GiB of the card"
            notes.append(f"{used}, so the budget is {free / GIB:.2f} GiB.")
        return min(allowed, free), notes

    def require_supported(self) -> None:
        """Raise SlimtuneError for settings that this model does not support on a card."""
        train, model, shape = self.request.train, self.request.model, self.shape
        problems = []
        if model.offload_embedding and shape.tied:
            what = f"{shape.name} has one matrix for embedding and head"
            problems.append(Problem(what, "model.offload_embedding", "leave it out"))
        if model.offload_layers and train.gradient_checkpointing != "unsloth":
            what = "offloaded layers need gradient checkpointing"
            problems.append(Problem(what, "train.gradient_checkpointing", "set it to unsloth"))
        for name, value, most in (
            ("model.offload_layers", model.offload_layers, shape.layers - 1),
            ("train.checkpoint_skip_layers", train.checkpoint_skip_layers, shape.layers - (model.offload_layers or 0)),
        ):
            if value is not None and value > most:
                what = f"{value} layers, but {shape.name} has {shape.layers}"
                problems.append(Problem(what, name, f"use at most {most}"))
        longest, limit = self.data.longest(self.request.longest_example), model.max_seq_length
        if train.row_length is not None and not longest <= train.row_length <= limit:
            what = (
                f"{train.row_length} tokens a row, but the longest example has {longest} and max_seq_length is {limit}"
            )
            problems.append(Problem(what, "train.row_length", f"choose a value from {longest} to {limit}"))
        if problems:
            raise SlimtuneError(problems, summary="This model does not support these settings")
