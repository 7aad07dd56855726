"""A small run on examples of several lengths, and what it gives undisturbed."""

import pytest
from support.scarce_memory import finished


@pytest.fixture(scope="module")
def examples(tiny_model):
    """21 examples of 19 to 58 tokens."""
    from slimtune.data.chat_template import ChatTokenizer
    from slimtune.data.records import Conversation, Message

    tokenizer = ChatTokenizer(tiny_model("qwen3"))
    turns = [(f"第{n}条は。" * (1 + 5 * n % 7), "abcd"[n % 4] * (1 + n % 3)) for n in range(21)]
    rows = [Conversation((Message("user", asked), Message("assistant", answer))) for asked, answer in turns]
    return [example for row in rows for example in tokenizer.examples(row)]


@pytest.fixture(scope="module")
def build(tiny_model, a_plan, examples, tmp_path_factory):
    """(held_out=(), **plan changes) -> a trainer on a new model: weights, data order and settings always the same."""
    from slimtune.models import load as models
    from slimtune.train.methods import sft

    def make(held_out=(), **changes):
        settings = {"gradient_accumulation_steps": 2, "epochs": 1, "learning_rate": 1e-3, "save_steps": 1000}
        batches = {"per_device_train_batch_size": 5, "per_device_eval_batch_size": 5, "logging_steps": 1}
        plan = a_plan(precision="fp32", load_in_4bit=False, cpu_threads=1, **{**settings, **batches, **changes})
        model, tokenizer = models.load(tiny_model("qwen3"), plan)
        model = models.add_lora(model, plan)
        folder = tmp_path_factory.mktemp("run")
        trainer = sft.build_trainer(model, tokenizer, examples, held_out, plan, directory=folder)
        model.float()
        return trainer

    return make


@pytest.fixture(scope="module")
def undisturbed(build):
    return finished(build())
