"""The plan: values worked by hand, every one with its reason."""

import dataclasses

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.models import hardware
from slimtune.models import shapes as models
from slimtune.plan import make
from slimtune.plan.lengths import Lengths
from slimtune.plan.request import Data
from slimtune.recipe.schema import Recipe
from slimtune.run.prepare import request_of

CARD = hardware.card(10)
CPU = hardware.Hardware("cpu", "a processor", 16 * 2**30, True, 8, None)
QWEN3_8B = models.find("unsloth/Qwen3-8B-bnb-4bit")


def request(**sections):
    return request_of(_recipe(**sections))


def _recipe(**sections):
    return Recipe.model_validate({"name": "t", "data": {"train": [{"path": "t.jsonl"}]}, **sections})


def plan(lengths, where=CARD, shape=QWEN3_8B, **sections):
    held_out = lengths if "eval" in sections.get("data", {}) else None
    return make.make(request(**sections), Data(lengths, held_out), shape, where)


def equal(count, tokens):
    return Lengths((tokens,) * count, (2,) * count, exact=True)


def test_packed_rows_hold_the_effective_batch():
    made = plan(equal(96, 128), train={"effective_batch_size": 8})
    assert made.packing
    # 8 · 128 = 1024 tokens a step, whole or in two rows, never in another number of examples.
    assert made.per_device_train_batch_size * made.gradient_accumulation_steps * made.row_length == 1024
    assert made.total_steps == 12 * 3  # 96 examples, 8 a step, three epochs


def test_long_batches_are_accumulated():
    made = plan(equal(64, 1000), train={"effective_batch_size": 16}, model={"max_seq_length": 2048})
    examples_per_row = made.row_length // 1000
    assert made.per_device_train_batch_size * examples_per_row * made.gradient_accumulation_steps == 16
    assert made.total_steps == 4 * 3


def test_what_the_recipe_fixes_is_kept():
    fixed = {"row_length": 2048, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
    kept = {"checkpoint_skip_layers": 1, "double_buffer": False}
    made = plan(equal(64, 500), train={**fixed, **kept}, model={"offload_embedding": True})
    assert {name: getattr(made, name) for name in fixed | kept} == fixed | kept
    assert made.offload_embedding and made.micro_batch_tokens == 4096
    assert all(made.reasons[name].startswith("recipe") for name in ("row_length", "checkpoint_skip_layers"))


def test_rows_are_long_enough_for_held_out_examples():
    data = Data(equal(96, 100), held_out=Lengths((700,), (2,), exact=True))
    made = make.make(request(train={"effective_batch_size": 4}), data, QWEN3_8B, CARD)
    assert made.row_length >= 700


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"train": {"row_length": 256}}, "256 tokens a row, but the longest example has 500"),
        ({"train": {"checkpoint_skip_layers": 37}}, "37 layers, but Qwen3-8B has 36"),
        ({"model": {"offload_layers": 36}}, "at most 35"),
        ({"model": {"offload_layers": 2}, "train": {"gradient_checkpointing": True}}, "set it to unsloth"),
    ],
)
def test_knobs_that_this_model_cannot_have(sections, complaint):
    with pytest.raises(SlimtuneError, match=complaint):
        plan(equal(10, 500), **sections)


def test_a_tied_embedding_cannot_leave_the_card():
    with pytest.raises(SlimtuneError, match="one matrix for embedding and head"):
        plan(equal(10, 500), shape=models.find("Qwen3-4B"), model={"offload_embedding": True})


def test_the_budget_is_the_smaller_of_recipe_and_card():
    small = dataclasses.replace(CARD, memory_bytes=8 * 2**30)
    made = plan(equal(96, 128), small)
    assert made.budget_bytes == plan(equal(96, 128), budget={"vram_gb": 8}).budget_bytes
    assert "the card has 8.0 GiB" in " ".join(made.notes)
    busy = dataclasses.replace(CARD, used_bytes=2**30)
    made = plan(equal(96, 128), busy)
    assert made.budget_bytes == round(0.95 * 9 * 2**30)
    assert "Other programs hold 1.00 GiB" in " ".join(made.notes)
    assert made.memory_limit_bytes == made.budget_bytes - made.memory.items["CUDA context"]


def test_a_last_resort_is_taken_only_where_it_is_allowed_and_says_so():
    with pytest.raises(SlimtuneError, match="does not fit"):
        plan(equal(96, 128), budget={"vram_gb": 5})
    made = plan(equal(96, 128), budget={"vram_gb": 5, "last_resorts": True})
    assert made.offload_layers > 0 and made.checkpoint_skip_layers == 0
    assert made.peak_bytes <= made.budget_bytes
    assert "Last resort" in " ".join(made.notes)
    tiny = plan(equal(96, 128), budget={"vram_gb": 4.2, "last_resorts": True}, lora={"rank": 64, "alpha": 128})
    assert tiny.lora_rank < 64 and tiny.lora_alpha == 2 * tiny.lora_rank
    assert "LoRA rank 32 instead of 64" in " ".join(tiny.notes)


def test_a_cpu_pads_and_says_so():
    made = plan(equal(98, 200), CPU, train={"effective_batch_size": 16, "epochs": 2})
    assert not made.packing
    assert made.optim == "adamw_torch_fused"
    assert made.per_device_train_batch_size * made.gradient_accumulation_steps == 16
    assert made.total_steps == 7 * 2  # ceil(98/8) = 13 batches, ceil(13/2) = 7 steps
    assert "padded batches instead of packing" in " ".join(made.notes)
    assert "CPU backend" in made.reasons["packing"]
    assert made.memory.total_bytes <= made.budget_bytes
    assert made.estimate is None and made.memory_limit_bytes is None


def test_what_does_not_fit_into_the_computer_is_refused_too():
    small = dataclasses.replace(CPU, memory_bytes=2**30)
    with pytest.raises(SlimtuneError, match="does not fit into this computer") as caught:
        plan(equal(10, 100), small)
    assert caught.value.exit_code == 3


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
    assert made.memory.total_bytes <= made.peak_bytes <= made.budget_bytes
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
