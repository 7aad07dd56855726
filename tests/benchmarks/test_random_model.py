"""A random model folder is what a pre-quantised hub repository is, and holds the bytes that the plan predicts."""

import json
import logging
from dataclasses import replace

import pytest
from support.lazy import Lazy

from slimtune.models import files as base_model
from slimtune.models.families import TARGETS
from slimtune.models.shapes import from_config, known
from slimtune.plan.memory import vram

pytestmark = pytest.mark.unsloth
backend = Lazy("slimtune.models.backend")  # before torch, peft and bitsandbytes
functional = Lazy("bitsandbytes.functional")
models = Lazy("slimtune.models.load")
peft = Lazy("peft")
random_model = Lazy("benchmarks.random_model")
safetensors = Lazy("safetensors")
torch = Lazy("torch")
transformers = Lazy("transformers")

MIDDLE = replace(
    known()["Qwen3-0.6B"],
    name="middle",
    hidden_size=512,
    intermediate_size=1536,
    layers=6,
    heads=8,
    kv_heads=2,
    head_dim=64,
    vocab_size=4096,
)
SHAPES = {
    f"{family}-{'tied' if tied else 'untied'}": replace(
        MIDDLE, family=family, qk_norm=family == "qwen3", qkv_bias=family == "qwen2.5", tied=tied
    )
    for family in ("qwen3", "qwen2.5")
    for tied in (True, False)
}


QUICK, *REST = SHAPES


@pytest.fixture(scope="module", params=[QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in REST)])
def built(request, tmp_path_factory):
    """A shape, and the folder that was made of it, in several shards."""
    shape = SHAPES[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "middle-bnb-4bit"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_model, "SHARD_BYTES", 4 * 2**20)
        random_model.build(shape, folder)
    return shape, folder


@pytest.fixture(scope="module")
def loaded(built, a_plan):
    """The model as the project loads it, in the number format that the formulas count: 16 bit beside NF4."""
    shape, folder = built
    model, tokenizer = models.load(folder, a_plan(precision="bf16"))
    return shape, model, tokenizer


def linears(model):
    for index, layer in enumerate(model.model.layers):
        for block in (layer.self_attn, layer.mlp):
            for name, module in block.named_children():
                if name.endswith("_proj"):
                    yield index, name, module


def quantisation_tensors(state):
    return [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]


def test_the_config_describes_the_shape(built):
    shape, folder = built
    assert from_config(base_model.read_config(folder), shape.name) == shape
    assert base_model.has_weights(folder)


def test_the_files_are_those_of_a_pre_quantised_repository(built):
    _, folder = built
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 1
    found = {}
    for shard in shards:
        assert (folder / shard).stat().st_size < 5 * 2**20
        with safetensors.safe_open(folder / shard, framework="pt") as file:
            found |= dict.fromkeys(file.keys(), shard)
    assert found == index["weight_map"]
    prefix = "model.layers.3.mlp.down_proj.weight"
    assert {name.removeprefix(prefix) for name in found if name.startswith(prefix)} == {
        "",
        ".absmax",
        ".quant_map",
        ".nested_absmax",
        ".nested_quant_map",
        ".quant_state.bitsandbytes__nf4",
    }


def test_it_loads_without_complaint(built, a_plan, caplog, recwarn):
    _, folder = built
    with caplog.at_level(logging.WARNING):
        models.load(folder, a_plan(precision="bf16"))
    assert [record.getMessage() for record in caplog.records] == []
    assert [str(warning.message) for warning in recwarn if warning.category is not DeprecationWarning] == []


def test_the_loaded_weights_are_bitsandbytes_own_quantisation(built, loaded):
    """Drawn again from the same seed, quantised by bitsandbytes, compared with what Unsloth loaded in every layer."""
    shape, model, _ = loaded
    expected = dict(random_model._tensors(shape, torch.Generator("cpu").manual_seed(0)))
    for index, name, module in linears(model):
        inputs, outputs = shape.projections[name]
        assert (module.in_features, module.out_features) == (inputs, outputs)
        block = "mlp" if name in ("gate_proj", "up_proj", "down_proj") else "self_attn"
        key = f"model.layers.{index}.{block}.{name}.weight"
        assert torch.equal(module.weight.data, expected[key])
        assert torch.equal(module.weight.quant_state.absmax, expected[f"{key}.absmax"])
        assert torch.equal(module.weight.quant_state.state2.absmax, expected[f"{key}.nested_absmax"])
        assert module.weight.quant_state.blocksize == 64


def test_quantised_is_the_transformation_that_a_linear4bit_does():
    weight = torch.randn(128, 64, dtype=torch.bfloat16) * random_model.STANDARD_DEVIATION
    packed, state = functional.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
    stored = random_model.quantised(weight)
    assert torch.equal(stored[""], packed)
    assert torch.equal(stored[".absmax"], state.absmax)


def test_bytes_of_the_quantised_linears_are_the_formulas(loaded):
    shape, model, _ = loaded
    measured = sum(
        tensor.numel() * tensor.element_size()
        for _, _, module in linears(model)
        for tensor in (module.weight, *quantisation_tensors(module.weight.quant_state))
    )
    assert measured == pytest.approx(vram.linear_weights(shape, "nf4"), rel=0.005)


def test_bytes_of_everything_else_are_exactly_the_formulas(loaded):
    shape, model, _ = loaded
    quantised = {id(module.weight) for _, _, module in linears(model)}
    others = {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in quantised}
    assert all(parameter.dtype == torch.bfloat16 for parameter in others.values())
    sizes = {name: parameter.numel() * parameter.element_size() for name, parameter in others.items()}
    embeddings = sum(size for name, size in sizes.items() if "embed_tokens" in name or "lm_head" in name)
    norms = sum(size for name, size in sizes.items() if "norm" in name)
    biases = sum(size for name, size in sizes.items() if name.endswith(".bias"))
    assert embeddings == vram.embedding_weights(shape, offloaded=False)
    assert norms == 2 * shape.norm_parameters
    assert biases == 2 * shape.bias_parameters
    assert embeddings + norms + biases == sum(sizes.values())


def test_activations_stay_sane(loaded):
    _, model, _ = loaded
    with torch.no_grad():
        logits = model(input_ids=torch.arange(64)[None]).logits.float()
    assert torch.isfinite(logits).all()
    assert 0.01 < logits.std() < 10


def test_the_tokenizer_has_the_familys_template(loaded):
    shape, _, tokenizer = loaded
    assert tokenizer.chat_template == backend.chat_template(shape.family)


def test_a_complete_folder_is_not_made_again(built):
    shape, folder = built
    before = (folder / "config.json").stat().st_mtime_ns
    assert random_model.build(shape, folder) == folder
    assert (folder / "config.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("preset", TARGETS)
def test_lora_counts_are_those_of_the_projects_own_adapter(built, preset, a_plan):
    shape, folder = built
    plan = a_plan(precision="bf16", lora_targets=TARGETS[preset])
    base, _ = models.load(folder, plan)
    model = models.add_lora(base, plan)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trainable == shape.lora_parameters(plan.lora_rank, TARGETS[preset])


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        pytest.param(name, preset, marks=[] if (name, preset) == ("Qwen3-4B", "full") else pytest.mark.slow)
        for name in ("Qwen2.5-7B-Instruct", "Qwen2.5-1.5B", "Qwen3-8B", "Qwen3-4B")
        for preset in TARGETS
    ],
)
def test_lora_counts_of_real_sizes_are_pefts(name, preset):
    """On torch's meta device: PEFT's own module sizes, and not a byte of memory."""
    shape = known()[name]
    content = {key: value for key, value in random_model.config(shape).items() if key != "quantization_config"}
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**content))
    config = peft.LoraConfig(r=16, target_modules=list(TARGETS[preset]), task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config, low_cpu_mem_usage=True)
    trainable, everything = model.get_nb_trainable_parameters()
    assert trainable == shape.lora_parameters(16, TARGETS[preset])
    assert everything - trainable == shape.total_parameters
