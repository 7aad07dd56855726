"""Tiny real models: Qwen2 and Qwen3 with their own byte-level BPE, Qwen's special tokens and the chat templates of Qwen."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

CORPUS = [
    "賃貸人は、賃貸物の使用及び収益に必要な修繕をする義務を負う。",
    "Question: which of the following is right? Answer with one letter: a, b, c or d.",
    "日本の首都は東京である。契約は、申込みに対して相手方が承諾をしたときに成立する。",
    "The quick brown fox jumps over 12345 lazy dogs.\n\nIt doesn't matter, does it?\n",
]
PAIRS = [(f"Question {number}: {topic}?", letter) for number, (topic, letter) in enumerate(
    [("賃貸人の義務", "a"), ("契約の成立", "b"), ("東京", "c"), ("the fox", "d"), ("dogs", "a"), ("修繕", "d")]
)]  # fmt: skip


@pytest.fixture(scope="session")
def chat_templates() -> dict[str, str]:
    """The Jinja of Qwen2.5 and Qwen3 as Unsloth ships them; Unsloth wants to be imported before transformers."""
    from unsloth.chat_templates import CHAT_TEMPLATES, DEFAULT_SYSTEM_MESSAGE

    qwen25 = CHAT_TEMPLATES["qwen2.5"][0].replace("{system_message}", DEFAULT_SYSTEM_MESSAGE["qwen2.5"])
    return {"qwen2.5": qwen25, "qwen3": CHAT_TEMPLATES["qwen3"][0]}


@pytest.fixture(scope="session")
def tokenizer(chat_templates):
    """Qwen's tokenizer class (its split, byte level) over a BPE of about 500 tokens learnt from CORPUS."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import AddedToken, Qwen2Tokenizer

    blank = Qwen2Tokenizer()
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer = blank._tokenizer.normalizer, blank._tokenizer.pre_tokenizer
    from tokenizers.pre_tokenizers import ByteLevel

    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    bpe.train_from_iterator(CORPUS * 3, trainer)
    learnt = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in learnt["merges"]]
    tokenizer = Qwen2Tokenizer(vocab=learnt["vocab"], merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True)])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>")])
    return tokenizer


@pytest.fixture(scope="session")
def build_base(tokenizer, chat_templates, tmp_path_factory) -> Callable[..., Path]:
    """build_base(family, tied=…) -> folder of a random bf16 model with tokenizer and template; built once each."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    built: dict[tuple[str, bool], Path] = {}

    def build(family: str, *, tied: bool) -> Path:
        if (family, tied) in built:
            return built[family, tied]
        shape = dict(
            vocab_size=608, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_key_value_heads=1,
            max_position_embeddings=512, tie_word_embeddings=tied, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        )  # fmt: skip
        torch.manual_seed(7)
        if family == "qwen3":  # head_dim ≠ hidden_size / heads, as in the real 0.6B and 4B
            model = Qwen3ForCausalLM(Qwen3Config(num_attention_heads=4, head_dim=64, **shape))
        else:
            model = Qwen2ForCausalLM(Qwen2Config(num_attention_heads=2, **shape))
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):  # zero when new, and so blind to a lost bias
                    torch.nn.init.normal_(parameter, std=0.05)
        for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
            torch.nn.init.normal_(embeddings.weight, std=0.2)  # wide enough for a head that is not trained to be sure
        folder = tmp_path_factory.mktemp(f"{family}-{'tied' if tied else 'untied'}")
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.chat_template = chat_templates[family]
        tokenizer.save_pretrained(folder)
        built[family, tied] = folder
        return folder

    return build
