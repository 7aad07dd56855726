"""Merging: exactly the dequantised base plus the delta, whatever shape the base comes in."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.merging import dequantised, quantised_modules, tensors_of

from slimtune.core.errors import SlimtuneError
from slimtune.export.merge import merge, needed_memory, nf4
from slimtune.export.merge.merge import merge_adapter
from slimtune.export.model_folder import parameter_count, write_safetensors
from slimtune.models import families


def nf4_values(weight, load_dtype=None):
    """`weight` as loaded in 4 bit, then dequantised: fp32."""
    return nf4.quantised(weight, load_dtype, "cpu").values(...)


# ---- the numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "tied"), [("qwen3", False), ("qwen2.5", True)])
def test_the_merged_model_is_the_trained_one(family, tied, build_base, load_nf4, add_lora, tmp_path):
    """Every weight by hand, and the logits of the 4-bit model with its adapter."""
    from transformers import AutoModelForCausalLM

    base, adapter, merged = build_base(family, tied=tied), tmp_path / "adapter", tmp_path / "merged"
    model = load_nf4(base, torch.float32)
    expected = tensors_of(base)
    loaded = quantised_modules(model)
    assert {f"{name}.weight" for name in loaded} == {
        name for name in expected if re.fullmatch(families.get("qwen3").quantised, name)
    }
    for name, module in loaded.items():
        values = dequantised(module)
        assert torch.equal(nf4_values(expected[f"{name}.weight"]), values)
        expected[f"{name}.weight"] = values
    with_lora = add_lora(model, target_modules=["q_proj", "o_proj", "gate_proj"])
    with_lora.save_pretrained(adapter)
    deltas = tensors_of(adapter)
    for key in [key for key in deltas if ".lora_A." in key]:
        a, b = deltas[key], deltas[key.replace("lora_A", "lora_B")]
        expected[key.removeprefix("base_model.model.").replace(".lora_A", "")] += (b @ a) * 2.0  # alpha 16 / rank 8

    record = merge_adapter(adapter, base, merged, load_in_4bit=True)

    written = tensors_of(merged)
    assert written.keys() == expected.keys() == model_keys(merged)
    assert ("lm_head.weight" in written) is not tied
    for name, tensor in written.items():
        assert torch.equal(tensor, expected[name].to(torch.bfloat16)), name
    assert (record.lora_merged, record.dequantised, record.tensors) == (6, 14, len(expected))
    assert record.bytes == 2 * record.parameters == 2 * parameter_count(merged)

    ids = torch.randint(0, 480, (2, 24), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        trained = with_lora(ids).logits
        with with_lora.disable_adapter():
            untrained = with_lora(ids).logits
        shipped = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)(ids).logits
    rounding = (shipped - trained).abs().max()
    assert rounding < trained.abs().max() * 2**-8 * 4  # bf16 keeps 8 bits; a few roundings add up
    assert (trained - untrained).abs().max() > 20 * rounding


def model_keys(folder):
    """The parameters that transformers wants for this folder's config."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return {name for name, _ in model.named_parameters()}


def test_a_prequantised_base_gives_the_same_bits(run, load_nf4, tmp_path):
    """Also where the parts of one packed weight lie in different shards."""
    packed = tmp_path / "base-bnb-4bit"
    load_nf4(run.base).save_pretrained(packed, max_shard_size="40KB")
    assert len(list(packed.glob("*.safetensors"))) > 3
    shutil.copy(run.base / "tokenizer_config.json", packed)

    record = merge_adapter(run.adapter, packed, tmp_path / "a", load_in_4bit=True)
    merge_adapter(run.adapter, run.base, tmp_path / "b", load_in_4bit=True)

    one, other = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b")
    assert record.base_weights == "4-bit checkpoint, dequantised"
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert "quantization_config" not in json.loads((tmp_path / "a/config.json").read_text())


def test_the_16_bit_twin_and_an_unquantised_run_get_the_bare_delta(run, tmp_path):
    merge_adapter(run.adapter, run.base, tmp_path / "twin", load_in_4bit=True, merge_base="16bit")
    merge_adapter(run.adapter, run.base, tmp_path / "plain", load_in_4bit=False)
    base, deltas = tensors_of(run.base), tensors_of(run.adapter)
    twin, plain = tensors_of(tmp_path / "twin"), tensors_of(tmp_path / "plain")
    module = "model.layers.1.mlp.up_proj"
    a, b = (deltas[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
    assert torch.equal(twin[f"{module}.weight"], (base[f"{module}.weight"].float() + (b @ a) * 2.0).to(torch.bfloat16))
    assert all(torch.equal(twin[name], plain[name]) for name in base)
    unchanged = [name for name in base if not name.endswith(("q_proj.weight", "v_proj.weight", "up_proj.weight"))]
    assert len(unchanged) == 25 - 6
    assert all(torch.equal(twin[name], base[name]) for name in unchanged)


@pytest.mark.parametrize(
    ("options", "scalings"),
    [
        ({"use_rslora": True}, {"q_proj": 16 / math.sqrt(8), "up_proj": 16 / math.sqrt(8)}),
        ({"rank_pattern": {"up_proj": 4}, "alpha_pattern": {"layers.1.*q_proj": 40}}, {"q_proj": 5.0, "up_proj": 4.0}),
    ],
)
def test_scaling_is_pefts(options, scalings, build_base, add_lora, tmp_path):
    from transformers import AutoModelForCausalLM

    base = build_base("qwen3", tied=True)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with_lora = add_lora(model, target_modules=["q_proj", "up_proj"], **options)
    with_lora.save_pretrained(tmp_path / "adapter")
    deltas = tensors_of(tmp_path / "adapter")
    merge_adapter(tmp_path / "adapter", base, tmp_path / "merged", load_in_4bit=False)
    ours, theirs = tensors_of(tmp_path / "merged"), dict(with_lora.merge_and_unload().named_parameters())
    for module, scaling in (("model.layers.1.self_attn.q_proj", "q_proj"), ("model.layers.1.mlp.up_proj", "up_proj")):
        a, b = (deltas[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
        by_hand = before[f"{module}.weight"] + (b @ a) * scalings[scaling]
        assert torch.equal(ours[f"{module}.weight"], by_hand.to(torch.bfloat16))
        assert torch.allclose(theirs[f"{module}.weight"], by_hand, atol=1e-6)


def test_weights_are_quantised_in_the_dtype_they_were_loaded_in(run, load_nf4, tmp_path):
    """A checkpoint stored in fp32 and loaded in bf16 is rounded before it is quantised."""
    from safetensors.torch import save_file

    exact = {name: tensor.float() * (1 + 1e-3) for name, tensor in tensors_of(run.base).items()}
    shutil.copytree(run.base, tmp_path / "fp32")
    save_file(exact, tmp_path / "fp32/model.safetensors", metadata={"format": "pt"})
    name = "model.layers.0.mlp.down_proj"
    loaded = dequantised(quantised_modules(load_nf4(tmp_path / "fp32"))[name])
    assert torch.equal(nf4_values(exact[f"{name}.weight"], "bfloat16"), loaded)
    assert not torch.equal(nf4_values(exact[f"{name}.weight"]), loaded)


# ---- in pieces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"load_in_4bit": True}, {"load_in_4bit": False, "dtype": "float16"}])
def test_pieces_give_the_bits_of_the_whole(options, run, tmp_path, monkeypatch):
    """Weights quantised here and as stored, with a delta and without, cast and not; rows that do not divide evenly."""
    for name, values in (("whole", 2**30), ("pieces", 3000)):
        monkeypatch.setattr(merge, "_PIECE_VALUES", values)
        merge_adapter(run.adapter, run.base, tmp_path / name, **options)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "pieces"))
    assert one == other


@given(rows=st.integers(1, 300_000), width=st.sampled_from([1, 64, 96, 1024, 2**21]))
def test_groups_of_rows_cover_a_tensor_once(rows, width):
    groups = merge._groups_of_rows((rows, width), 64)
    if groups == [...]:
        assert rows * width <= merge._PIECE_VALUES or width % 64 or rows == 1
        return
    assert [group.start for group in groups[1:]] == [group.stop for group in groups[:-1]]
    assert (groups[0].start, groups[-1].stop) == (0, rows)
    sizes = {group.stop - group.start for group in groups}
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) == 1 or max(sizes) * width <= merge._PIECE_VALUES + width


def test_a_scalar_and_a_vector_are_one_piece():
    assert merge._groups_of_rows((), 1) == merge._groups_of_rows((4096,), 1) == [...]


@pytest.mark.slow
def test_large_weights_are_right_and_take_the_memory_of_two_of_them(tmp_path):
    """Three of 16.8 million values, packed; worked on whole, with deltas in fp32, they would take 4.6 16-bit copies."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    from safetensors.torch import save_file

    rows, width = 8192, 2048
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    draw = torch.Generator().manual_seed(5)
    stored, deltas, expected = {}, {}, {}
    for layer in range(3):
        name = f"model.layers.{layer}.mlp.up_proj"
        packed, state = quantize_4bit(
            torch.randn(rows, width, generator=draw) * 0.02, blocksize=64, compress_statistics=True, quant_type="nf4"
        )
        stored[f"{name}.weight"] = packed
        stored |= {f"{name}.weight.{part}": tensor for part, tensor in state.as_dict(packed=True).items()}
        a, b = torch.randn(16, width, generator=draw) * 0.02, torch.randn(rows, 16, generator=draw) * 0.02
        deltas |= {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
        state.dtype = torch.float32
        expected[f"{name}.weight"] = (dequantize_4bit(packed, state) + (b @ a) * 2.0).to(torch.bfloat16)
    save_file(stored, base / "model.safetensors")
    save_file(deltas, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["up_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (base / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    (base / "tokenizer_config.json").write_text("{}")

    record = merge_adapter(adapter, base, tmp_path / "merged", load_in_4bit=True)

    written = tensors_of(tmp_path / "merged")
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)
    assert record.extra_peak_bytes < 4 * 2 * rows * width  # two, and what the heap and the interpreter take


# ---- its memory -----------------------------------------------------------------------------------------------------


def test_the_record_says_how_much_memory_was_needed(run, tmp_path):
    """Also what was given back before the end."""
    size = 200 * 2**20

    def hold(done, total):
        if done == total:
            held = b"x" * size
            time.sleep(0.1)
            del held

    record = merge_adapter(run.adapter, run.base, tmp_path / "merged", load_in_4bit=True, on_progress=hold)
    # What the process held before may have been given back meanwhile.
    assert size / 2 <= record.extra_peak_bytes < record.peak_bytes
    assert record.peak_source == ("anonymous memory" if sys.platform == "linux" else "resident set")


def test_what_is_counted_of_memory(tmp_path, monkeypatch):
    status = tmp_path / "status"
    monkeypatch.setattr(needed_memory, "_STATUS", status)
    status.write_text("Name:\tpython\nVmRSS:\t    5000 kB\nRssAnon:\t    1000 kB\nVmSwap:\t      24 kB\n")
    assert needed_memory.needed_bytes() == (2**20, "anonymous memory")
    status.write_text("Name:\tpython\nVmRSS:\t    5000 kB\n")  # kernels before 4.5, and some containers
    resident, source = needed_memory.needed_bytes()
    assert source == "resident set" and resident > 50 * 2**20
    status.unlink()
    assert needed_memory.needed_bytes()[1] == "resident set"


# ---- the folder -----------------------------------------------------------------------------------------------------


def test_large_models_are_sharded_and_load(run, tmp_path):
    from transformers import AutoModelForCausalLM

    seen = []
    record = merge_adapter(
        run.adapter, run.base, tmp_path / "sharded", load_in_4bit=True, max_shard_bytes=300_000,
        on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert len(record.shards) > 2 and seen[-1] == (record.bytes, record.bytes)
    assert record.shards[0] == f"model-00001-of-{len(record.shards):05d}.safetensors"
    index = json.loads((tmp_path / "sharded/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == record.bytes
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "sharded")
    assert model.dtype == torch.bfloat16
    written = tensors_of(tmp_path / "sharded")
    assert index["weight_map"].keys() == written.keys()
    assert all(torch.equal(parameter, written[name]) for name, parameter in model.named_parameters())


def test_tokenizer_and_template_come_from_the_adapter_and_lie_in_one_place(run, tmp_path):
    """llama.cpp's converter prefers the template inside tokenizer_config.json, transformers the file beside it."""
    adapter = tmp_path / "adapter"
    shutil.copytree(run.adapter, adapter)
    shutil.copy(run.base / "tokenizer.json", adapter)
    config = json.loads((run.base / "tokenizer_config.json").read_text()) | {"chat_template": "from the adapter"}
    (adapter / "tokenizer_config.json").write_text(json.dumps(config))

    merge_adapter(adapter, run.base, tmp_path / "kept", load_in_4bit=True)
    merge_adapter(adapter, run.base, tmp_path / "given", load_in_4bit=True, chat_template="given")

    for folder, template in (("kept", "from the adapter"), ("given", "given")):
        assert (tmp_path / folder / "chat_template.jinja").read_text() == template
        assert "chat_template" not in json.loads((tmp_path / folder / "tokenizer_config.json").read_text())
    assert (tmp_path / "kept/generation_config.json").exists()
    written = json.loads((tmp_path / "kept/config.json").read_text())
    assert written["dtype"] == written["torch_dtype"] == "bfloat16"


def test_float16_is_refused_where_it_would_overflow(run, tmp_path):
    from safetensors.torch import save_file

    record = merge_adapter(run.adapter, run.base, tmp_path / "fits", load_in_4bit=True, dtype="float16")
    assert {tensor.dtype for tensor in tensors_of(tmp_path / "fits").values()} == {torch.float16}
    assert record.dtype == "float16"
    large = tensors_of(run.base)
    large["model.norm.weight"][5] = 1e5
    shutil.copytree(run.base, tmp_path / "large")
    save_file(large, tmp_path / "large/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SlimtuneError, match=r"'model.norm.weight' reaches 99840.*float16(.|\n)*bfloat16"):
        merge_adapter(run.adapter, tmp_path / "large", tmp_path / "merged", load_in_4bit=True, dtype="float16")
    assert not list(tmp_path.glob("merged*"))


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
)
def test_what_is_written_is_what_safetensors_reads(shapes, dtype, tmp_path_factory):
    from safetensors.torch import load_file

    path = tmp_path_factory.mktemp("write") / "x.safetensors"
    tensors = {f"t{i}": torch.randn(shape).to(dtype) for i, shape in enumerate(shapes)}
    written = []
    write_safetensors(path, [(n, tuple(t.shape)) for n, t in tensors.items()], tensors.values(), dtype, written.append)
    read = load_file(path)
    assert sum(written) == sum(tensor.nbytes for tensor in tensors.values())
    assert read.keys() == tensors.keys()
    assert all(read[name].dtype == dtype and torch.equal(read[name], tensors[name]) for name in tensors)
