"""What a real model on a CPU takes, against the arithmetic: to the byte where nothing but counting is needed."""

import itertools

import pytest

from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation, Message
from slimtune.models.families import TARGETS
from slimtune.models.shapes import from_config
from slimtune.plan.memory import ram

pytestmark = pytest.mark.unsloth


def examples_of(folder, count=4):
    tokenizer = ChatTokenizer(folder)
    rows = [
        Conversation((Message("user", "第" * (5 + 7 * n) + "条は。"), Message("assistant", "a"))) for n in range(count)
    ]
    return [example for row in rows for example in tokenizer.examples(row)]


def predicted(folder, plan, examples):
    from slimtune.models.files import read_config

    return ram.predict(
        from_config(read_config(folder), "tiny"),
        quantisation="nf4" if plan.load_in_4bit else "16bit",
        precision=plan.precision,
        rank=plan.lora_rank,
        targets=plan.lora_targets,
        tokens=len(examples) * max(len(example.input_ids) for example in examples),
        rows=len(examples),
        gradient_checkpointing="true" if plan.gradient_checkpointing else "none",
    )


def build(folder, plan, directory):
    from slimtune.models import load as models
    from slimtune.train.methods import sft

    model, tokenizer = models.load(folder, plan)
    model = models.add_lora(model, plan)
    examples = examples_of(folder)
    return sft.build_trainer(model, tokenizer, examples, (), plan, directory=directory), examples


def assert_exact(folder, plan, directory):
    from slimtune.models import load as models
    from slimtune.train import trainer as trainers

    trainer, examples = build(folder, plan, directory)
    stored = models.memory_bytes(trainer.model)
    trainer.train()
    expected = ram.comparable(predicted(folder, plan, examples))
    assert {**stored, **trainers.peak_memory(trainer, {})} == {
        name: expected[name] for name in ("weights", "LoRA weights", "optimizer state")
    }


def test_the_built_in_model_to_the_byte(a_plan, tmp_path):
    from slimtune.models import builtin

    assert_exact(builtin.resolve("builtin:tiny-qwen3"), a_plan(max_steps=1), tmp_path)


def cases(*quick):
    """Every family with two choices; those that are not named here are in `make test-all` only."""
    every = itertools.product(["qwen2", "qwen3"], [True, False], [True, False])
    return [pytest.param(*case, marks=[] if case in quick else pytest.mark.slow) for case in every]


@pytest.mark.parametrize(("family", "tied", "load_in_4bit"), cases(("qwen3", True, True), ("qwen2", False, False)))
def test_random_models_to_the_byte(tiny_model, a_plan, tmp_path, family, tied, load_in_4bit):
    targets = TARGETS["full"] if tied else TARGETS["minimal"]
    plan = a_plan(max_steps=1, load_in_4bit=load_in_4bit, lora_targets=targets, lora_rank=8)
    assert_exact(tiny_model(family, tied), plan, tmp_path)


@pytest.mark.parametrize(("family", "bf16", "load_in_4bit"), cases(("qwen3", True, True), ("qwen2", False, False)))
def test_saved_activations_are_those_of_the_formula(tiny_model, a_plan, tmp_path, family, bf16, load_in_4bit):
    """Everything that autograd keeps of a padded batch, counted where it lies."""
    import torch

    precision = "bf16" if bf16 else "fp32"

    folder = tiny_model(family)
    plan = a_plan(gradient_checkpointing=False, precision=precision, load_in_4bit=load_in_4bit)
    trainer, examples = build(folder, plan, tmp_path)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(len(examples))])
    parameters = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    trainer.model.train()
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")  # as accelerate does
    with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = trainer.compute_loss(trainer.model, batch)
    counted = sum(size for place, size in saved.items() if place not in parameters)
    assert loss.requires_grad
    items = predicted(folder, plan, examples).items
    # Beside that: rotary tables and the loss.
    assert counted == pytest.approx(items["kept activations"] + items.get("LoRA in 16 bit", 0), rel=0.03)
