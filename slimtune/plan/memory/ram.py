"""Where the memory of a LoRA training run on a CPU goes, in bytes: the peak of the process's resident set. No torch.

Terms are derived from the source of Unsloth's CPU backend (unsloth_zoo/cpu of 2026.10.9), Transformers 5.17, PEFT 0.21.2,
TRL 1.15 and bitsandbytes 0.50.2. `benchmarks/cpu_memory.py` compares them with measurements. Letters as in `vram`; b: bytes
of a number in the run's precision (2 in bf16, 4 in fp32), a: in the adapter's.
"""

import math
from collections.abc import Collection
from typing import Literal

from slimtune.core.errors import fail
from slimtune.core.units import MIB
from slimtune.models.shapes import ModelShape
from slimtune.plan import calibration
from slimtune.plan.memory.vram import Breakdown, GradientCheckpointing, Quantisation, breakdown

Precision = Literal["bf16", "fp32"]

RUNTIME = "Python and libraries"

# What a CPU run's breakdown can name.
FORMULAS = {
    RUNTIME: "calibrated (benchmarks/cpu_memory.py)",
    "linear weights": "0.51587·P in NF4, b·P otherwise",
    "checkpoint file": "2·P: the 16-bit weights that NF4 was made from stay mapped, in bf16",
    "embeddings": "b·V·H, twice where the head is a matrix of its own",
    "norms and biases": "b each",
    "LoRA weights": "a·P_lora",
    "LoRA gradients": "a·P_lora",
    "LoRA in 16 bit": "2·P_lora, in bf16 on 16-bit weights",
    "optimizer state": "2a·P_lora and 4 bytes a matrix",
    "kept activations": "what every layer saves for its backward",
    "checkpoints": "b·N·H a layer",
    "recomputed layer": "what one layer saves for its backward",
    "backward": "the larger of 20·N·H and N·(3b·I + 2b·H) + b·H·I",
    "logits and loss": "10 bytes for each of 16,777,216 logits, 6 where one piece holds them all",
    "heap gaps": "calibrated, as a multiple of the tensors below 1 MiB that all layers save",
}

LOSS_PIECE = 16 * MIB  # logits that the loss takes at once
MAPPED_FROM = MIB  # tensors from here on are mapped apart and given back when freed (`memory.map_large_tensors`)

_WEIGHTS = ("linear weights", "embeddings", "norms and biases")
_NF4_BLOCK, _NF4_SCALE_BLOCK = 64, 256


def predict(
    shape: ModelShape,
    *,
    quantisation: Quantisation = "nf4",
    precision: Precision = "bf16",
    rank: int,
    targets: Collection[str],
    tokens: int,
    rows: int = 1,
    labelled_tokens: int | None = None,
    gradient_checkpointing: GradientCheckpointing = "unsloth",
    prequantised: bool = False,
    runtime_bytes: int | None = None,
    heap_gaps: float | None = None,
) -> Breakdown:
    """The peak resident set of a training run with AdamW, attributed; loading included, export not.

    tokens: places of the largest micro-batch, padding included, in `rows` rows. labelled_tokens: None for all.
    prequantised: the checkpoint holds NF4. runtime_bytes, heap_gaps: calibration.json's where not given.
    Raises SlimtuneError for numbers that describe no run.
    """
    if tokens < 1 or not 1 <= rows <= tokens:
        raise fail(f"a micro-batch of {tokens} tokens in {rows} rows", fix="at least one token in each row is needed")
    measured = calibration.current()
    gaps = measured.heap_gaps if heap_gaps is None else heap_gaps
    number = _bytes_of(precision)
    lora = shape.lora_parameters(rank, targets)
    adapter = adapter_bytes(lora, quantisation)
    layer = layer_tensors(
        shape, quantisation, precision, rank=rank, targets=targets, tokens=tokens, length=math.ceil(tokens / rows)
    )
    labelled = tokens if labelled_tokens is None else min(labelled_tokens, tokens)
    recomputed = gradient_checkpointing != "none"
    quantised_here = quantisation == "nf4" and not prequantised

    resident = {
        RUNTIME: measured.runtime_bytes if runtime_bytes is None else runtime_bytes,
        "linear weights": linear_weights(shape, quantisation, precision),
        # bf16 weights are used where the file lies in memory, so the file stays mapped as a whole.
        "checkpoint file": 2 * shape.linear_parameters if quantised_here and precision == "bf16" else 0,
        "embeddings": number * shape.embedding_parameters,
        "norms and biases": number * (shape.norm_parameters + shape.bias_parameters),
        "LoRA weights": adapter,
        "LoRA gradients": adapter,
        # Autocast keeps what it has cast until the end of the pass.
        "LoRA in 16 bit": 2 * lora if quantisation == "16bit" and precision == "bf16" else 0,
        "optimizer state": optimizer_state(shape, rank, targets, quantisation),
        "kept activations": 0 if recomputed else shape.layers * sum(layer),
        "checkpoints": shape.layers * number * tokens * shape.hidden_size if recomputed else 0,
    }
    last_layer = sum(layer) if recomputed else 0
    passing = {
        "backward": last_layer + backward(shape, precision, tokens),
        "logits and loss": logits_and_loss(shape, precision, labelled),
    }
    largest = max(passing, key=passing.__getitem__)
    resident[largest] = passing[largest]
    if recomputed and largest == "backward":
        resident |= {"recomputed layer": last_layer, "backward": passing["backward"] - last_layer}
    resident["heap gaps"] = round(gaps * heap_tensors(shape, layer, recomputed=recomputed))
    return breakdown(resident, passing, {})


def phases(memory: Breakdown) -> dict[str, int]:
    """Predicted peak bytes of each phase of a run."""
    loaded = sum(memory.items.get(name, 0) for name in (RUNTIME, *_WEIGHTS, "checkpoint file", "LoRA weights"))
    return {"load": loaded, "first_step": memory.total_bytes, "train": memory.total_bytes}


def comparable(memory: Breakdown) -> dict[str, int]:
    """The predictions that a CPU run can measure, under the names of the measurements."""
    item = memory.items.get
    return {
        "weights": sum(item(name, 0) for name in _WEIGHTS),
        "LoRA weights": item("LoRA weights", 0),
        "optimizer state": item("optimizer state", 0),
        "peak resident set": memory.total_bytes,
    }


def linear_weights(shape: ModelShape, quantisation: Quantisation, precision: Precision) -> int:
    """The decoder's linears as loaded, to the byte. 16bit: in the run's precision.

    nf4: half a byte a weight; an 8-bit scale for each 64; an fp32 scale for each 256 of those; for each matrix a code
    book of 16 fp32 values, a table of 256 for the 8-bit scales, and an fp32 offset (bitsandbytes `QuantState`).
    """
    if quantisation == "16bit":
        return _bytes_of(precision) * shape.linear_parameters
    matrices = [inputs * outputs for inputs, outputs in shape.projections.values()] * shape.layers
    blocks = [math.ceil(size / _NF4_BLOCK) for size in matrices]
    scales = sum(blocks) + 4 * sum(math.ceil(count / _NF4_SCALE_BLOCK) for count in blocks)
    return sum(math.ceil(size / 2) for size in matrices) + scales + len(matrices) * 4 * (16 + 256 + 1)


def adapter_bytes(lora_parameters: int, quantisation: Quantisation) -> int:
    """The adapter's weights, or its gradients: 2·P_lora on 4-bit weights, since TRL turns the adapter of a quantised model
    into bf16 (`SFTTrainer.__init__`); 4·P_lora otherwise (PEFT's autocast_adapter_dtype)."""
    return (2 if quantisation == "nf4" else 4) * lora_parameters


def optimizer_state(shape: ModelShape, rank: int, targets: Collection[str], quantisation: Quantisation) -> int:
    """Fused AdamW's two moments in the adapter's number format, and an fp32 step count for each of its matrices."""
    matrices = 2 * shape.layers * len(set(targets))
    return 2 * adapter_bytes(shape.lora_parameters(rank, targets), quantisation) + 4 * matrices


def layer_tensors(
    shape: ModelShape,
    quantisation: Quantisation,
    precision: Precision,
    *,
    rank: int,
    targets: Collection[str],
    tokens: int,
    length: int,
) -> list[int]:
    """The bytes of each tensor that one decoder layer saves for its backward (modeling_qwen3.py, PEFT's lora layers).

    length: of a row, for SDPA's mask, because of which keys and values are repeated for every query head.
    """
    number, adapter = _bytes_of(precision), adapter_bytes(1, quantisation)
    per_token = [4 * shape.hidden_size] * 2 + [4, 4]  # both norms' inputs in fp32, and their 1/√mean
    if shape.qk_norm:
        per_token += [4 * shape.query_size, 4 * shape.kv_size, 4 * shape.heads, 4 * shape.kv_heads]
    # SDPA: query, keys, values and output, log-sum-exp, mask. MLP: gate, activated gate and up.
    per_token += [number * shape.query_size] * 4 + [4 * shape.heads, number * length]
    per_token += [number * shape.intermediate_size] * 3
    per_token += _adapter_inputs(shape, targets, number, adapter)
    per_token += [min(number, adapter) * rank] * len(set(targets))  # the output of each adapter's A
    return [tokens * size for size in per_token]


def _adapter_inputs(shape: ModelShape, targets: Collection[str], number: int, adapter: int) -> list[int]:
    """Bytes a token of the inputs that a layer's adapters save. In the adapter's number format that is once for all that
    read it, and SDPA saves o_proj's anyway; otherwise each saves a 16-bit copy (`_cast_input_dtype`, autocast)."""
    if number != adapter:
        return [2 * shape.projections[name][0] for name in sorted(set(targets))]
    inputs = [shape.hidden_size] if {"q_proj", "k_proj", "v_proj"} & set(targets) else []
    inputs += [shape.hidden_size] if {"gate_proj", "up_proj"} & set(targets) else []
    inputs += [shape.intermediate_size] if "down_proj" in targets else []
    return [number * size for size in inputs]


def backward(shape: ModelShape, precision: Precision, tokens: int) -> int:
    """What passes while the backward runs: the final norm's five fp32 copies, or the MLP's gradients.

    20·N·H: `Qwen3RMSNorm`, differentiated step by step. N·(3b·I + 2b·H) + b·H·I: the gradients of the product from the
    linear and from its adapter and their sum, those of the layer's output, and the dequantised weight
    (`MatMul4Bit.backward` of bitsandbytes).
    """
    number, hidden, inner = _bytes_of(precision), shape.hidden_size, shape.intermediate_size
    return max(20 * tokens * hidden, tokens * number * (3 * inner + 2 * hidden) + number * hidden * inner)


def logits_and_loss(shape: ModelShape, precision: Precision, labelled_tokens: int) -> int:
    """Head and cross entropy of the labelled tokens, in pieces of 16,777,216 logits, at least 16 rows
    (`chunked_linear_cross_entropy` in unsloth_zoo/cpu/ops.py).

    A piece holds its logits in fp32, in a bf16 run also in bf16. From the second piece on the fp32 logits of the piece
    before are still there. Beside them the hidden states and their gradient.
    """
    piece = min(labelled_tokens, max(16, LOSS_PIECE // shape.vocab_size))
    logit = 4 + (2 if precision == "bf16" else 0) + (4 if labelled_tokens > piece else 0)
    return piece * shape.vocab_size * logit + 2 * _bytes_of(precision) * labelled_tokens * shape.hidden_size


def heap_tensors(shape: ModelShape, layer: Collection[int], *, recomputed: bool) -> int:
    """What the heap gaps are a multiple of: the tensors below 1 MiB that all layers save.

    Freed tensors leave holes between those that stay. glibc's `memalign`, which PyTorch calls, asks for a little more than
    a tensor's size, so a hole of exactly that size is not used again. Layers that are recomputed have left their holes in
    the forward pass already; recomputing them leaves about two layers' more (measured).
    """
    in_heap = sum(tensor for tensor in layer if tensor < MAPPED_FROM)
    return (shape.layers + (2 if recomputed else 0)) * in_heap


def _bytes_of(precision: Precision) -> int:
    return 2 if precision == "bf16" else 4
