"""Smaller files without a compiler: llama.cpp's mixture, nothing silent, nothing under the final name before its time."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.export.gguf import gguf as making
from slimtune.export.gguf import run_quantiser
from slimtune.export.gguf.gguf import PROGRAM_VARIABLE, convert, quantise

KINDS = ("q8_0", "q6_k", "q5_k_m", "q4_k_m")


@pytest.fixture(scope="module")
def wide_gguf(tokenizer, chat_templates, tmp_path_factory):
    """A bf16 GGUF of a Qwen3 with rows of 256, which K-quants need, and eight layers, which the mixtures tell apart."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=608,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("wide")
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "model")
    tokenizer.chat_template = chat_templates["qwen3"]
    tokenizer.save_pretrained(folder / "model")
    path = folder / "wide.bf16.gguf"
    convert(folder / "model", path, outtype="bf16", name="wide")
    return path


@pytest.fixture(scope="module")
def made(wide_gguf, tmp_path_factory):
    """made(kind) -> (record, path) of the wide model, quantised once each."""
    folder, done = tmp_path_factory.mktemp("made"), {}

    def once(kind):
        if kind not in done:
            path = folder / f"{kind}.gguf"
            done[kind] = quantise(wide_gguf, path, kind), path
        return done[kind]

    return once


# ---- which tensor gets which type ----------------------------------------------------------------------------------


def shapes(*, layers=8, hidden=256, tied=True):
    found = {"token_embd.weight": [hidden, 600], "output_norm.weight": [hidden]}
    if not tied:
        found["output.weight"] = [hidden, 600]
    for layer in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up"):
            found[f"blk.{layer}.{name}.weight"] = [hidden, 256]
        found[f"blk.{layer}.ffn_down.weight"] = [2 * hidden, hidden]
        found[f"blk.{layer}.attn_norm.weight"] = [hidden]
        found[f"blk.{layer}.attn_q.bias"] = [256]
    return found


def test_the_mixture_by_hand():
    types = run_quantiser.target_types(shapes(), "q4_k_m", 8)
    # Of 8 layers the first (one eighth), the last, and every third between have more bits.
    richer = {layer for layer in range(8) if types[f"blk.{layer}.ffn_down.weight"] == "Q6_K"}
    assert richer == {0, 3, 6, 7}
    assert {layer for layer in range(8) if types[f"blk.{layer}.attn_v.weight"] == "Q6_K"} == richer
    assert types["token_embd.weight"] == "Q6_K"  # which is the head, too
    assert types["blk.1.attn_q.weight"] == types["blk.1.ffn_down.weight"] == "Q4_K"
    assert types["blk.1.attn_norm.weight"] is types["blk.1.attn_q.bias"] is types["output_norm.weight"] is None


def test_an_untied_head_has_more_bits_than_the_embeddings():
    types = run_quantiser.target_types(shapes(tied=False), "q5_k_m", 8)
    assert (types["output.weight"], types["token_embd.weight"]) == ("Q6_K", "Q5_K")


def test_rows_that_are_no_multiple_of_256_fall_back_as_in_llama_cpp():
    types = run_quantiser.target_types(shapes(hidden=128), "q4_k_m", 8)
    assert types["blk.1.attn_q.weight"] == "Q5_0" and types["token_embd.weight"] == "Q8_0"
    assert types["blk.1.ffn_down.weight"] == "Q4_K"  # its rows have 256
    with pytest.raises(ValueError, match="not a multiple of 32"):
        run_quantiser.target_types(shapes(hidden=48), "q4_k_m", 8)


def test_layers_are_in_the_order_of_their_numbers():
    assert sorted(["blk.10.a", "blk.2.b", "output.weight", "blk.2.a"], key=run_quantiser.place) == [
        "output.weight",
        "blk.2.a",
        "blk.2.b",
        "blk.10.a",
    ]


# ---- files ----------------------------------------------------------------------------------------------------------


# SHA-256 of what llama.cpp's own `llama_model_quantize` (b11549's successor in @node-llama-cpp/linux-x64 3.22.1) writes
# of the same source can be compared where that library is at hand: SLIMTUNE_TEST_LIBLLAMA names its folder.
LIBLLAMA = os.environ.get("SLIMTUNE_TEST_LIBLLAMA")
FILE_TYPES = {"q8_0": 7, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18}


@pytest.mark.skipif(not LIBLLAMA, reason="SLIMTUNE_TEST_LIBLLAMA names no folder with a libllama")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["wide", "narrow"])
def test_the_bytes_are_those_of_a_second_route(kind, which, wide_gguf, convert_once, tmp_path):
    source = wide_gguf if which == "wide" else convert_once("qwen3", False, "bf16")[1]
    script = Path(__file__).with_name("second_route.py")
    command = [
        sys.executable,
        str(script),
        str(LIBLLAMA),
        str(source),
        str(tmp_path / "second.gguf"),
        str(FILE_TYPES[kind]),
    ]
    subprocess.run(command, check=True, env=os.environ | {"LD_LIBRARY_PATH": str(LIBLLAMA)}, capture_output=True)
    quantise(source, tmp_path / "own.gguf", kind)
    assert digest(tmp_path / "own.gguf") == digest(tmp_path / "second.gguf")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_has_the_type_that_was_asked_for_and_metadata_stay(kind, wide_gguf, made, gguf_reader):
    record, path = made(kind)
    before, after = gguf_reader(wide_gguf), gguf_reader(path)
    main = {"q8_0": "Q8_0", "q6_k": "Q6_K", "q5_k_m": "Q5_K", "q4_k_m": "Q4_K"}[kind]
    assert record.tensor_types[main] >= 40 and record.fallbacks == [] and record.route == "xllamacpp"
    assert record.bytes == path.stat().st_size < wide_gguf.stat().st_size * 0.6
    assert {tensor.name for tensor in after.tensors} == {tensor.name for tensor in before.tensors}
    changed = {"general.file_type", "general.quantization_version", "GGUF.kv_count"}
    for name, field in before.fields.items():
        if name not in changed:
            assert after.get_field(name).contents() == field.contents(), name
    assert after.get_field("general.file_type").contents() == FILE_TYPES[kind]


def test_values_come_back_within_the_step_of_their_blocks(wide_gguf, made, gguf_reader):
    import gguf
    import numpy as np

    before = {tensor.name: tensor for tensor in gguf_reader(wide_gguf).tensors}
    for kind, most in (("q8_0", 0.01), ("q6_k", 0.03), ("q5_k_m", 0.06), ("q4_k_m", 0.12)):
        for tensor in gguf_reader(made(kind)[1]).tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            exact = gguf.quants.dequantize(before[tensor.name].data, before[tensor.name].tensor_type)
            error = np.sqrt(np.mean((values - exact) ** 2) / np.mean(exact**2))
            assert error <= most, (kind, tensor.name, error)


def test_the_same_source_gives_the_same_bytes(wide_gguf, made, tmp_path):
    seen = []
    quantise(wide_gguf, tmp_path / "again.gguf", "q4_k_m", on_progress=lambda done, of: seen.append((done, of)))
    assert digest(tmp_path / "again.gguf") == digest(made("q4_k_m")[1])
    assert seen[-1] == ((tmp_path / "again.gguf").stat().st_size,) * 2


def test_a_fallback_is_told(convert_once, tmp_path):
    record = quantise(convert_once("qwen3", False, "bf16")[1], tmp_path / "x.gguf", "q4_k_m")
    assert "blk.0.attn_q.weight" in record.fallbacks and record.tensor_types["Q5_0"] >= 8


def test_what_is_quantised_already_is_refused(made, tmp_path):
    with pytest.raises(SlimtuneError, match="already quantised"):
        quantise(made("q4_k_m")[1], tmp_path / "y.gguf", "q5_k_m")
    assert list(tmp_path.iterdir()) == []


def test_a_plain_name_is_needed(wide_gguf, tmp_path):
    with pytest.raises(SlimtuneError, match="cannot be the name of a GGUF"):
        quantise(wide_gguf, tmp_path / "a b.gguf", "q8_0")


def test_a_full_disk_is_seen_before(wide_gguf, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(SlimtuneError, match="the q8_0 GGUF needs"):
        quantise(wide_gguf, tmp_path / "x.gguf", "q8_0")


@pytest.mark.fault
def test_a_killed_quantisation_leaves_nothing_and_the_next_one_succeeds(wide_gguf, tmp_path):
    code = (
        "import sys, pathlib\nfrom slimtune.export.gguf.gguf import quantise\n"
        f"quantise(pathlib.Path({str(wide_gguf)!r}), pathlib.Path({str(tmp_path / 'x.gguf')!r}), 'q4_k_m')"
    )
    root = ROOT
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    limit = time.monotonic() + 60
    while not any(tmp_path.iterdir()) and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "x.gguf").exists() or process.returncode == 0
    quantise(wide_gguf, tmp_path / "x.gguf", "q4_k_m")
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]


# ---- a program of the user's ----------------------------------------------------------------------------------------


def program(tmp_path, body):
    path = tmp_path / "llama-quantize"
    path.write_text(f"#!{sys.executable}\nimport shutil, sys\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_llama_quantize_of_the_users_comes_first(wide_gguf, made, tmp_path, monkeypatch):
    ready = made("q5_k_m")[1]
    path = program(tmp_path, f"assert sys.argv[3] == 'Q5_K_M'\nshutil.copy({str(ready)!r}, sys.argv[2])")
    monkeypatch.setenv(PROGRAM_VARIABLE, str(path))
    record = quantise(wide_gguf, tmp_path / "x.gguf", "q5_k_m")
    assert record.route == "llama-quantize" and digest(tmp_path / "x.gguf") == digest(ready)


def test_another_type_than_was_asked_for_is_an_error(wide_gguf, made, tmp_path, monkeypatch):
    path = program(tmp_path, f"shutil.copy({str(made('q8_0')[1])!r}, sys.argv[2])")
    monkeypatch.setenv(PROGRAM_VARIABLE, str(path))
    with pytest.raises(SlimtuneError, match=r"is Q8_0, but a q4_k_m file needs Q6_K"):
        quantise(wide_gguf, tmp_path / "x.gguf", "q4_k_m")
    assert not (tmp_path / "x.gguf").exists()


def test_a_program_that_fails_is_quoted(wide_gguf, tmp_path, monkeypatch):
    monkeypatch.setenv(PROGRAM_VARIABLE, str(program(tmp_path, "sys.exit('no such type')")))
    with pytest.raises(SlimtuneError, match=r"llama-quantize failed \(exit code 1\):\n    no such type"):
        quantise(wide_gguf, tmp_path / "x.gguf", "q4_k_m")
    monkeypatch.setenv(PROGRAM_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(SlimtuneError, match="no such program"):
        quantise(wide_gguf, tmp_path / "x.gguf", "q4_k_m")


def test_without_the_wheel_it_says_what_to_install(wide_gguf, tmp_path, monkeypatch):
    monkeypatch.setattr(making.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SlimtuneError, match=r"llama.cpp is not installed"):
        making.library()
