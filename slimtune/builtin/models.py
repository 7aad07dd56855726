"""Tiny random models, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from slimtune.builtin import tokenizer


def build_random_model(
    out_dir: Path,
    *,
    family: Literal["qwen2", "qwen3"],
    tied: bool,
    chat_template: str,
    hidden_size: int = 128,
    layers: int = 2,
    seed: int = 0,
) -> Path:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    tokenizer.save(tokenizer.train(), out_dir, chat_template=chat_template)
    shape = {
        "vocab_size": 2048, "hidden_size": hidden_size, "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 8192, "tie_word_embeddings": tied, "bos_token_id": None,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(Qwen3Config(head_dim=32, **shape)) if family == "qwen3" else Qwen2ForCausalLM(Qwen2Config(**shape))
    model.to(torch.bfloat16).save_pretrained(out_dir)
    return out_dir
