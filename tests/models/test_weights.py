"""Weights that are not those of their config.json, and adapters of another base, are refused before anything is loaded."""

import json
import math
import re
import shutil
import struct
from contextlib import contextmanager

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.models import adapter_files, builtin, weights
from slimtune.models import files as base_model
from slimtune.models.safetensors_header import WIDTHS, read_header

Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


def write_tensors(path, tensors, *, data=None):
    """Write name -> (dtype, shape) as a safetensors file of zeros, or of what `data` has for a name."""
    header, body = {}, b""
    for name, (dtype, shape) in tensors.items():
        own = (data or {}).get(name) or bytes(math.prod(shape) * WIDTHS[dtype])
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + len(own)]}
        body += own
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.fixture
def model(tmp_path):
    """(change=…, **config) -> a folder with the built-in model's files, its weights zeros that `change` has edited."""

    def make(change=lambda tensors: None, **config):
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(builtin.resolve("builtin:tiny-qwen3"), folder)
        tensors = {name: (one.dtype, one.shape) for name, one in read_header(folder / weights.SINGLE).items()}
        change(tensors)
        write_tensors(folder / weights.SINGLE, tensors)
        told = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(told))
        return folder

    return make


@contextmanager
def refused(*parts):
    with pytest.raises(SlimtuneError) as caught:
        yield
    for part in parts:
        assert re.search(part, str(caught.value)), (part, str(caught.value))


def drop(*names):
    def change(tensors):
        for name in names or list(tensors)[9:]:
            del tensors[name]

    return change


def put(name, *stored):
    return lambda tensors: tensors.update({name: stored})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop(Q_PROJ), rf"lack 1 tensor that config.json demands: {Q_PROJ}"),
        (drop(), r"lack \d+ tensors that .*, .*, .* and \d+ more"),
        (drop("model.norm.weight"), r"lack 1 tensor .*model\.norm\.weight"),
        (
            put("model.layers.9.mlp.up_proj.weight", "BF16", (384, 128)),
            r"1 tensor that config.json does not describe: .*9",
        ),
        (put("model.layers.0.self_attn.q_proj.bias", "BF16", (128,)), "does not describe: .*bias"),
        (put(Q_PROJ, "BF16", (128, 64)), rf"1 tensor does not fit config.json: {Q_PROJ} is 128 × 64, not 128 × 128"),
        (put(Q_PROJ, "F8_E4M3", (128, 128)), "is stored as F8_E4M3"),
        (put("lm_head.weight", "BF16", (7, 128)), "lm_head.weight is 7 × 128"),
    ],
)
def test_weights_that_are_not_the_configs_are_refused(model, change, told):
    folder = model(change)
    with refused(re.escape(str(folder)), told, "→ download the model again"):
        base_model.fetch(str(folder))
    with refused(told):
        base_model.check_weights_at_hand(str(folder), folder)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"tie_word_embeddings": False}, "lack 1 tensor that config.json demands: lm_head.weight"),
        ({"attention_bias": True}, r"lack 16 tensors .*bias"),
        ({"num_hidden_layers": 3}, "11 tensors that config.json does not describe"),
        ({"num_hidden_layers": 2**30}, "1,073,741,824 layers, more than the weights have tensors"),
        ({"hidden_size": 10**30}, "'hidden_size' is '1000"),
        ({"num_key_value_heads": 3}, "4 heads of 32 features cannot share 3 key-value heads"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised with 'gptq'"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes 4-bit, and they are not"),
        ({"quantization_config": 5}, "quantised with '5'"),
    ],
)
def test_a_config_of_other_weights_is_refused(model, config, told):
    with refused(told):
        base_model.fetch(str(model(**config)))


def test_what_old_checkpoints_hold_besides_is_no_fault(model):
    extras = {"model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (16,)), "lm_head.weight": ("BF16", (1236, 128))}
    folder = model(lambda tensors: tensors.update(extras))
    assert base_model.fetch(str(folder)) == folder


def packed(tensors, data, **state):
    """Q_PROJ as bitsandbytes packs it, with double quantisation."""
    told = {"shape": [128, 128], "blocksize": 64, "nested_blocksize": 256} | state
    data[f"{Q_PROJ}.quant_state.bitsandbytes__nf4"] = json.dumps(told).encode()
    tensors |= {
        Q_PROJ: ("U8", (8192, 1)),
        f"{Q_PROJ}.absmax": ("U8", (256,)),
        f"{Q_PROJ}.nested_absmax": ("F32", (1,)),
        f"{Q_PROJ}.quant_map": ("F32", (16,)),
        f"{Q_PROJ}.nested_quant_map": ("F32", (256,)),
    }
    tensors |= {name: ("U8", (len(value),)) for name, value in data.items()}


@pytest.mark.parametrize(
    ("state", "change", "told"),
    [
        ({}, lambda tensors: None, None),
        ({"shape": [128, 64]}, lambda tensors: None, "is 128 × 64, not 128 × 128"),
        ({"shape": "x"}, lambda tensors: None, "q_proj.weight is x, not"),
        ({"blocksize": None}, lambda tensors: None, "damaged quant_state"),
        ({}, drop(f"{Q_PROJ}.absmax"), "lacks its absmax"),
        ({}, drop(f"{Q_PROJ}.nested_absmax"), "lacks its nested_absmax"),
        ({}, drop(f"{Q_PROJ}.quant_state.bitsandbytes__nf4"), "lacks its quant_state"),
        ({}, put(f"{Q_PROJ}.absmax", "U8", (255,)), "255 scales, not 256"),
        ({}, put(Q_PROJ, "U8", (8191, 1)), "8,191 bytes, not the 8,192"),
        ({}, put("other.weight.absmax", "U8", (1,)), r"does not describe: other\.weight\.absmax"),
    ],
)
def test_four_bit_weights_are_checked_with_what_belongs_to_them(model, state, change, told):
    folder = model(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    tensors = {name: (one.dtype, one.shape) for name, one in read_header(folder / weights.SINGLE).items()}
    data = {}
    packed(tensors, data, **state)
    change(tensors)
    write_tensors(folder / weights.SINGLE, tensors, data=data)
    if told is None:
        assert base_model.fetch(str(folder)) == folder
    else:
        with refused(told):
            base_model.fetch(str(folder))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda content: content[:-1], "it is cut off: the header describes"),
        (lambda content: content[:5], "it is cut off"),
        (lambda content: content[:100], "its header would have"),
        (lambda content: content + b"x", "something else follows"),
        (lambda content: b"", "it is cut off"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer.*\n.*git lfs pull"),
        (lambda content: struct.pack("<Q", 2**63) + content[8:], "its header would have 9,223"),
        (lambda content: struct.pack("<Q", 4) + b"[{}]", "header is not a JSON object"),
        (lambda content: struct.pack("<Q", 4) + b"\xff{}]", "header is not"),
        (lambda content: struct.pack("<Q", 999) + b"[" * 999, "nested too deeply"),
        (lambda content: struct.pack("<Q", 9) + b'{"a": {}}', "does not say where 'a' is"),
        (lambda content: content.replace(b'"shape":[128]', b'"shape":[129]', 1), "does not say where"),
    ],
)
def test_a_damaged_file_is_one_sentence(model, damage, told):
    folder = model()
    path = folder / weights.SINGLE
    path.write_bytes(damage(builtin.resolve("builtin:tiny-qwen3").joinpath(weights.SINGLE).read_bytes()))
    with refused(re.escape(str(path)), told):
        base_model.fetch(str(folder))


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ('{"weight_map": {"a": "../model.safetensors"}}', r"'\.\./model\.safetensors' is not the plain name"),
        ('{"weight_map": {"a": "/etc/model.safetensors"}}', "is not the plain name"),
        ('{"weight_map": {"a": "model.bin"}}', "is not the plain name"),
        ('{"weight_map": {"a": 5}}', "'5' is not the plain name"),
        ('{"weight_map": {"a": "x\\u0000.safetensors"}}', "is not the plain name"),
        ('{"weight_map": {"a": "model-1.safetensors"}}', r"model-1\.safetensors of the 1 files .* is missing"),
        ('{"weight_map": {}}', "no 'weight_map'"),
        ('{"weight_map": []}', "no 'weight_map'"),
        ("[]", "not a JSON object"),
        ("{", "not valid JSON"),
        ("[" * 5000, "nested too deeply"),
    ],
)
@pytest.mark.parametrize("beside_single", [True, False])
def test_a_garbage_index_is_one_sentence(model, index, told, beside_single):
    folder = model()
    if not beside_single:
        (folder / weights.SINGLE).rename(folder / "model-2.safetensors")
    (folder / weights.INDEX).write_text(index)
    with refused(weights.INDEX, told):
        base_model.fetch(str(folder))


def test_shards_are_read_together_and_each_tensor_once(model):
    folder = model()
    tensors = {name: (one.dtype, one.shape) for name, one in read_header(folder / weights.SINGLE).items()}
    (folder / weights.SINGLE).unlink()
    names, half = sorted(tensors), len(tensors) // 2
    for number, some in enumerate((names[:half], names[half:]), start=1):
        write_tensors(folder / f"model-{number}.safetensors", {name: tensors[name] for name in some})
    index = {name: f"model-{1 if name in names[:half] else 2}.safetensors" for name in names}
    (folder / weights.INDEX).write_text(json.dumps({"weight_map": index}))
    assert base_model.fetch(str(folder)) == folder
    write_tensors(folder / "model-2.safetensors", {name: tensors[name] for name in names[half - 1 :]})
    with refused(r"model-2\.safetensors.* is in model-1\.safetensors as well"):
        base_model.fetch(str(folder))
    (folder / "model-2.safetensors").unlink()
    with refused(r"model-2\.safetensors of the 2 files that the index names is missing"):
        base_model.check_weights_at_hand(str(folder), folder)


def test_pickled_weights_are_not_loaded(model):
    folder = model()
    (folder / weights.SINGLE).rename(folder / "pytorch_model.bin")
    with refused(r"pickled weights alone \(pytorch_model\.bin\)", "save the model as safetensors"):
        base_model.fetch(str(folder))


# ---- adapters --------------------------------------------------------------------------------------------------------

TARGETS = {"q_proj": ("self_attn", 128, 128), "up_proj": ("mlp", 128, 384)}


@pytest.fixture
def adapter(tmp_path):
    """(change=…, **config) -> a folder with an adapter of rank 4 on the built-in model."""

    def make(change=lambda tensors: None, **config):
        tensors = {}
        for layer in range(4):
            for name, (block, inputs, outputs) in TARGETS.items():
                module = f"base_model.model.model.layers.{layer}.{block}.{name}"
                tensors[f"{module}.lora_A.weight"] = ("F32", (4, inputs))
                tensors[f"{module}.lora_B.weight"] = ("F32", (outputs, 4))
        change(tensors)
        write_tensors(tmp_path / adapter_files.TENSORS, tensors)
        told = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": list(TARGETS)}
        (tmp_path / adapter_files.CONFIG).write_text(json.dumps({**told, **config}))
        return tmp_path

    return make


def test_an_adapter_that_fits_its_base_passes(adapter):
    base = builtin.resolve("builtin:tiny-qwen3")
    adapter_files.check(adapter(), base)
    kept = [f"base_model.model.model.layers.2.self_attn.q_proj.lora_{part}.weight" for part in "AB"]

    def one_layer(tensors):
        for name in set(tensors) - set(kept):
            del tensors[name]

    adapter_files.check(adapter(one_layer, target_modules=["q_proj"], layers_to_transform=[2]), base)
    adapter_files.check(adapter(one_layer, target_modules=r".*2\.self_attn\.q_proj"), base)


FIRST = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "config", "told"),
    [
        (drop(f"{FIRST}.lora_A.weight"), {}, r"lacks lora_A or lora_B of 1 modules .*layers\.0\.self_attn\.q_proj"),
        (drop(f"{FIRST}.lora_A.weight", f"{FIRST}.lora_B.weight"), {}, "lacks lora_A or lora_B of 1 modules"),
        (lambda tensors: tensors.clear(), {}, r"of 8 modules .* and 5 more"),
        (lambda tensors: tensors.clear(), {"target_modules": "all-linear"}, "no LoRA weights"),
        (put(f"{FIRST}.lora_A.weight", "F32", (4, 64)), {}, r"lora_A\.weight is 4 × 64, not 4 × 128"),
        (put(f"{FIRST}.lora_A.weight", "F32", (8, 128)), {}, "is 8 × 128, not 4 × 128"),
        (lambda tensors: None, {"r": 8}, "16 of the adapter's tensors have another shape"),
        (lambda tensors: None, {"target_modules": ["q_proj", "c_attn"]}, "targets 'c_attn'"),
        (put("base_model.model.model.layers.7.mlp.up_proj.lora_A.weight", "F32", (4, 128)), {}, "no module for 1 of"),
        (put("what", "F32", (1,)), {}, "no module for 1 of the adapter's tensors: what"),
    ],
)
def test_an_adapter_of_another_base_is_refused(adapter, change, config, told):
    with refused("does not fit the base", told):
        adapter_files.check(adapter(change, **config), builtin.resolve("builtin:tiny-qwen3"))


@pytest.mark.parametrize(
    "config",
    [
        {"r": "4"}, {"r": 0}, {"r": True}, {"r": None}, {"lora_alpha": "x"}, {"lora_alpha": math.inf}, {"peft_type": None},
        {"target_modules": None}, {"target_modules": [5]}, {"rank_pattern": {"(": 4}}, {"rank_pattern": {"(q+)+x": 4}},
        {"alpha_pattern": {".*.*.*x": 4}}, {"rank_pattern": {"q": "x"}},
        {"alpha_pattern": [1]}, {"layers_to_transform": "0"}, {"exclude_modules": 5}, {"base_model_name_or_path": 5},
    ],
)  # fmt: skip
def test_garbage_in_an_adapters_config_is_one_sentence(adapter, config):
    folder = adapter(**config)
    with refused(re.escape(str(folder / adapter_files.CONFIG)), f"{next(iter(config))} "):
        adapter_files.check(folder, builtin.resolve("builtin:tiny-qwen3"))


def test_a_cut_off_adapter_is_one_sentence(adapter):
    folder = adapter()
    path = folder / adapter_files.TENSORS
    path.write_bytes(path.read_bytes()[:-1])
    with refused(re.escape(str(path)), "cut off"):
        adapter_files.check(folder, builtin.resolve("builtin:tiny-qwen3"))
