"""Make a frozen Plan from a request, lengths, a model's shape and the hardware, each value with its reason.

No torch and no weights: `slimtune plan` ends here. The trainer's effective settings are compared with this plan.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

from slimtune.core.errors import DOES_NOT_FIT, Problem, SlimtuneError, fail
from slimtune.core.units import GIB
from slimtune.models.hardware import Hardware, cpu_threads, precision
from slimtune.models.settings import LoadSettings
from slimtune.models.shapes import ModelShape
from slimtune.plan import search, speed
from slimtune.plan.batching import Batching, Schedule, schedule
from slimtune.plan.explain import advice
from slimtune.plan.explain import reasons as explain
from slimtune.plan.memory import ram, vram
from slimtune.plan.request import Data, Job, PlanRequest

_CPU_SCORING_BATCH = 16

# Settings of the recipe's sections that a plan takes over unchanged, under the same name.
_FROM_MODEL = {"base", "revision", "load_in_4bit", "max_seq_length", "thinking"}
_FROM_TRAIN = {"method", "gradient_checkpointing", "epochs", "max_steps", "learning_rate", "lr_scheduler_type"}
_FROM_TRAIN |= {"weight_decay", "max_grad_norm", "save_total_limit"}


@dataclass(frozen=True)
class Plan(LoadSettings):
    """What the machine will do. Lengths are tokens, sizes are bytes, intervals are optimizer steps.

    Up to `reasons` the fields are settings, each with its reason; after it come predictions. micro_batch_tokens: places
    of the largest micro-batch. memory: a training step's peak by term; phases: peaks by phase; predicted: what the run
    will measure. margin_bytes: by which the peak may be larger, see `Calibration.activation_margin`; none on a CPU.
    least_bytes: what the run would need if speed did not matter. least_bytes, longest_context and estimate are None on
    a CPU.
    """

    base: str
    revision: str | None
    thinking: bool
    method: str
    packing: bool
    row_length: int
    per_device_train_batch_size: int
    per_device_eval_batch_size: int
    gradient_accumulation_steps: int
    micro_batch_tokens: int
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
    report_to: tuple[str, ...]
    reasons: dict[str, str]
    memory: vram.Breakdown
    phases: dict[str, int]
    predicted: dict[str, int]
    budget_bytes: int
    margin_bytes: int = 0
    least_bytes: int | None = None
    longest_context: int | None = None
    estimate: speed.Estimate | None = None
    notes: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The plain settings, without reasons and predictions."""
        names = [item.name for item in fields(self)]
        return {name: getattr(self, name) for name in names[: names.index("reasons")]}

    @property
    def peak_bytes(self) -> int:
        """The largest predicted peak of all phases."""
        return max(self.phases.values())

    @property
    def upper_bytes(self) -> int:
        """The upper end of the range in which the peak is expected. The plan fits with it."""
        return self.peak_bytes + self.margin_bytes

    def as_json(self) -> dict[str, Any]:
        """The content of plan.json."""
        settings = {}
        for name, value in self.settings.items():
            plain = list(value) if isinstance(value, tuple) else value
            settings[name] = {"value": plain, "reason": self.reasons.get(name, "recipe")}
        memory = {
            "items": self.memory.items,
            "total_bytes": self.memory.total_bytes,
            "passing": self.memory.passing,
            "computer_items": self.memory.cpu_items,
            "phases": self.phases,
            "peak_bytes": self.peak_bytes,
            "upper_bytes": self.upper_bytes,
            "budget_bytes": self.budget_bytes,
            "left_bytes": self.budget_bytes - self.upper_bytes,
            "least_bytes": self.least_bytes,
            "longest_context": self.longest_context,
        }
        estimate = self.estimate.as_json() if self.estimate else None
        return {"settings": settings, "memory": memory, "estimate": estimate, "notes": list(self.notes)}


def make(request: PlanRequest, data: Data, shape: ModelShape, hardware: Hardware) -> Plan:
    """Raises SlimtuneError where examples are longer than the model or the recipe allows, or (exit code 3) where no plan
    fits the memory budget."""
    request.require_possible(shape)
    _check_length(request, data)
    job = Job(request, data, shape, hardware)
    packs = request.cost.packs or not request.train.packing
    if not packs:
        job = job.changed(train={"packing": False})
    train = request.train
    reasons: dict[str, str] = {}
    notes: list[str] = []
    batching, chosen = (_on_card if hardware.kind == "cuda" else _on_cpu)(job, reasons, notes)
    if not packs:
        reasons["packing"] = f"{train.method} trains on padded batches"
    reasons["device"] = hardware.name
    number_format, reasons["precision"] = precision(hardware)
    if not data.train.exact:
        notes.append("The model's tokenizer is not on this machine yet. Lengths are estimated from characters.")
    return Plan(
        **request.model.model_dump(include=_FROM_MODEL),
        **train.model_dump(include=_FROM_TRAIN),
        **chosen,
        device=hardware.kind,
        precision=number_format,
        lora_dropout=request.lora.dropout,
        lora_targets=job.targets,
        row_length=batching.row_length,
        per_device_train_batch_size=batching.micro,
        per_device_eval_batch_size=batching.micro,
        gradient_accumulation_steps=batching.accumulation,
        micro_batch_tokens=batching.peak_tokens,
        early_stopping_patience=train.early_stopping_patience if data.held_out else None,
        seed=request.seed,
        report_to=request.report_to,
        reasons=reasons,
        notes=tuple(notes),
    )


def _on_card(job: Job, reasons: dict[str, str], notes: list[str]) -> tuple[Batching, dict[str, Any]]:
    """The batching, and the values of the plan's fields that depend on the kind of machine."""
    job.require_supported()
    train, lora = job.request.train, job.request.lora
    budget, budget_notes = job.budget()
    choice = search.best(job, budget, last_resorts=job.request.budget.last_resorts)
    if choice is None:
        raise advice.does_not_fit(job, budget)

    steps = schedule(train, choice.batching, reasons, held_out=job.data.held_out is not None)
    reasons.update(explain.choice(job, choice, budget))
    reasons["memory_limit_bytes"] = "limit of the allocator: the budget minus the CUDA context"
    notes += budget_notes + explain.notes(job, choice)
    return choice.batching, {
        **vars(steps),
        **vars(choice.knobs),
        "packing": train.packing,
        "optim": train.optim,
        "lora_rank": choice.job.rank,
        # The adapter's scale, alpha / rank, stays where the rank had to go down.
        "lora_alpha": max(1, lora.alpha * choice.job.rank // lora.rank),
        "scoring_batch_size": choice.scoring_batch,
        "cpu_threads": None,
        "memory_limit_bytes": budget - job.constants.context_bytes,
        "memory": choice.memory,
        "phases": choice.phases,
        "predicted": vram.comparable(choice.memory),
        "budget_bytes": budget,
        "margin_bytes": choice.margin_bytes,
        "least_bytes": min(search.smallest(job).required_bytes, choice.required_bytes),
        "longest_context": search.longest_context(job, budget),
        "estimate": _estimate(job, choice, steps),
    }


def _on_cpu(job: Job, reasons: dict[str, str], notes: list[str]) -> tuple[Batching, dict[str, Any]]:
    """The same for a run without a card."""
    request, shape, batching = job.request, job.shape, job.batchings[0]
    memory = job.cpu_memory(batching)
    budget = vram.usable_bytes(job.hardware.memory_bytes)
    if memory.total_bytes > budget:
        raise fail(
            f"{shape.name} does not fit into this computer: it needs {memory.total_bytes / GIB:.2f} GiB (predicted), and "
            f"{budget / GIB:.2f} GiB are available",
            where="model.base",
            fix="use a smaller model, or train.per_device_train_batch_size=1",
            exit_code=DOES_NOT_FIT,
        )
    steps = schedule(request.train, batching, reasons, held_out=job.data.held_out is not None)
    reasons.update(explain.on_cpu(job, batching))
    if request.train.optim == "adamw_8bit":
        notes.append("On a CPU: torch's AdamW instead of 8-bit Adam.")
    if request.train.packing:
        notes.append("On a CPU: padded batches instead of packing.")
    if request.model.load_in_4bit:
        # `SFTTrainer.__init__` of TRL 1.15 casts it; Unsloth takes that out of the trainer that it generates for CUDA.
        notes.append("On a CPU: the adapter of a 4-bit model trains in bfloat16, on a card in float32.")
    threads = cpu_threads(shape.total_parameters, job.hardware.cores)
    small = "a model this small gains nothing from a second thread"
    reasons["cpu_threads"] = small if threads == 1 else "every core"
    return batching, {
        **vars(steps),
        **vars(search.Knobs(double_buffer=False)),
        "packing": False,
        "optim": "adamw_torch_fused",
        "lora_rank": request.lora.rank,
        "lora_alpha": request.lora.alpha,
        "scoring_batch_size": _CPU_SCORING_BATCH,
        "cpu_threads": threads,
        "memory_limit_bytes": None,
        "memory": memory,
        "phases": ram.phases(memory),
        "predicted": ram.comparable(memory),
        "budget_bytes": budget,
    }


def _estimate(job: Job, choice: search.Choice, steps: Schedule) -> speed.Estimate:
    """The time of training, of the evaluation losses, and of both rounds of questions."""
    request, data = job.request, job.data
    micro_batches = steps.total_steps * choice.batching.accumulation
    if request.train.max_steps is None:
        micro_batches = min(micro_batches, math.ceil(choice.batching.micro_batches * request.train.epochs))
    held_out = data.held_out.total if data.held_out else 0
    passes = 1 + request.cost.extra_forwards
    evaluation = speed.forward_seconds(
        job.shape,
        job.card,
        job.constants,
        tokens=steps.evaluations * held_out * passes + 2 * sum(data.prompts),
        batches=steps.evaluations * math.ceil(held_out / choice.batching.peak_tokens)
        + 2 * math.ceil(len(data.prompts) / choice.scoring_batch),
        quantisation=job.quantisation,
    )
    efficiency, source = job.constants.efficiency_of(job.card.key)
    train_seconds = micro_batches * choice.micro_batch_seconds
    price = request.budget.price_per_hour
    return speed.Estimate(
        tokens_per_second=choice.tokens_per_second,
        micro_batch_seconds=choice.micro_batch_seconds,
        train_seconds=train_seconds,
        evaluation_seconds=evaluation,
        efficiency=efficiency,
        source=source,
        cost=None if price is None else price * (train_seconds + evaluation) / 3600,
    )


def _check_length(request: PlanRequest, data: Data) -> None:
    limit, problems = request.model.max_seq_length, []
    for name, lengths, share in (
        ("examples", data.train, request.max_overlong),
        ("held-out examples", data.held_out, 1.0),
    ):
        if lengths is None or not lengths.exact:
            continue
        overlong = sum(count > request.longest_example for count in lengths.tokens)
        left, longest = len(lengths.tokens) - overlong, math.ceil(lengths.longest / request.cost.sequences)
        if overlong > math.floor(share * len(lengths.tokens)) or not left:
            what = f"{overlong} of {len(lengths.tokens)} {name} are longer than max_seq_length {limit} (longest: {longest} tokens)"
            what += ". Truncation would cut off their answers." if left else ", and none is left"
            fix = f"set model.max_seq_length={longest}"
            if left:
                # Rounded up to a hundredth, so that it is enough.
                least = math.ceil(100 * overlong / len(lengths.tokens)) / 100
                fix += f", or data.max_overlong={least:g} to leave such examples out"
            problems.append(Problem(what, "model.max_seq_length", fix))
    if problems:
        raise SlimtuneError(problems)
