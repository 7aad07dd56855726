"""Build the job for the search, and its budget, from request, lengths, model shape and hardware."""

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.units import GIB
from slimtune.models import cards
from slimtune.models.hardware import Hardware
from slimtune.models.shapes import ModelShape, is_dynamic, is_prequantised
from slimtune.plan import batching, search, speed
from slimtune.plan.calibration import Calibration
from slimtune.plan.memory import ram, vram
from slimtune.plan.request import Data, PlanRequest

_CPU_MICRO_BATCH = 8
_CHECKPOINTING: dict[str | bool, vram.GradientCheckpointing] = {"unsloth": "unsloth", True: "true", False: "none"}


def batchings(request: PlanRequest, data: Data, *, on_gpu: bool) -> list[batching.Batching]:
    """Every batching that the recipe leaves open: packed on a card, padded on a CPU."""
    train, limit = request.train, request.longest_example
    kept, longest = data.kept(limit), data.longest(limit)
    if train.packing and on_gpu:
        return batching.packed(train, kept, longest=longest, max_seq_length=limit)
    most = None if on_gpu else _CPU_MICRO_BATCH
    return batching.padded(train, kept, longest=longest, max_seq_length=request.model.max_seq_length, most=most)


def build(
    request: PlanRequest, data: Data, shape: ModelShape, hardware: Hardware, calibration: Calibration
) -> search.Job:
    """The job for a card. Raises SlimtuneError for settings that this model does not support."""
    _check_knobs(request, data, shape)
    train, cost = request.train, request.cost
    kept = data.kept(request.longest_example)
    return search.Job(
        shape=shape,
        quantisation="nf4" if request.model.load_in_4bit else "16bit",
        rank=request.lora.rank,
        targets=request.targets(shape),
        optimizer=train.optim,
        checkpointing=_CHECKPOINTING[train.gradient_checkpointing],
        max_seq_length=request.model.max_seq_length,
        dynamic=is_dynamic(request.model.base) and request.model.load_in_4bit,
        batchings=tuple(batchings(request, data, on_gpu=True)),
        longest_prompt=max(data.prompts, default=0),
        # A card that is not in the table counts as a typical one of its size.
        card=cards.CARDS[hardware.card] if hardware.card else cards.typical(hardware.memory_bytes / GIB),
        card_bytes=hardware.memory_bytes,
        compute_capability=hardware.compute_capability or (8, 0),
        work=speed.Work(
            sequence_length=sum(count * count for count in kept) / sum(kept) / cost.sequences,
            labelled_share=min(1.0, sum(data.train.supervised) / max(1, data.train.total)),
            extra_forwards=cost.extra_forwards,
        ),
        calibration=calibration,
        fixed=search.Knobs(
            skip_layers=train.checkpoint_skip_layers,
            offload_embedding=request.model.offload_embedding,
            double_buffer=train.double_buffer,
            offload_layers=request.model.offload_layers,
        ),
    )


def cpu_memory(
    request: PlanRequest, data: Data, shape: ModelShape, hardware: Hardware, chosen: batching.Batching
) -> vram.Breakdown:
    """The predicted peak resident set of a run on the CPU."""
    responses = max(data.train.supervised, default=0)
    return ram.predict(
        shape,
        quantisation="nf4" if request.model.load_in_4bit else "16bit",
        precision="bf16" if hardware.bf16 else "fp32",
        rank=request.lora.rank,
        targets=request.targets(shape),
        tokens=chosen.peak_tokens,
        rows=chosen.micro * request.cost.sequences,
        labelled_tokens=max(1, chosen.micro * responses),
        gradient_checkpointing=_CHECKPOINTING[request.train.gradient_checkpointing],
        prequantised=is_prequantised(request.model.base),
    )


def budget(request: PlanRequest, hardware: Hardware) -> tuple[int, list[str]]:
    """Bytes of the card that the run may use, and notes for the user."""
    there_gb = hardware.memory_bytes / GIB
    wanted = request.budget.vram_gb
    allowed, notes = vram.budget_bytes(min(wanted or there_gb, there_gb)), []
    if wanted and wanted > 1.02 * there_gb:
        notes.append(f"budget.vram_gb is {wanted:g}, but the card has {there_gb:.1f} GiB. The plan is for the card.")
    free = vram.usable_bytes(hardware.memory_bytes - hardware.used_bytes)
    if free < allowed:
        used = hardware.used_bytes / GIB
        notes.append(f"Other programs hold {used:.2f} GiB of the card, so the budget is {free / GIB:.2f} GiB.")
    return min(allowed, free), notes


def _check_knobs(request: PlanRequest, data: Data, shape: ModelShape) -> None:
    train, model = request.train, request.model
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
            problems.append(Problem(f"{value} layers, but {shape.name} has {shape.layers}", name, f"at most {most}"))
    longest = data.longest(request.longest_example)
    if train.row_length is not None and not longest <= train.row_length <= model.max_seq_length:
        what = f"{train.row_length} tokens a row, but the longest example has {longest} and max_seq_length is "
        what += f"{model.max_seq_length}"
        problems.append(Problem(what, "train.row_length", f"from {longest} to {model.max_seq_length}"))
    if problems:
        raise SlimtuneError(problems, summary="This model does not support these settings")
