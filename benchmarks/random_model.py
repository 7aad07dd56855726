"""A model folder with random weights in NF4, stored as a pre-quantised hub repository stores them.

Where nothing can be downloaded, this stands for `unsloth/Qwen3-8B-bnb-4bit`: the same shapes, types and files, so memory
and speed are those of the real model. What it says is noise. One decoder layer is drawn and quantised, and serves as
every layer; the standard deviation of 0.02 keeps activations as sane as a fresh model's.

    python -m benchmarks.random_model FOLDER Qwen3-8B Qwen3-4B      # FOLDER/Qwen3-8B-bnb-4bit, …
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slimtune.models import backend  # before torch: Unsloth patches what follows

import torch  # isort: skip
from bitsandbytes.functional import quantize_4bit  # isort: skip
from safetensors.torch import save_file  # isort: skip

from benchmarks.acceptance_cases import shape_of
from scripts.builtin import tokenizer as builtin_tokenizer
from slimtune.models import files as base_model
from slimtune.models.families import ATTENTION
from slimtune.models.shapes import ModelShape

STANDARD_DEVIATION = 0.02  # `initializer_range` of Qwen's configurations
SHARD_BYTES = 2 * 10**9

# By family: Transformers' model type and class, and the chat template as Unsloth names it.
_WRITTEN_AS = {
    "qwen2.5": ("qwen2", "Qwen2ForCausalLM", "qwen2.5"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM", "qwen3"),
    "llama": ("llama", "LlamaForCausalLM", "qwen2.5"),
}

Tensors = dict[str, torch.Tensor]


def build(shape: ModelShape, folder: Path, *, device: str = "cpu", seed: int = 0) -> Path:
    """Write the model, its tokenizer and template into `folder`; a complete folder from before is kept as it is.

    device: where the values are drawn and quantised. Sizes must be multiples of 64, the block of NF4.
    The tokenizer is the built-in one whatever the size of the vocabulary, so most of the embedding is never looked up.
    Needs about one shard of the computer's memory.
    """
    if (folder / "config.json").is_file() and base_model.has_weights(folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    template = backend.chat_template(_WRITTEN_AS[shape.family][2])
    tokenizer = builtin_tokenizer.train()
    builtin_tokenizer.save(tokenizer, folder, chat_template=template)
    _write_shards(_tensors(shape, torch.Generator(device).manual_seed(seed)), folder)
    content = config(shape, end=tokenizer.token_to_id("<|im_end|>"), pad=tokenizer.token_to_id("<|endoftext|>"))
    # Last: a folder with a config.json is complete.
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return folder


def quantised(weight: torch.Tensor) -> Tensors:
    """A linear's weight, (out, in), as bitsandbytes stores it: NF4 in blocks of 64, their scales quantised once more.

    Returns the tensors by the names that follow "….weight" in a checkpoint: "", ".absmax", ".quant_map", ….
    """
    packed, state = quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    return {"": packed} | {f".{name}": tensor for name, tensor in state.as_dict(packed=True).items()}


def _tensors(shape: ModelShape, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the checkpoint by name, on the CPU; decoder layers one after the other."""

    def normal(*size: int) -> torch.Tensor:
        drawn = torch.empty(size, dtype=torch.bfloat16, device=generator.device)
        return drawn.normal_(0, STANDARD_DEVIATION, generator=generator)

    yield "model.embed_tokens.weight", normal(shape.vocab_size, shape.hidden_size).cpu()
    if not shape.tied:
        yield "lm_head.weight", normal(shape.vocab_size, shape.hidden_size).cpu()
    yield "model.norm.weight", torch.ones(shape.hidden_size, dtype=torch.bfloat16)

    layer: Tensors = {}
    for name, (inputs, outputs) in shape.projections.items():
        module = f"self_attn.{name}" if name in ATTENTION else f"mlp.{name}"
        for part, tensor in quantised(normal(outputs, inputs)).items():
            layer[f"{module}.weight{part}"] = tensor.cpu()
        if shape.qkv_bias and name in ("q_proj", "k_proj", "v_proj"):
            layer[f"{module}.bias"] = normal(outputs).cpu()
    norms = {"input_layernorm": shape.hidden_size, "post_attention_layernorm": shape.hidden_size}
    if shape.qk_norm:
        norms |= {"self_attn.q_norm": shape.head_dim, "self_attn.k_norm": shape.head_dim}
    layer |= {f"{name}.weight": torch.ones(size, dtype=torch.bfloat16) for name, size in norms.items()}
    for index in range(shape.layers):
        # A copy: safetensors refuses to store one tensor under two names.
        yield from ((f"model.layers.{index}.{name}", tensor.clone()) for name, tensor in layer.items())


def _write_shards(tensors: Iterator[tuple[str, torch.Tensor]], folder: Path) -> None:
    """Shards of at most `SHARD_BYTES` (or one tensor), and the index that says where each tensor is."""
    places: dict[str, str] = {}
    total = 0
    shard: Tensors = {}

    def write() -> None:
        file = f"model-{len(set(places.values())) + 1:05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, file))
        shard.clear()

    for name, tensor in tensors:
        if shard and sum(held.nbytes for held in shard.values()) + tensor.nbytes > SHARD_BYTES:
            write()
        shard[name] = tensor
        total += tensor.nbytes
    write()
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def config(shape: ModelShape, *, end: int | None = None, pad: int | None = None) -> dict[str, Any]:
    """config.json as a hub repository of that family has it, with bitsandbytes' quantization_config.

    end, pad: ids of those control tokens.
    """
    model_type, architecture, _ = _WRITTEN_AS[shape.family]
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "attention_bias": shape.qkv_bias and model_type != "qwen2",
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": pad,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": STANDARD_DEVIATION,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": shape.vocab_size,
        "quantization_config": {
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "llm_int8_enable_fp32_cpu_offload": False,
            "llm_int8_has_fp16_weight": False,
            "llm_int8_skip_modules": None,
            "llm_int8_threshold": 6.0,
            "load_in_4bit": True,
            "load_in_8bit": False,
            "quant_method": "bitsandbytes",
        },
    }


def folder_of(name: str, parent: Path) -> Path:
    """Where the script puts a model: the name that its hub repository has."""
    return parent / f"{name}-bnb-4bit"


def main(arguments: list[str]) -> None:
    parent, *names = arguments
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in names:
        print(build(shape_of(name), folder_of(name, Path(parent)), device=device), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
