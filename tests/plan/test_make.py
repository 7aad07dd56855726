"""The plan: values worked by hand, every one with its reason."""

import dataclasses

import pytest

from slimtune.errors import SlimtuneError
from slimtune.plan import hardware, make, models
from slimtune.plan.lengths import Lengths
from slimtune.recipe import Recipe

CARD = hardware.card(10)
CPU = hardware.Hardware("cpu", "a processor", 16 * 2**30, True, 8, None)
QWEN3_8B = models.find("unsloth/Qwen3-8B-bnb-4bit")


def recipe(**sections):
    return Recipe.model_validate({"name": "t", "data": {"train": [{"path": "t.jsonl"}]}, **sections})


def plan(lengths, where=CARD, shape=QWEN3_8B, **sections):
    return make.make(recipe(**sections), lengths, shape, where)


def equal(count, tokens):
    return Lengths((tokens,) * count, (2,) * count, exact=True)


def test_packed_rows_hold_the_effective_batch():
    made = plan(equal(96, 128), train={"effective_batch_size": 8})
    assert made.packing
    assert made.row_length == 8 * 128  # eight examples of 128 tokens
    assert (made.per_device_train_batch_size, made.gradient_accumulation_steps) == (1, 1)
    assert made.total_steps == 12 * 3  # 96 / 8 rows, three epochs


def test_long_batches_are_accumulated():
    made = plan(equal(64, 1000), train={"effective_batch_size": 16}, model={"max_seq_length": 2048})
    assert made.row_length == 2048  # two examples fit
    assert made.gradient_accumulation_steps == 8
    assert made.total_steps == 32 // 8 * 3


def test_a_cpu_pads_and_says_so():
    made = plan(equal(98, 200), CPU, train={"effective_batch_size": 16, "epochs": 2})
    assert not made.packing
    assert made.optim == "adamw_torch_fused"
    assert made.per_device_train_batch_size * made.gradient_accumulation_steps == 16
    assert made.total_steps == 7 * 2  # ceil(98/8) = 13 batches, ceil(13/2) = 7 steps
    assert "padded batches instead of packing" in " ".join(made.notes)
    assert "CPU backend" in made.reasons["packing"]
    assert made.memory is None


def test_a_tiny_model_gets_one_thread_and_a_real_one_every_core():
    tiny = dataclasses.replace(models.find("Qwen3-0.6B"), vocab_size=2048, hidden_size=128, intermediate_size=256)
    assert plan(equal(10, 100), CPU, tiny).cpu_threads == 1
    assert plan(equal(10, 100), CPU).cpu_threads == CPU.cores
    assert plan(equal(10, 100)).cpu_threads is None


def test_a_six_step_run_still_has_a_curve():
    made = plan(
        equal(24, 100),
        CPU,
        train={"effective_batch_size": 4, "epochs": 1},
        data={"train": [{"path": "t"}], "eval": "e"},
    )
    assert made.total_steps == 6
    assert (made.logging_steps, made.eval_steps, made.save_steps) == (1, 1, 1)


def test_saving_follows_evaluation():
    data = {"train": [{"path": "t"}], "eval": "e"}
    made = plan(
        equal(8000, 100),
        CPU,
        data=data,
        train={"effective_batch_size": 8, "epochs": 1, "eval_steps": 100, "save_steps": 250},
    )
    assert made.total_steps == 1000
    assert (made.eval_steps, made.save_steps) == (100, 200)


def test_max_steps_wins():
    made = plan(equal(96, 128), CPU, train={"max_steps": 5, "warmup_ratio": 0.1})
    assert (made.total_steps, made.max_steps, made.warmup_steps) == (5, 5, 1)


def test_the_memory_of_a_card_is_predicted_and_kept_to():
    made = plan(equal(96, 128))
    assert made.memory.total_bytes <= made.budget_bytes
    with pytest.raises(SlimtuneError, match="does not fit") as caught:
        plan(equal(96, 128), shape=models.find("Qwen3-32B"))
    assert caught.value.exit_code == 3


def test_overlong_examples_are_refused_above_the_share_that_the_recipe_allows():
    lengths = Lengths((100,) * 99 + (3000,), (2,) * 100, exact=True)
    with pytest.raises(SlimtuneError, match="1 of 100 examples are longer than max_seq_length 2048") as caught:
        plan(lengths)
    assert "set model.max_seq_length=3000" in str(caught.value)
    data = {"train": [{"path": "t"}], "max_overlong": 0.01}
    assert plan(lengths, data=data).total_steps > 0


def test_a_context_beyond_the_models_positions_is_refused():
    with pytest.raises(SlimtuneError, match="more than the 40960 positions"):
        plan(equal(10, 100), model={"max_seq_length": 65536})


def test_an_old_card_computes_in_fp16():
    turing = dataclasses.replace(CARD, name="T4", bf16=False, compute_capability=(7, 5))
    assert plan(equal(10, 100), turing).precision == "fp16"


def test_every_planned_setting_is_in_the_json_with_a_reason():
    made = plan(equal(96, 128))
    settings = made.as_json()["settings"]
    assert set(settings) == set(made.settings)
    assert all(entry["reason"] for entry in settings.values())
    assert "reasons" not in settings and "memory" not in settings
