"""Tiny models for tests and for the built-in checkpoint: real Qwen2 and Qwen3 architectures, on disk as any other."""

from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from scripts.builtin import tokenizer as builtin_tokenizer

Family = Literal["qwen2", "qwen3"]


def new_model(
    tokenizer: Tokenizer,
    *,
    family: Family,
    tied: bool,
    hidden_size: int = 128,
    layers: int = 2,
    heads: int = 4,
    key_value_heads: int = 2,
    intermediate_size: int = 256,
    seed: int = 0,
) -> PreTrainedModel:
    """A float32 model with random weights for `tokenizer`; the same seed gives the same weights.

    family: "qwen2" (bias on the query, key and value projections) or "qwen3" (RMS norm on queries and keys instead).
    tied: whether the output projection is the embedding matrix.
    hidden_size, intermediate_size: multiples of 64, the block of NF4 quantisation on a CPU.
    Raises ValueError for sizes that do not divide.
    """
    if hidden_size % 64 or intermediate_size % 64 or hidden_size % heads:
        raise ValueError(
            f"hidden {hidden_size} and intermediate {intermediate_size} must be multiples of 64 and {heads}"
        )
    shape: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "intermediate_size": intermediate_size,
        "max_position_embeddings": builtin_tokenizer.MAX_LENGTH,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "pad_token_id": tokenizer.token_to_id("<|endoftext|>"),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "qwen2":
            return Qwen2ForCausalLM(Qwen2Config(**shape))
        return Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=hidden_size // heads))


def save(
    model: PreTrainedModel, tokenizer: Tokenizer, out_dir: Path, *, chat_template: str, dtype: torch.dtype
) -> Path:
    """Writes the weights (safetensors, in `dtype`), configuration, tokenizer and template; returns `out_dir`."""
    end, pad = (tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>"))
    model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad)
    torch.nn.Module.to(model, dtype)  # Transformers' own `to` is wrapped in a way that type checkers cannot read
    model.save_pretrained(out_dir)
    builtin_tokenizer.save(tokenizer, out_dir, chat_template=chat_template)
    return out_dir


def build_random_model(
    out_dir: Path,
    *,
    family: Family,
    tied: bool,
    chat_template: str,
    hidden_size: int = 128,
    layers: int = 2,
    heads: int = 4,
    key_value_heads: int = 2,
    intermediate_size: int = 256,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """A checkpoint with random weights in `out_dir`, for tests; see `new_model` for the sizes. Returns `out_dir`."""
    tokenizer = builtin_tokenizer.train()
    model = new_model(
        tokenizer,
        family=family,
        tied=tied,
        hidden_size=hidden_size,
        layers=layers,
        heads=heads,
        key_value_heads=key_value_heads,
        intermediate_size=intermediate_size,
        seed=seed,
    )
    return save(model, tokenizer, Path(out_dir), chat_template=chat_template, dtype=dtype)
