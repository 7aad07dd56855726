"""Recipe + lengths + model shape + hardware → the job that the search runs, and the budget that it has to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.units import GIB
from slimtune.models import cards, families
from slimtune.models.hardware import Hardware
from slimtune.models.shapes import ModelShape, is_dynamic, is_prequantised
from slimtune.plan import batching, search, speed
from slimtune.plan.calibration import Calibration
from slimtune.plan.lengths import Lengths
from slimtune.plan.memory import ram, vram
from slimtune.recipe.schema import Recipe

_CPU_MICRO_BATCH = 8
_CHECKPOINTING: dict[str | bool, vram.GradientCheckpointing] = {"unsloth": "unsloth", True: "true", False: "none"}


@dataclass(frozen=True)
class Data:
    """What a plan has to know of the data: lengths in tokens.

    train: of the training examples. held_out: of those for the evaluation loss, or None. prompts: of the questions.
    """

    train: Lengths
    held_out: Lengths | None = None
    prompts: Sequence[int] = ()

    def kept(self, limit: int) -> list[int]:
        """The training examples that are short enough; one of the limit's length where none is."""
        return [count for count in self.train.tokens if count <= limit] or [limit]

    def longest(self, limit: int) -> int:
        """Of everything that passes through the model, as far as it is not left out."""
        held_out = self.held_out.tokens if self.held_out else ()
        return max(count for count in (*self.kept(limit), *held_out) if count <= limit)


def targets(recipe: Recipe, shape: ModelShape) -> tuple[str, ...]:
    """The linears that get an adapter: a preset of the model's family, or those that are named."""
    wanted = recipe.lora.target
    return families.get(shape.family).lora_targets[wanted] if isinstance(wanted, str) else tuple(wanted)


def batchings(recipe: Recipe, data: Data, *, on_gpu: bool) -> list[batching.Batching]:
    """Every batching that the recipe leaves open: packed on a card, padded on a CPU."""
    train, limit = recipe.train, recipe.model.max_seq_length
    kept, longest = data.kept(limit), data.longest(limit)
    if train.packing and on_gpu:
        return batching.packed(
            kept,
            longest=longest,
            max_seq_length=limit,
            effective_batch_size=train.effective_batch_size,
            row_length=train.row_length,
            micro=train.per_device_train_batch_size,
            accumulation=train.gradient_accumulation_steps,
        )
    return batching.padded(
        kept,
        longest=longest,
        max_seq_length=limit,
        effective_batch_size=train.effective_batch_size,
        on_gpu=on_gpu,
        most_cpu=_CPU_MICRO_BATCH,
        micro=train.per_device_train_batch_size,
        accumulation=train.gradient_accumulation_steps,
    )


def build(recipe: Recipe, data: Data, shape: ModelShape, hardware: Hardware, calibration: Calibration) -> search.Job:
    """The job for a card. Raises SlimtuneError for knobs that this model or this recipe cannot have."""
    _check_knobs(recipe, data, shape)
    train, limit = recipe.train, recipe.model.max_seq_length
    kept = data.kept(limit)
    return search.Job(
        shape=shape,
        quantisation="nf4" if recipe.model.load_in_4bit else "16bit",
        rank=recipe.lora.rank,
        targets=targets(recipe, shape),
        optimizer=train.optim,
        checkpointing=_CHECKPOINTING[train.gradient_checkpointing],
        max_seq_length=limit,
        dynamic=is_dynamic(recipe.model.base) and recipe.model.load_in_4bit,
        batchings=tuple(batchings(recipe, data, on_gpu=True)),
        longest_prompt=max(data.prompts, default=0),
        card=card_of(hardware),
        card_bytes=hardware.memory_bytes,
        compute_capability=hardware.compute_capability or (8, 0),
        work=speed.Work(
            sequence_length=sum(count * count for count in kept) / sum(kept),
            labelled_share=min(1.0, sum(data.train.supervised) / max(1, data.train.total)),
        ),
        calibration=calibration,
        fixed=search.Knobs(
            skip_layers=train.checkpoint_skip_layers,
            offload_embedding=recipe.model.offload_embedding,
            double_buffer=train.double_buffer,
            offload_layers=recipe.model.offload_layers,
        ),
    )


def cpu_memory(
    recipe: Recipe, data: Data, shape: ModelShape, hardware: Hardware, chosen: batching.Batching
) -> vram.Breakdown:
    """The predicted peak resident set of a run on the CPU."""
    responses = max(data.train.supervised, default=0)
    return ram.predict(
        shape,
        quantisation="nf4" if recipe.model.load_in_4bit else "16bit",
        precision="bf16" if hardware.bf16 else "fp32",
        rank=recipe.lora.rank,
        targets=targets(recipe, shape),
        tokens=chosen.peak_tokens,
        rows=chosen.micro,
        labelled_tokens=max(1, chosen.micro * responses),
        gradient_checkpointing=_CHECKPOINTING[recipe.train.gradient_checkpointing],
        prequantised=is_prequantised(recipe.model.base),
    )


def card_of(hardware: Hardware) -> cards.Card:
    """The table's card, or for one that is not in it, a usual card of that size."""
    return cards.CARDS[hardware.card] if hardware.card else cards.typical(hardware.memory_bytes / GIB)


def budget(recipe: Recipe, hardware: Hardware) -> tuple[int, list[str]]:
    """Bytes that the run may use of the card, and what is to be said about it."""
    there_gb = hardware.memory_bytes / GIB
    wanted = recipe.budget.vram_gb
    allowed, notes = vram.budget_bytes(min(wanted or there_gb, there_gb)), []
    if wanted and wanted > 1.02 * there_gb:
        notes.append(f"budget.vram_gb is {wanted:g}, but the card has {there_gb:.1f} GiB: planned for those.")
    free = vram.usable_bytes(hardware.memory_bytes - hardware.used_bytes)
    if free < allowed:
        used = hardware.used_bytes / GIB
        notes.append(f"Other programs hold {used:.2f} GiB of the card: the budget is {free / GIB:.2f} GiB.")
    return min(allowed, free), notes


def _check_knobs(recipe: Recipe, data: Data, shape: ModelShape) -> None:
    train, model = recipe.train, recipe.model
    problems = []
    if model.offload_embedding and shape.tied:
        problems.append(
            Problem(f"{shape.name} has one matrix for embedding and head", "model.offload_embedding", "leave it out")
        )
    if model.offload_layers and train.gradient_checkpointing != "unsloth":
        problems.append(Problem("layers off the card need it", "train.gradient_checkpointing", "set it to unsloth"))
    for name, value, most in (
        ("model.offload_layers", model.offload_layers, shape.layers - 1),
        ("train.checkpoint_skip_layers", train.checkpoint_skip_layers, shape.layers - (model.offload_layers or 0)),
    ):
        if value is not None and value > most:
            problems.append(Problem(f"{value} layers, but {shape.name} has {shape.layers}", name, f"at most {most}"))
    longest = data.longest(model.max_seq_length)
    if train.row_length is not None and not longest <= train.row_length <= model.max_seq_length:
        problems.append(
            Problem(
                f"{train.row_length} tokens a row, but the longest example has {longest} and max_seq_length is "
                f"{model.max_seq_length}",
                "train.row_length",
                f"from {longest} to {model.max_seq_length}",
            )
        )
    if problems:
        raise SlimtuneError(problems, summary="The recipe asks for what this model cannot do")
