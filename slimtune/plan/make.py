"""Recipe + lengths + model shape + hardware → a frozen Plan, each value with its reason.

No torch and no weights: `--dry-run` ends here. What the machine cannot do is decided here too, once, so that
nothing differs silently later: the trainer's effective settings are compared with this plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from slimtune.errors import DOES_NOT_FIT, fail
from slimtune.plan import vram
from slimtune.plan.hardware import Hardware
from slimtune.plan.lengths import Lengths, packed_rows
from slimtune.plan.models import TARGETS, ModelShape, is_dynamic
from slimtune.recipe import Recipe

_CPU_MICRO_BATCH = 8
_GPU_PADDED_TOKENS = 4096
_ROW_MULTIPLE = 64
_EVALUATIONS_PER_RUN = 8
_EVERY_STEP_UP_TO = 200
_SMALL_MODEL = 50_000_000


@dataclass(frozen=True)
class Plan:
    """What the machine will do. Lengths are tokens, sizes are bytes, intervals are optimizer steps."""

    device: str
    precision: str
    cpu_threads: int | None
    base: str
    revision: str | None
    load_in_4bit: bool
    max_seq_length: int
    thinking: bool
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    lora_targets: tuple[str, ...]
    gradient_checkpointing: str | bool
    packing: bool
    row_length: int
    per_device_train_batch_size: int
    per_device_eval_batch_size: int
    gradient_accumulation_steps: int
    epochs: float
    max_steps: int | None
    total_steps: int
    optim: str
    learning_rate: float
    lr_scheduler_type: str
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    logging_steps: int
    eval_steps: int | None
    save_steps: int
    save_total_limit: int
    early_stopping_patience: int | None
    scoring_batch_size: int
    seed: int
    report_to: tuple[str, ...]
    reasons: dict[str, str] = field(default_factory=dict)
    memory: vram.Breakdown | None = None
    budget_bytes: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The plain settings, without reasons and memory."""
        apart = {"reasons", "memory", "budget_bytes", "notes"}
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in apart}

    def as_json(self) -> dict[str, Any]:
        """The content of plan.json."""
        settings = {
            name: {
                "value": list(value) if isinstance(value, tuple) else value,
                "reason": self.reasons.get(name, "recipe"),
            }
            for name, value in self.settings.items()
        }
        memory = None
        if self.memory is not None:
            items = {name: int(size) for name, size in self.memory.items.items()}
            memory = {"items": items, "total_bytes": self.memory.total_bytes, "budget_bytes": self.budget_bytes}
        return {"settings": settings, "memory": memory, "notes": list(self.notes)}


def make(recipe: Recipe, lengths: Lengths, shape: ModelShape, hardware: Hardware) -> Plan:
    """Plan a run.

    Raises SlimtuneError where examples are longer than the model or the recipe allows, or (exit code 3) where no
    plan fits the memory budget.
    """
    reasons: dict[str, str] = {}
    notes: list[str] = []
    train = recipe.train
    on_gpu = hardware.kind == "cuda"
    _check_length(recipe, lengths, shape)

    targets = TARGETS[recipe.lora.target] if isinstance(recipe.lora.target, str) else tuple(recipe.lora.target)
    precision = _precision(hardware, reasons)
    optim: str = train.optim
    if not on_gpu:
        optim = "adamw_torch_fused"
        reasons["optim"] = "8-bit Adam needs a GPU; torch's fused AdamW on a CPU"
        if train.optim == "adamw_8bit":
            notes.append("On a CPU: AdamW in 32 bit instead of 8-bit Adam.")
    threads = None
    if not on_gpu:
        threads = 1 if shape.total_parameters < _SMALL_MODEL else hardware.cores
        small = "a model this small waits longer for a second thread than it gains"
        reasons["cpu_threads"] = small if threads == 1 else "every core"
    checkpointing: str | bool = train.gradient_checkpointing
    if checkpointing == "unsloth":
        where = "activations of each layer go to CPU memory" if on_gpu else "ordinary checkpointing on a CPU"
        reasons["gradient_checkpointing"] = where

    packing = train.packing and on_gpu
    if train.packing and not on_gpu:
        reasons["packing"] = "Unsloth's CPU backend cannot keep packed examples apart"
        notes.append("On a CPU: padded batches instead of packing.")
    if packing:
        row_length, micro, accumulation, rows = _packed(recipe, lengths, reasons)
    else:
        row_length = recipe.model.max_seq_length
        micro, accumulation, rows = _padded(recipe, lengths, on_gpu, reasons)

    steps_per_epoch = max(1, math.ceil(math.ceil(rows / micro) / accumulation))
    total_steps = math.ceil(steps_per_epoch * train.epochs)
    reasons["total_steps"] = f"{rows} rows, {micro} × {accumulation} a step, {train.epochs:g} epochs"
    if train.max_steps is not None:
        total_steps = train.max_steps
        reasons["total_steps"] = "recipe's max_steps"

    eval_steps = None
    if recipe.data.eval is not None:
        eval_steps = train.eval_steps or max(1, math.ceil(total_steps / _EVALUATIONS_PER_RUN))
        reasons["eval_steps"] = (
            "recipe" if train.eval_steps else f"about {_EVALUATIONS_PER_RUN} evaluations in {total_steps} steps"
        )
    # The best checkpoint can only be found again where one was saved, so saving follows evaluation.
    save_steps = eval_steps or train.save_steps or max(1, math.ceil(total_steps / 2))
    if eval_steps and train.save_steps:
        save_steps = eval_steps * max(1, round(train.save_steps / eval_steps))
    reasons["save_steps"] = (
        "with every evaluation, so that the best can be kept" if eval_steps else "half-way and at the end"
    )
    logging_steps = train.logging_steps or max(1, total_steps // _EVERY_STEP_UP_TO)
    reasons["logging_steps"] = (
        "recipe" if train.logging_steps else f"{total_steps // logging_steps} points on the curve"
    )
    reasons["warmup_steps"] = f"{train.warmup_ratio:.0%} of {total_steps} steps, rounded up"

    reasons["device"] = hardware.name
    if on_gpu:
        reasons["cpu_threads"] = "left to torch; the work is on the card"
    reasons["scoring_batch_size"] = "prompts of similar length share a batch"
    if not packing:
        reasons["row_length"] = "longest example allowed; nothing is cut"
    if eval_steps is None:
        reasons["eval_steps"] = "the recipe names no held-out data"

    micro_tokens = micro * (row_length if packing else min(lengths.longest, row_length))
    reasons["per_device_eval_batch_size"] = "as in training"
    memory, budget = _memory(recipe, shape, hardware, targets, optim, micro_tokens)
    if budget is not None and memory is not None and memory.total_bytes > budget:
        raise fail(
            f"does not fit: {memory.total_bytes / 2**30:.2f} GiB predicted, {budget / 2**30:.2f} GiB in the budget",
            where="budget.vram_gb",
            fix="use a smaller base model, a shorter model.max_seq_length, or train.per_device_train_batch_size: 1",
            exit_code=DOES_NOT_FIT,
        )
    if not lengths.exact:
        notes.append("The model's tokenizer is not on this machine yet: lengths are estimated from characters.")

    return Plan(
        device=hardware.kind,
        precision=precision,
        cpu_threads=threads,
        base=recipe.model.base,
        revision=recipe.model.revision,
        load_in_4bit=recipe.model.load_in_4bit,
        max_seq_length=recipe.model.max_seq_length,
        thinking=recipe.model.thinking,
        lora_rank=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        lora_targets=targets,
        gradient_checkpointing=checkpointing,
        packing=packing,
        row_length=row_length,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        epochs=train.epochs,
        max_steps=train.max_steps,
        total_steps=total_steps,
        optim=optim,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=math.ceil(total_steps * train.warmup_ratio),
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        logging_steps=logging_steps,
        eval_steps=eval_steps,
        save_steps=save_steps,
        save_total_limit=train.save_total_limit,
        early_stopping_patience=train.early_stopping_patience if recipe.wants_early_stopping else None,
        scoring_batch_size=16 if not on_gpu else 8,
        seed=recipe.run.seed,
        report_to=tuple(recipe.run.report_to),
        reasons=reasons,
        memory=memory,
        budget_bytes=budget,
        notes=tuple(notes),
    )


def _check_length(recipe: Recipe, lengths: Lengths, shape: ModelShape) -> None:
    limit = recipe.model.max_seq_length
    if limit > shape.max_position_embeddings:
        raise fail(
            f"max_seq_length {limit} is more than the {shape.max_position_embeddings} positions of {shape.name}",
            where="model.max_seq_length",
            fix=f"set it to {shape.max_position_embeddings} or less",
        )
    overlong = sum(count > limit for count in lengths.tokens)
    allowed = math.floor(recipe.data.max_overlong * len(lengths.tokens))
    if lengths.exact and overlong > allowed:
        raise fail(
            f"{overlong} of {len(lengths.tokens)} examples are longer than max_seq_length {limit} "
            f"(longest: {lengths.longest} tokens); cutting them would cut their answers off",
            where="model.max_seq_length",
            fix=f"set model.max_seq_length={lengths.longest}, or data.max_overlong to leave such examples out",
        )


def _precision(hardware: Hardware, reasons: dict[str, str]) -> str:
    if hardware.bf16:
        reasons["precision"] = f"{hardware.name} computes in bfloat16"
        return "bf16"
    if hardware.kind == "cuda":
        reasons["precision"] = f"{hardware.name} has no bfloat16 (before Ampere)"
        return "fp16"
    reasons["precision"] = "this processor has no bfloat16 instructions"
    return "fp32"


def _packed(recipe: Recipe, lengths: Lengths, reasons: dict[str, str]) -> tuple[int, int, int, int]:
    """Row length, rows per micro-batch, accumulation and number of rows, keeping the effective batch in examples."""
    train = recipe.train
    kept = [count for count in lengths.tokens if count <= recipe.model.max_seq_length] or [recipe.model.max_seq_length]
    wanted = train.effective_batch_size * sum(kept) / len(kept)
    row_length = min(max(wanted, max(kept)), recipe.model.max_seq_length)
    row_length = min(math.ceil(row_length / _ROW_MULTIPLE) * _ROW_MULTIPLE, recipe.model.max_seq_length)
    reasons["row_length"] = f"{train.effective_batch_size} examples hold about {wanted:,.0f} tokens"
    micro = train.per_device_train_batch_size or 1
    reasons["per_device_train_batch_size"] = "recipe" if train.per_device_train_batch_size else "one packed row"
    rows = packed_rows(kept, row_length)
    examples_per_row = len(kept) / rows
    accumulation = train.gradient_accumulation_steps or max(
        1, round(train.effective_batch_size / (micro * examples_per_row))
    )
    reasons["gradient_accumulation_steps"] = (
        f"{examples_per_row:.1f} examples a row × {micro} × {accumulation} ≈ {train.effective_batch_size} a step"
    )
    filled = sum(kept) / (rows * row_length)
    reasons["packing"] = f"{rows} rows of {row_length} tokens, {filled:.0%} full"
    return row_length, micro, accumulation, rows


def _padded(recipe: Recipe, lengths: Lengths, on_gpu: bool, reasons: dict[str, str]) -> tuple[int, int, int]:
    """Examples per micro-batch, accumulation and number of rows of padded batches."""
    train = recipe.train
    rows = sum(count <= recipe.model.max_seq_length for count in lengths.tokens)
    most = max(1, _GPU_PADDED_TOKENS // lengths.longest) if on_gpu else _CPU_MICRO_BATCH
    if train.per_device_train_batch_size:
        micro = train.per_device_train_batch_size
        reasons["per_device_train_batch_size"] = "recipe"
    else:
        divisors = [n for n in range(1, most + 1) if train.effective_batch_size % n == 0]
        micro = max(divisors)
        reasons["per_device_train_batch_size"] = f"largest divisor of {train.effective_batch_size} up to {most}"
    accumulation = train.gradient_accumulation_steps or max(1, round(train.effective_batch_size / micro))
    reasons["gradient_accumulation_steps"] = f"{micro} × {accumulation} = {micro * accumulation} examples a step"
    return micro, accumulation, max(rows, 1)


def _memory(
    recipe: Recipe, shape: ModelShape, hardware: Hardware, targets: tuple[str, ...], optim: str, micro_tokens: int
) -> tuple[vram.Breakdown | None, int | None]:
    """Predicted bytes and the budget; (None, None) on a CPU, whose memory model differs."""
    if hardware.kind != "cuda":
        return None, None
    budget_gb = recipe.budget.vram_gb
    budget = vram.budget_bytes(budget_gb) if budget_gb else hardware.memory_bytes
    wanted = recipe.train.gradient_checkpointing
    checkpointing: vram.GradientCheckpointing = "unsloth" if wanted == "unsloth" else "true" if wanted else "none"
    breakdown = vram.predict(
        shape,
        quantisation="nf4" if recipe.model.load_in_4bit else "16bit",
        rank=recipe.lora.rank,
        targets=targets,
        tokens=micro_tokens,
        optimizer="adamw_8bit" if optim == "adamw_8bit" else "adamw_torch",
        gradient_checkpointing=checkpointing,
        max_seq_length=recipe.model.max_seq_length,
        tiled_loss=vram.takes_tiled_loss(hardware.memory_bytes, hardware.compute_capability or (8, 0), micro_tokens),
        dynamic=is_dynamic(recipe.model.base),
    )
    return breakdown, budget
