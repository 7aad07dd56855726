"""A model family that the package does not know: its row, a random model of it, and its chat template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slimtune.data import text
from slimtune.models import builtin, families
from slimtune.models.families import Family, Turns

END, END_OF_TEXT = "[END]", "[EOT]"
ROW = Family(
    name="toy",
    title="Toy",
    model_types=("mistral",),
    named=r"toy-\d",
    turns=Turns("toy", "[", "]", END, (END, END_OF_TEXT)),
    trains=True,
    controls=("[user]", "[assistant]"),
    quantised=r"model\.layers\.\d+\.self_attn\.[qkvo]_proj\.weight",
)
TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}]{{ message.content }}[END]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture
def toy_family(monkeypatch):
    """The row, registered for one test."""
    monkeypatch.setattr(families, "_rows", dict(families._rows))
    monkeypatch.setattr(text, "_reserved", set(text._reserved))
    families.register(ROW)
    yield ROW
    text._of_families.cache_clear()


def write_files(folder: Path) -> Path:
    """config.json, tokenizer and chat template of a tiny model."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(builtin.resolve("builtin:tiny-qwen3") / "tokenizer.json"))
    tokenizer.add_special_tokens([END, END_OF_TEXT, "[user]", "[assistant]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END_OF_TEXT}
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    config = {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "sliding_window": None,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(END),
        "pad_token_id": tokenizer.token_to_id(END_OF_TEXT),
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_model(folder: Path) -> Path:
    """`write_files`, and random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    write_files(folder)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder
