"""Predict where the card's memory goes, in bytes: a LoRA training step by term, a run by phase. Pure arithmetic.

Each term is a function that names its source in Unsloth 2026.10.9, bitsandbytes or PyTorch. A step's peak is what always
stays on the card plus the largest of the passing peaks, which never coincide.

Letters in formulas: N tokens of a micro-batch, H hidden size, I intermediate size, L layers, V vocabulary. Hq, Hk:
features of queries and of keys (heads · head_dim). P parameters of the decoder's linears, P_lora of the adapter.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from slimtune.core.errors import fail
from slimtune.core.units import GIB, MIB
from slimtune.models.families import MLP
from slimtune.models.shapes import ModelShape
from slimtune.plan import calibration

Quantisation = Literal["nf4", "16bit"]
Optimizer = Literal["adamw_8bit", "adamw_torch"]
GradientCheckpointing = Literal["unsloth", "true", "none"]

# Assumptions; the CUDA context and fragmentation are measured and live in calibration.json.
DYNAMIC_SURPLUS = 0.10  # dynamic 4-bit weights over plain ones
VISIBLE_SHARE = 0.96  # a card sold as 10 GB offers about 9.6 GiB beside driver, ECC and a desktop
RESERVE_SHARE = 0.05  # fragmentation that the prediction leaves out, and the 5 % by which it may be wrong

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # code, 8-bit absmax a block of 64, fp32 absmax a block of 256 of those
ADAM_8BIT_BYTES = 2 * (1 + 4 / 256)  # two moments, each with an fp32 absmax a block of 256
OFFLOAD_MIN_BYTES = 2 * MIB  # a checkpoint up to this size stays on the card
OFFLOAD_MIN_LENGTH = 512  # below this max_seq_length "unsloth" checkpointing becomes the ordinary one
LAYER_SLOTS = 3  # layers in host memory share as many buffers on the card: two fetched ahead and the running one
LOSS_ROWS = 4096  # token rows that the fused loss takes at once, at most
LOSS_COLUMNS = 16384  # vocabulary columns of its fp32 tile
LOSS_SMALL_CARD_BYTES = int(24.5 * GIB)  # cards up to this size always take the tiled loss

# Every term that a breakdown can name.
FORMULAS = {
    "linear weights": "0.51587·P in NF4, 2·P in 16 bit",
    "dynamic surplus": "10 % of all weights, for linears left in 16 bit",
    "layer slots": "3 layers' weights, where layers stay in the computer's memory",
    "embeddings": "2·V·H, twice where the head is a matrix of its own",
    "norms and biases": "2 bytes each",
    "LoRA weights": "4·P_lora",
    "LoRA gradients": "4·P_lora",
    "optimizer state": "2.03·P_lora for 8-bit Adam, 8·P_lora for AdamW",
    "dequantisation buffer": "2·max(in·out)",
    "checkpoint staging": "2·N·H a buffer",
    "checkpoints": "2·N·H a layer",
    "kept activations": "a layer's activations for each layer that is not recomputed, except the last",
    "RoPE tables": "4·positions·head_dim",
    "MLP backward": "2·N·(5H + 3Hq + 3Hk + 3I) + 4·N·heads + 2·H·I",
    "attention backward": "2·N·(3H + 7Hq + 5Hk) + 8·N·heads",
    "cross entropy": "4·R·16384 + 4·R·H + 8·N·H",
    "optimizer step": "4·P_lora for AdamW",
    "fragmentation": "a share of what the allocator holds",
    "CUDA context": "assumed until measured",
}

_GROWING = ("kept activations", "MLP backward", "attention backward", "cross entropy")


@dataclass(frozen=True)
class Breakdown:
    """A predicted peak in bytes, by the terms of `FORMULAS`.

    items: the largest passing peak included. passing: every passing peak, largest first. cpu_items: what a run on a card
    keeps in the computer's memory instead.
    """

    items: dict[str, int]
    passing: dict[str, int]
    cpu_items: dict[str, int]

    @property
    def total_bytes(self) -> int:
        return sum(self.items.values())


def predict(
    shape: ModelShape,
    *,
    quantisation: Quantisation = "nf4",
    rank: int,
    targets: Collection[str],
    tokens: int,
    optimizer: Optimizer = "adamw_8bit",
    gradient_checkpointing: GradientCheckpointing = "unsloth",
    checkpoint_skip_layers: int = 0,
    max_seq_length: int | None = None,
    offload_embedding: bool = False,
    double_buffer: bool = True,
    offload_layers: int = 0,
    dynamic: bool = False,
    tiled_loss: bool = True,
    context_bytes: int | None = None,
    fragmentation: float | None = None,
) -> Breakdown:
    """The peak memory of one training step, attributed.

    tokens: places of a micro-batch, padding included. checkpoint_skip_layers, offload_embedding, double_buffer,
    offload_layers: as in `LoadSettings`; Unsloth takes the second buffer only while 512 MiB are free. max_seq_length:
    decides whether checkpoints are offloaded; `tokens` where not given. dynamic: Unsloth's dynamic 4-bit weights.
    tiled_loss: see `takes_tiled_loss`. context_bytes, fragmentation: calibration.json's where not given.
    Raises SlimtuneError for numbers that describe no run.
    """
    if tokens < 1:
        raise fail(f"a micro-batch of {tokens} tokens", fix="at least one token is needed")
    if not 0 <= checkpoint_skip_layers <= shape.layers:
        what = f"cannot skip checkpointing in {checkpoint_skip_layers} layers"
        raise fail(what, fix=f"{shape.name} has {shape.layers}")
    if not 0 <= offload_layers < shape.layers:
        raise fail(f"cannot keep {offload_layers} layers off the card", fix=f"at most {shape.layers - 1}")
    if dynamic and quantisation != "nf4":
        raise fail(f"dynamic weights are 4-bit weights, not {quantisation}", fix="set dynamic only with nf4")
    lora = shape.lora_parameters(rank, targets)
    fused = fused_projections(shape, targets)
    fused_mlp = set(MLP) <= fused
    checkpointing = effective_checkpointing(gradient_checkpointing, tokens, shape.hidden_size, max_seq_length)
    kept_layers = shape.layers if checkpointing == "none" else checkpoint_skip_layers
    layer = layer_activations(shape, tokens, fused_mlp=fused_mlp, lora_on_down="down_proj" in targets)
    checkpoint = checkpoint_bytes(shape, tokens)
    checkpoints = (shape.layers - kept_layers) * checkpoint
    swapped, base = swapped_layer_bytes(shape, quantisation), linear_weights(shape, quantisation)
    embeddings = embedding_weights(shape, offloaded=offload_embedding)
    offloads = checkpointing == "unsloth"
    allocated = {
        "linear weights": base - offload_layers * swapped,
        "layer slots": min(LAYER_SLOTS, offload_layers) * swapped,
        "dynamic surplus": round(DYNAMIC_SURPLUS * (base + embeddings)) if dynamic else 0,
        "embeddings": embeddings,
        "norms and biases": 2 * (shape.norm_parameters + shape.bias_parameters),
        "LoRA weights": 4 * lora,
        "LoRA gradients": 4 * lora,
        "optimizer state": optimizer_state(lora, optimizer),
        "dequantisation buffer": dequantisation_buffer(shape, fused, quantisation),
        "checkpoint staging": (2 if double_buffer else 1) * checkpoint if offloads else 0,
        "checkpoints": checkpoints if checkpointing == "true" else 0,
        # Skipped layers are evenly spaced, the last one always among them (`skip_checkpointing` in models/_utils.py).
        # Its activations are there while the loss is computed; its own backward counts them and then frees them.
        "kept activations": max(kept_layers - 1, 0) * layer,
        "RoPE tables": rope_tables(shape),
    }
    passing = {
        "MLP backward": mlp_backward(shape, tokens, layer, quantisation, fused_mlp),
        "attention backward": attention_backward(shape, tokens),
        "cross entropy": cross_entropy(shape, tokens, tiled=tiled_loss) + (layer if kept_layers else 0),
        "optimizer step": optimizer_step(lora, optimizer),
    }
    largest = max(passing, key=passing.__getitem__)
    allocated[largest] = passing[largest]
    measured = calibration.current()
    gaps = round((measured.fragmentation if fragmentation is None else fragmentation) * sum(allocated.values()))
    context = measured.context_bytes if context_bytes is None else context_bytes
    offloaded = {
        "checkpoints": checkpoints if offloads else 0,
        "embeddings": embedding_weights(shape, offloaded=False) - embeddings,
        "layers": offload_layers * swapped,
    }
    return breakdown(allocated | {"fragmentation": gaps, "CUDA context": context}, passing, offloaded)


def breakdown(items: dict[str, int], passing: dict[str, int], cpu_items: dict[str, int]) -> Breakdown:
    """Leave out terms of no bytes and sort the passing peaks."""
    items, cpu_items = ({name: size for name, size in terms.items() if size} for terms in (items, cpu_items))
    return Breakdown(items, dict(sorted(passing.items(), key=lambda term: -term[1])), cpu_items)


def phases(
    shape: ModelShape, memory: Breakdown, *, offload_embedding: bool, scoring_tokens: int, scoring_batch: int
) -> dict[str, int]:
    """Predicted peak bytes of each phase of a run, the CUDA context included.

    load: an embedding that will live in the computer's memory is first loaded onto the card (`offload_input_embedding`
    runs after the load in `models/llama.py`). evaluate: a forward pass over `scoring_tokens`, padding included, with the
    logits of one position for each of `scoring_batch` prompts. export: merging happens in the computer's memory.
    """
    item = memory.items.get
    context, buffer, staging = item("CUDA context", 0), item("dequantisation buffer", 0), item("checkpoint staging", 0)
    loaded = weights(memory) + item("LoRA weights", 0) + context
    passed_through = 2 * shape.vocab_size * shape.hidden_size if offload_embedding and not shape.tied else 0
    # A layer without gradients is widest in the MLP. 3H: residual, normalised input, output. 3I: gate, up and their
    # product. 10·V: a prompt's logits in 16 bit, in fp32 and as log-probabilities. Derived, not measured.
    forward = 2 * scoring_tokens * (3 * shape.hidden_size + 3 * shape.intermediate_size)
    forward += loaded + buffer + item("RoPE tables", 0) + 10 * scoring_batch * shape.vocab_size
    return {
        "load": loaded + passed_through,
        "evaluate_base": forward,
        "first_step": memory.total_bytes,
        "train": memory.total_bytes,
        "evaluate_tuned": forward + item("LoRA gradients", 0) + item("optimizer state", 0) + staging,
        "export": buffer + staging + context,
    }


def weights(memory: Breakdown) -> int:
    """Bytes of the base model's weights on the card."""
    terms = ("linear weights", "layer slots", "dynamic surplus", "embeddings", "norms and biases")
    return sum(memory.items.get(name, 0) for name in terms)


def growing(memory: Breakdown) -> int:
    """Bytes that grow with the tokens of a micro-batch and are derived from what kernels hold: the least certain ones."""
    return sum(memory.items.get(name, 0) for name in _GROWING)


def comparable(memory: Breakdown) -> dict[str, int]:
    """The predictions that a run on a card can measure, under the names of the measurements."""
    item = memory.items.get
    context = item("CUDA context", 0)
    reserved = memory.total_bytes - context
    return {
        "weights": weights(memory),
        "LoRA weights": item("LoRA weights", 0),
        "optimizer state": item("optimizer state", 0),
        "peak allocated": reserved - item("fragmentation", 0),
        "peak reserved": reserved,
        "CUDA context": context,
        "peak on the card": memory.total_bytes,
    }


def linear_weights(shape: ModelShape, quantisation: Quantisation) -> int:
    """The decoder's linears as loaded. nf4: 0.51587·P with double quantisation, plus each linear's code book (16 and 256
    fp32 values) and offset (`models/llama.py from_pretrained`; bitsandbytes `QuantState`). 16bit: 2·P."""
    if quantisation == "nf4":
        linears = shape.layers * len(shape.projections)
        return round(NF4_BYTES * shape.linear_parameters) + linears * 4 * (16 + 256 + 1)
    return 2 * shape.linear_parameters


def swapped_layer_bytes(shape: ModelShape, quantisation: Quantisation) -> int:
    """One layer's frozen linears, without the scales, which stay on the card (unsloth_zoo/block_swap.py)."""
    return round((0.5 if quantisation == "nf4" else 2) * shape.linear_parameters_per_layer)


def embedding_weights(shape: ModelShape, *, offloaded: bool) -> int:
    """Embedding and head in 16 bit: 2·V·H, twice where untied; never quantised (`SKIP_QUANTIZATION_MODULES`).
    offloaded: the input embedding lives in the computer's memory; a tied one cannot, the head needs it on the card."""
    matrix = 2 * shape.vocab_size * shape.hidden_size
    return matrix if shape.tied or offloaded else 2 * matrix


def optimizer_state(lora_parameters: int, optimizer: Optimizer) -> int:
    """Adam's two moments: 8-bit blockwise ≈ 2.03·P_lora (bitsandbytes), in fp32 8·P_lora (torch)."""
    return round((ADAM_8BIT_BYTES if optimizer == "adamw_8bit" else 8) * lora_parameters)


def optimizer_step(lora_parameters: int, optimizer: Optimizer) -> int:
    """What passes during the step: torch's multi-tensor AdamW holds one more fp32 copy, 4·P_lora; 8-bit none."""
    return 0 if optimizer == "adamw_8bit" else 4 * lora_parameters


def fused_projections(shape: ModelShape, targets: Collection[str]) -> frozenset[str]:
    """The linears whose LoRA runs in Unsloth's own backward: o_proj, and the MLP and q, k, v where all three have an
    adapter and no bias (`patch_peft_model` in models/llama.py)."""
    groups = [{"o_proj"}, set(MLP)] + ([] if shape.qkv_bias else [{"q_proj", "k_proj", "v_proj"}])
    return frozenset().union(*(group for group in groups if group <= set(targets)))


def dequantisation_buffer(shape: ModelShape, fused: Collection[str], quantisation: Quantisation) -> int:
    """2·max(in·out) over the fused linears: the 16-bit scratch that is grown once and kept (`kernels/utils.py`)."""
    sizes = [math.prod(shape.projections[name]) for name in fused]
    return 2 * max(sizes, default=0) if quantisation == "nf4" else 0


def effective_checkpointing(
    wanted: GradientCheckpointing, tokens: int, hidden_size: int, max_seq_length: int | None
) -> GradientCheckpointing:
    """What "unsloth" checkpointing turns into: "true" below max_seq_length 512 (`models/_utils.py`) and for checkpoints
    of up to 2 MiB (`gradient_checkpointing.py`, MINIMUM_SIZE)."""
    too_short = (tokens if max_seq_length is None else max_seq_length) < OFFLOAD_MIN_LENGTH
    too_small = 2 * tokens * hidden_size <= OFFLOAD_MIN_BYTES
    return "true" if wanted == "unsloth" and (too_short or too_small) else wanted


def checkpoint_bytes(shape: ModelShape, tokens: int) -> int:
    """One layer's saved input, and one staging buffer: 2·N·H (`UnslothCheckpointFunction`)."""
    return 2 * tokens * shape.hidden_size


def layer_activations(shape: ModelShape, tokens: int, *, fused_mlp: bool, lora_on_down: bool = False) -> int:
    """What one decoder layer saves for its backward: 2·N·(4H + 3Hq + 3Hk + 2I) + 4·N·heads.

    4H: input, both normalised inputs, the residual between. 3Hq, 3Hk: queries, keys before and after QK-norm,
    attention output and values; two each without QK-norm. 2I: gate and up (`fast_lora.LoRA_MLP`). 4·heads: the
    attention's log-sum-exp in fp32. An MLP outside the fused path also saves the activated gate, and its product
    with up where down_proj has an adapter (PyTorch's own backward; not measured).
    """
    copies = 3 if shape.qk_norm else 2
    inner = 2 if fused_mlp else 3 + lora_on_down
    features = 4 * shape.hidden_size + copies * (shape.query_size + shape.kv_size) + inner * shape.intermediate_size
    return 2 * tokens * features + 4 * tokens * shape.heads


def mlp_backward(shape: ModelShape, tokens: int, layer: int, quantisation: Quantisation, fused_mlp: bool) -> int:
    """The MLP's backward within a recomputed layer: 2·N·(5H + 3Hq + 3Hk + 3I) + 4·N·heads + scratch.

    Beside the layer's activations: the incoming gradient (H), that of the inner product (I) and the dequantised weight,
    2·H·I (`fast_lora.LoRA_MLP.backward`). PyTorch's own backward holds three inner gradients (not measured).
    """
    scratch = 0 if quantisation == "16bit" else 2 * shape.hidden_size * shape.intermediate_size
    gradients = shape.hidden_size + (1 if fused_mlp else 3) * shape.intermediate_size
    return layer + 2 * tokens * gradients + scratch


def attention_backward(shape: ModelShape, tokens: int) -> int:
    """The attention kernel's backward: 2·N·(3H + 7Hq + 5Hk) + 8·N·heads; without QK-norm 6Hq and 4Hk.

    The MLP is done: input, normalised input and residual gradient (3H), the attention's saved tensors, the gradients
    of its output, q, k and v, and FlashAttention-2's fp32 accumulator for q (2Hq). Derived, not measured.
    """
    copies = 3 if shape.qk_norm else 2
    features = 3 * shape.hidden_size + (copies + 4) * shape.query_size + (copies + 2) * shape.kv_size
    return 2 * tokens * features + 8 * tokens * shape.heads


def cross_entropy(shape: ModelShape, tokens: int, *, tiled: bool = True) -> int:
    """The fused head and loss: fp32 logits + 4·R·H + 8·N·H (`fused_losses/fused_linear.py`).

    tiled (see `takes_tiled_loss`): R = min(N, 4096) rows and a logits tile of 16,384 columns, at most 256 MiB.
    Otherwise, and for vocabularies of no more than two tiles, the logits have all V columns, and R is the power of
    two at or below N·H/V, but at least 512·151,936/V and 512, at most 4,096 and 2 GiB of logits.
    All tokens are taken as labelled, the upper bound.
    """
    hidden, vocabulary = shape.hidden_size, shape.vocab_size
    if tiled and vocabulary > 2 * LOSS_COLUMNS:
        rows, columns = min(tokens, LOSS_ROWS), LOSS_COLUMNS
    else:
        least = max(_power_of_two_below(512 * 151936 // vocabulary), 512)
        rows = max(_power_of_two_below(tokens * hidden // vocabulary), least)
        rows, columns = min(rows, LOSS_ROWS, tokens, 2 * GIB // (4 * vocabulary)), vocabulary
    return 4 * rows * columns + 4 * rows * hidden + 8 * tokens * hidden


def takes_tiled_loss(card_bytes: int, compute_capability: tuple[int, int], tokens: int) -> bool:
    """Whether the loss runs tile by tile: Ampere or newer, and a card of at most 24.5 GiB or 4,096 labelled tokens
    (`_flash_ce_ok` and `_flash_min_rows` in `fused_losses/fused_linear.py`)."""
    return compute_capability >= (8, 0) and (card_bytes <= LOSS_SMALL_CARD_BYTES or tokens >= LOSS_ROWS)


def _power_of_two_below(number: int) -> int:
    return 2 ** (max(number, 1).bit_length() - 1)


def rope_tables(shape: ModelShape) -> int:
    """Cosine and sine in 16 bit for every position (`LlamaModel_fast_forward`): 4·max_position_embeddings·head_dim."""
    return 4 * shape.max_position_embeddings * shape.head_dim


def visible_bytes(vram_gb: float) -> int:
    """What a card sold with `vram_gb` GB really offers a process: 10 GB -> about 9.6 GiB."""
    return round(VISIBLE_SHARE * vram_gb * GIB)


def usable_bytes(free_bytes: int) -> int:
    """What a plan may use of free memory: all but `RESERVE_SHARE` of it."""
    return round((1 - RESERVE_SHARE) * free_bytes)


def budget_bytes(vram_gb: float) -> int:
    """What a plan may use of a card sold with `vram_gb` GB. 10 GB -> 9.12 GiB."""
    return usable_bytes(visible_bytes(vram_gb))
