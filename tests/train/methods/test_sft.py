"""The trainer does what the plan says, and a difference stops the run."""

import dataclasses

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation, Message

pytestmark = pytest.mark.unsloth


@pytest.fixture(scope="module")
def examples(tiny_model):
    tokenizer = ChatTokenizer(tiny_model("qwen3"))
    rows = [Conversation((Message("user", f"第{n}条は。"), Message("assistant", "abcd"[n % 4]))) for n in range(8)]
    return [example for row in rows for example in tokenizer.examples(row)]


def test_the_effective_settings_are_the_planned_ones(make_trainer, examples, a_plan):
    from slimtune.train import trainer as trainers

    trainer = make_trainer("qwen3", examples, weight_decay=0.02, warmup_steps=1)
    settings = trainers.effective_settings(trainer)
    trainers.compare_with_plan(settings, a_plan(weight_decay=0.02, warmup_steps=1))
    assert settings["train_rows"] == 8
    assert settings["weight_decay"] == 0.02


def test_dropped_packing_or_any_other_difference_is_an_error(make_trainer, examples, a_plan):
    from slimtune.train import trainer as trainers

    settings = trainers.effective_settings(make_trainer("qwen3", examples))
    with pytest.raises(SlimtuneError, match="nothing was trained") as caught:
        trainers.compare_with_plan(settings, dataclasses.replace(a_plan(), packing=True, optim="adamw_8bit"))
    assert "packing: planned True, but the trainer is set to False" in str(caught.value)
    assert "optim: planned 'adamw_8bit'" in str(caught.value)


@pytest.mark.parametrize("family", [pytest.param("qwen2", marks=pytest.mark.slow), "qwen3"])
def test_lora_counts_are_the_predicted_ones(make_trainer, examples, tiny_model, family):
    from slimtune.models import families
    from slimtune.models import shapes as models
    from slimtune.models.files import read_config
    from slimtune.train import trainer as trainers

    shape = models.from_config(read_config(tiny_model(family)), "tiny")
    for preset, targets in families.TARGETS.items():
        settings = trainers.effective_settings(make_trainer(family, examples, lora_targets=targets))
        assert settings["trainable_parameters"] == shape.lora_parameters(16, targets), preset


def test_training_lowers_the_loss_and_moves_only_the_adapter(make_trainer, examples):
    trainer = make_trainer("qwen3", examples, epochs=6, learning_rate=2e-3)
    frozen = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if not p.requires_grad}
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.5
    after = dict(trainer.model.named_parameters())
    assert all((after[name] == old).all() for name, old in frozen.items())


def test_a_missing_target_module_is_named(tiny_model, a_plan):
    from slimtune.models import load as models

    plan = a_plan(lora_targets=("q_proj", "qkv_proj"))
    model, _ = models.load(tiny_model("qwen3"), plan)
    with pytest.raises(SlimtuneError, match="no modules named qkv_proj"):
        models.add_lora(model, plan)


def test_the_adapter_names_its_base_and_appears_whole(make_trainer, examples, tmp_path):
    import json

    from slimtune.models import load as models

    trainer = make_trainer("qwen3", examples)
    models.save_adapter(
        trainer.model, trainer.processing_class, tmp_path / "adapter", base="unsloth/Qwen3-8B-bnb-4bit", revision="abc"
    )
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not list((tmp_path / "adapter").glob("*.bin"))
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text("utf-8"))
    assert (config["base_model_name_or_path"], config["revision"]) == ("unsloth/Qwen3-8B-bnb-4bit", "abc")
    assert not (tmp_path / "adapter.partial").exists()
