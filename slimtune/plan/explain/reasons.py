"""The reason of each value in a plan."""

from slimtune.core.units import GIB, MIB, plural
from slimtune.plan.batching import Batching, compare_packing
from slimtune.plan.memory import vram
from slimtune.plan.request import Job
from slimtune.plan.search import Choice


def choice(job: Job, chosen: Choice, budget_bytes: int) -> dict[str, str]:
    """The reason of every value that the search chose, by the plan's names."""
    train, model, batching, knobs = job.request.train, job.request.model, chosen.batching, chosen.knobs
    reasons = {
        "cpu_threads": "torch decides; the card does the work",
        "scoring_batch_size": "together no more tokens than a micro-batch",
        "per_device_eval_batch_size": "as in training",
        **(_packed(job, batching) if train.packing else _padded(job, batching)),
    }
    if not train.packing and batching.micro > 1:
        reasons["packing"] = f"recipe; packed rows would compute {batching.filled:.0%} of the tokens"
    rate = f"{chosen.tokens_per_second:,.0f} tokens/s predicted"
    reasons["micro_batch_tokens"] = f"{rate}, the fastest choice below {budget_bytes / GIB:.2f} GiB"

    where = {
        "unsloth": "the input of each layer goes to CPU memory",
        "true": "recomputed from inputs on the card, which are too small to move",
        "none": "nothing is recomputed",
    }
    reasons["gradient_checkpointing"] = where[chosen.checkpointing]
    reasons["checkpoint_skip_layers"] = _skipped(job, chosen, budget_bytes)
    reasons["offload_embedding"] = _embedding(job, chosen)
    staging = vram.checkpoint_bytes(job.shape, batching.peak_tokens) / MIB
    if chosen.checkpointing != "unsloth":
        reasons["double_buffer"] = "nothing is staged"
    elif knobs.double_buffer:
        reasons["double_buffer"] = f"a second buffer of {staging:.0f} MiB hides the copying"
    else:
        reasons["double_buffer"] = f"one buffer saves {staging:.0f} MiB at {batching.peak_tokens:,} tokens"
    if train.double_buffer is not None:
        reasons["double_buffer"] += " (recipe)"
    swapped = f"{vram.swapped_layer_bytes(job.shape, job.quantisation) / MIB:.0f} MiB each"
    reasons["offload_layers"] = "every layer's weights are on the card"
    if knobs.offload_layers:
        last = f"last resort: {swapped}, copied to the card twice per micro-batch"
        reasons["offload_layers"] = last if model.offload_layers is None else f"recipe; {swapped}"
    if chosen.job.rank != job.rank:
        reasons["lora_rank"] = f"last resort: rank {job.rank} does not fit"
        reasons["lora_alpha"] = "lowered with the rank, to keep the scale"
    return reasons


def notes(job: Job, chosen: Choice) -> list[str]:
    """What you should know before you start."""
    told, name, layers, rank = [], job.hardware.name, chosen.knobs.offload_layers, chosen.job.rank
    if job.hardware.card is None:
        told.append(f"{name} is not in the table of cards. The predicted speed is that of a {job.card.name}.")
    if layers and job.request.model.offload_layers is None:
        told.append(f"Last resort: {layers} of {job.shape.layers} layers stay in the computer's memory.")
    if rank != job.rank:
        told.append(f"Last resort: LoRA rank {rank} instead of {job.rank}. The adapter can learn less.")
    return told


def on_cpu(job: Job, batching: Batching) -> dict[str, str]:
    """The reasons of a plan for a CPU."""
    reasons = {
        "optim": "8-bit Adam needs a GPU; a CPU uses torch's fused AdamW",
        "scoring_batch_size": "prompts of similar length share a batch",
        "per_device_eval_batch_size": "as in training",
        "offload_embedding": "the whole model is in the computer's memory",
        "offload_layers": "the whole model is in the computer's memory",
        "checkpoint_skip_layers": "Unsloth's CPU backend has no such setting",
        "double_buffer": "nothing is staged on a CPU",
        "micro_batch_tokens": f"{batching.micro} examples of the longest length",
        "memory_limit_bytes": "a CPU run has no allocator to cap",
        **_padded(job, batching),
    }
    if job.request.train.packing:
        reasons["packing"] = "Unsloth's CPU backend cannot keep packed examples apart"
    if job.request.train.gradient_checkpointing == "unsloth":
        reasons["gradient_checkpointing"] = "ordinary checkpointing on a CPU"
    return reasons


def _packed(job: Job, batching: Batching) -> dict[str, str]:
    train, per_row, micro, times = job.request.train, batching.examples_per_row, batching.micro, batching.accumulation
    effective = train.effective_batch_size
    tokens = effective * sum(job.kept) / len(job.kept)
    length = f"{effective} examples hold about {tokens:,.0f} tokens, in {plural(micro * times, 'row')}"
    rows = f"{plural(micro, 'row')} a micro-batch"
    padded_instead = job.changed(train={"packing": False}).batchings[0].micro
    return {
        "row_length": "recipe" if train.row_length else length,
        "per_device_train_batch_size": "recipe" if train.per_device_train_batch_size else rows,
        "gradient_accumulation_steps": f"{per_row:.1f} examples a row × {micro} × {times} ≈ {effective} a step",
        "packing": str(compare_packing(job.kept, batching.row_length, padded_instead)),
    }


def _padded(job: Job, batching: Batching) -> dict[str, str]:
    train, micro, times = job.request.train, batching.micro, batching.accumulation
    chosen = f"divides {train.effective_batch_size}; {batching.filled:.0%} of the places hold a token"
    return {
        "row_length": "longest example allowed; nothing is cut",
        "per_device_train_batch_size": "recipe" if train.per_device_train_batch_size else chosen,
        "gradient_accumulation_steps": f"{micro} × {times} = {micro * times} examples a step",
    }


def _skipped(job: Job, chosen: Choice, budget_bytes: int) -> str:
    if job.request.train.checkpoint_skip_layers is not None:
        return "recipe"
    if job.checkpointing == "none":
        return "nothing is recomputed anyway"
    layer = vram.layer_activations(
        job.shape,
        chosen.batching.peak_tokens,
        fused_mlp=set(vram.MLP) <= vram.fused_projections(job.shape, job.targets),
        lora_on_down="down_proj" in job.targets,
    )
    size = f"{layer / MIB:.0f} MiB"
    skipped = chosen.knobs.checkpoint_skip_layers
    if skipped == 0:
        return (
            f"keeping a layer's activations takes {size}; {(budget_bytes - chosen.required_bytes) / MIB:.0f} MiB left"
        )
    saved = skipped / job.shape.layers / 3
    return f"these layers keep their activations, {size} each: {saved:.0%} less arithmetic"


def _embedding(job: Job, chosen: Choice) -> str:
    size = vram.embedding_weights(job.shape, offloaded=True) / GIB
    if job.shape.tied:
        return "the head uses the same matrix on the card"
    if job.request.model.offload_embedding is not None:
        return "recipe"
    if chosen.knobs.offload_embedding:
        return f"{size:.2f} GiB go to CPU memory, of which a step looks up a few rows"
    return f"fits without; would free {size:.2f} GiB"
