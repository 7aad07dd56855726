"""Parameter counts against published figures and against sums done by hand; names that must and must not match."""

from __future__ import annotations

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.models.families import TARGETS
from slimtune.models.shapes import ModelShape, find, from_config, is_dynamic, known

TINY = ModelShape(
    name="tiny",
    family="qwen3",
    hidden_size=64,
    intermediate_size=128,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=32,
    vocab_size=1000,
    tied=True,
    qk_norm=True,
    qkv_bias=False,
    max_position_embeddings=512,
)


def shape_of(name: str) -> ModelShape:
    shape = find(name)
    assert shape is not None, name
    return shape


def test_parameters_of_a_tiny_shape_by_hand():
    # Hq = 4 · 32 = 128, Hk = 2 · 32 = 64; q and o 64 · 128, k and v 64 · 64, three MLP matrices 64 · 128.
    assert TINY.linear_parameters_per_layer == 2 * 8192 + 2 * 4096 + 3 * 8192 == 49152
    assert TINY.linear_parameters == 98304
    assert TINY.embedding_parameters == 64000
    assert TINY.norm_parameters == 2 * (128 + 64) + 64 == 448
    assert TINY.bias_parameters == 0
    assert TINY.total_parameters == 98304 + 64000 + 448


def test_lora_parameters_of_a_tiny_shape_by_hand():
    # in + out: q and o 192, k and v 128, MLP 192 each; two layers, rank 4.
    assert TINY.lora_parameters(4, TARGETS["minimal"]) == 2 * 4 * (192 + 128)
    assert TINY.lora_parameters(4, TARGETS["standard"]) == 2 * 4 * (2 * 192 + 2 * 128)
    assert TINY.lora_parameters(4, TARGETS["full"]) == 2 * 4 * (5 * 192 + 2 * 128)
    assert TINY.lora_parameters(4, ["down_proj", "down_proj"]) == 2 * 4 * 192


def test_lora_parameters_refuses_what_trains_nothing():
    with pytest.raises(SlimtuneError) as caught:
        TINY.lora_parameters(0, ["q_proj", "w1"])
    assert [problem.where for problem in caught.value.problems] == ["lora.target", "lora.rank"]
    assert "w1" in str(caught.value)
    with pytest.raises(SlimtuneError, match="no linear is targeted"):
        TINY.lora_parameters(8, [])


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("Qwen2.5-0.5B", 494_032_768),
        ("Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen2.5-3B", 3_085_938_688),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen2.5-14B", 14_770_033_664),
        ("Qwen2.5-32B", 32_763_876_352),
        ("Qwen3-0.6B", 596_049_920),
        ("Qwen3-1.7B", 1_720_574_976),
        ("Qwen3-4B", 4_022_468_096),
        ("Qwen3-8B", 8_190_735_360),
        ("Qwen3-14B", 14_768_307_200),
        ("Qwen3-32B", 32_762_123_264),
        ("Llama-3.1-8B", 8_030_261_248),
    ],
)
def test_total_parameters_are_the_published_ones(name: str, total: int):
    assert known()[name].total_parameters == total


def test_lora_counts_of_rank_16_on_all_linears():
    assert known()["Qwen2.5-7B"].lora_parameters(16, TARGETS["full"]) == 40_370_176
    assert known()["Qwen3-14B"].lora_parameters(16, TARGETS["full"]) == 64_225_280


def test_coder_and_instruct_have_the_sizes_of_the_base_model():
    for size in ("0.5B", "1.5B", "3B", "7B", "14B", "32B"):
        counts = {
            known()[name].total_parameters
            for name in (
                f"Qwen2.5-{size}",
                f"Qwen2.5-{size}-Instruct",
                f"Qwen2.5-Coder-{size}",
                f"Qwen2.5-Coder-{size}-Instruct",
            )
        }
        assert len(counts) == 1


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("unsloth/Qwen3-8B-bnb-4bit", "Qwen3-8B"),
        ("Qwen/Qwen3-8B", "Qwen3-8B"),
        ("unsloth/Qwen3-8B-unsloth-bnb-4bit", "Qwen3-8B"),
        ("UNSLOTH/qwen3-8b-BNB-4bit", "Qwen3-8B"),
        ("Qwen2.5-Coder-1.5B-Instruct-bnb-4bit", "Qwen2.5-Coder-1.5B-Instruct"),
        ("unsloth/Qwen3-4B-Base-unsloth-bnb-4bit", "Qwen3-4B-Base"),
        ("/models/Qwen2.5-7B-Instruct/", "Qwen2.5-7B-Instruct"),
        ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", "Meta-Llama-3.1-8B"),
    ],
)
def test_find_matches(name: str, published: str):
    assert find(name) == known()[published]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Qwen3-8",
        "Qwen3-80B",
        "Qwen3-30B-A3B",
        "Qwen3-8B-Instruct-2507",
        "Qwen3-32B-Base",
        "Qwen2.5-VL-7B-Instruct",
        "Qwen2.5-Math-7B",
        "Qwen2.5-5B",
        "unsloth/Qwen3-8B-128K-bnb-4bit",
        "someone/Qwen3-8B-law",
        "Llama-3.2-1B",
        "meta-Qwen3-8B",
    ],
)
def test_find_never_guesses(name: str):
    assert find(name) is None


def test_the_2507_models_are_qwen3_4b_with_more_positions():
    plain, newer = shape_of("Qwen3-4B"), shape_of("unsloth/Qwen3-4B-Instruct-2507-bnb-4bit")
    assert newer.total_parameters == plain.total_parameters
    assert newer.projections == plain.projections
    assert (plain.max_position_embeddings, newer.max_position_embeddings) == (40960, 262144)


def test_is_dynamic():
    assert is_dynamic("unsloth/Qwen3-8B-unsloth-bnb-4bit")
    assert not is_dynamic("unsloth/Qwen3-8B-bnb-4bit")
    assert not is_dynamic("Qwen/Qwen3-8B")
    assert not is_dynamic("unsloth/Qwen3-32B-unsloth-bnb-4bit")


def test_from_config_gives_the_known_shape():
    config = {
        "model_type": "qwen3",
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "max_position_embeddings": 40960,
    }
    assert from_config(config, "Qwen3-8B") == known()["Qwen3-8B"]


def test_from_config_fills_in_what_the_file_leaves_out():
    config = {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "head_dim": None,
    }
    assert from_config(config, "Qwen2.5-0.5B") == known()["Qwen2.5-0.5B"]
    llama = from_config({**config, "model_type": "llama", "num_key_value_heads": None}, "old")
    assert (llama.kv_heads, llama.head_dim, llama.qkv_bias, llama.max_position_embeddings) == (14, 64, False, 2048)
    assert from_config({**config, "model_type": "qwen3"}, "new").head_dim == 128


def test_from_config_names_what_is_supported():
    with pytest.raises(SlimtuneError) as caught:
        from_config({"model_type": "gpt2"}, "my-model")
    message = str(caught.value)
    assert "'gpt2'" in message and "my-model" in message
    assert "Qwen2.5 (with Coder), Qwen3, Llama-architecture models with a ChatML template" in message


def test_from_config_reports_every_bad_size_at_once():
    config = {"model_type": "qwen3", "hidden_size": "4096", "num_hidden_layers": 0, "vocab_size": True, "head_dim": -1}
    with pytest.raises(SlimtuneError) as caught:
        from_config(config, "broken")
    named = [problem.what.split("'")[1] for problem in caught.value.problems]
    assert named == [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "head_dim",
    ]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("rope_scaling", "linear", "'rope_scaling' is 'linear', not an object"),
        ("rope_scaling", {"type": 7}, "the type in 'rope_scaling' is '7', not text"),
        ("rope_scaling", {"rope_type": "linear", "factor": -1}, "the factor in 'rope_scaling' is '-1'"),
        ("rope_parameters", {"factor": float("inf")}, "the factor in 'rope_parameters' is 'inf'"),
        ("rope_theta", 0, "'rope_theta' is 0, not a positive number"),
        ("rms_norm_eps", "1e-6", "'rms_norm_eps' is '1e-6', not a number"),
        ("tie_word_embeddings", "no", "'tie_word_embeddings' is 'no', not true or false"),
        ("architectures", "Qwen3ForCausalLM", "'architectures' is 'Qwen3ForCausalLM', not a list"),
        ("hidden_size", 10**30, "'hidden_size' is '1000000000000000000000000000000'"),
    ],
)
def test_what_loading_could_not_use_is_refused_in_the_plan(key, value, told):
    config = {"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 4, "vocab_size": 512, "rope_scaling": None}
    assert from_config(config, "sound").layers == 2
    with pytest.raises(SlimtuneError) as caught:
        from_config(config | {key: value}, "broken")
    assert caught.value.problems[0].what.startswith(told)
