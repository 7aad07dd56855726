"""Whether packed examples see each other: the verdict by hand, and on a CPU's trainer."""

import json

import pytest
from support.lazy import Lazy

from benchmarks import random_data
from slimtune.data import loading
from slimtune.data.chat_template import IGNORE_INDEX, ChatTokenizer, Example

pytestmark = pytest.mark.unsloth
packing_check = Lazy("benchmarks.packing_check")  # before torch
torch = Lazy("torch")


def same(mean):
    return {"largest": 10 * mean, "mean": mean, "same_argmax": 1.0}


@pytest.mark.parametrize(
    ("packed", "noise", "control", "apart"),
    [
        (0.001, 0.001, 0.5, True),  # rounding
        (0.004, 0.001, 0.5, True),
        (0.02, 0.001, 0.5, True),  # more than that, but nothing like a leak: another kernel
        (0.03, 0.001, 0.5, False),
        (0.5, 0.001, 0.5, False),  # as bad as without boundaries
        (0.0, 0.0, 0.5, True),  # exact arithmetic
        (0.1, 0.0, 0.5, False),
        (0.001, 0.1, 0.5, None),  # a leak would drown in rounding
        (0.0, 0.0, 0.0, None),  # the model looks at nothing
    ],
)
def test_the_verdict(packed, noise, control, apart):
    assert packing_check.verdict(same(packed), same(noise), same(control)) is apart


def test_differences_leave_out_the_first_example_and_average_over_positions():
    first = torch.full((3, 2), 9.0)
    one = [first, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0]])]
    other = [torch.zeros(3, 2), torch.tensor([[1.0, 0.5], [2.0, 1.0]]), torch.tensor([[0.0, 1.0]])]
    # Gaps of the three positions: (0, 0.5), (2, 0), (1, 1); the likeliest token stays in the first only.
    found = packing_check.differences(one, other)
    assert found["largest"] == 2.0
    assert found["mean"] == pytest.approx((0.25 + 1.0 + 1.0) / 3)
    assert found["same_argmax"] == pytest.approx(1 / 3)


def examples_of(folder, tmp_path, count=4):
    tokenizer = ChatTokenizer(folder)
    path = random_data.write_examples(tmp_path / "rows.jsonl", [128 + 8 * n for n in range(count)], tokenizer)
    loaded = loading.load_conversations([(str(path), 1.0)], mode="auto", system=None, format="auto", seed=0)
    return [example for conversation in loaded.conversations for example in tokenizer.examples(conversation)]


@pytest.mark.parametrize("family", [pytest.param("qwen2", marks=pytest.mark.slow), "qwen3"])
def test_on_a_cpu_it_measures_and_tells_what_it_found(family, make_trainer, tiny_model, tmp_path):
    """Transformers' own attention keeps rows with restarting positions apart; a row without them shows the leak."""
    examples = examples_of(tiny_model(family), tmp_path)
    trainer = make_trainer(family, examples)
    was_training = trainer.model.training
    found = packing_check.check(trainer.model, trainer, examples, torch.bfloat16)
    assert found["packed_by"].startswith("hand")
    assert found["row_tokens"] == sum(len(example.input_ids) for example in examples)
    assert found["control"]["mean"] > 10 * found["packed"]["mean"]
    assert found["apart"] is True
    assert found["labels_survive"] is True
    assert trainer.model.training is was_training
    json.dumps(found)


@pytest.mark.slow
def test_a_model_whose_examples_see_each_other_is_told_apart(make_trainer, tiny_model, tmp_path, monkeypatch):
    """The same check where nothing says where an example begins: the row leaks, and the verdict says so."""
    examples = examples_of(tiny_model("qwen3"), tmp_path)
    trainer = make_trainer("qwen3", examples)

    def without_boundaries(trainer, examples):
        batch, how = packed_batch(trainer, examples)
        return {name: values for name, values in batch.items() if name != "position_ids"}, how

    packed_batch = packing_check.packed_batch
    monkeypatch.setattr(packing_check, "packed_batch", without_boundaries)
    found = packing_check.check(trainer.model, trainer, examples, torch.bfloat16)
    assert found["packed"] == found["control"]
    assert found["apart"] is False


@pytest.mark.parametrize(
    ("labels", "survive"),
    [
        ([-100, -100, 3, -100, 5, 6], True),
        ([-100, -100, 3, -100, 5, 6, -100, -100], True),  # the collator's padding
        ([-100, -100, 3, 4, 5, 6], False),  # an example's first token is predicted from the one before it
        ([-100, -100, -100, -100, 5, 6], False),
        ([-100, -100, 3, -100, 5, 6, 1], False),
    ],
)
def test_labels_survive(labels, survive):
    examples = [Example((1, 2, 3), (IGNORE_INDEX, IGNORE_INDEX, 3), "a"), Example((4, 5, 6), (4, 5, 6), "b")]
    assert packing_check.labels_survive({"labels": torch.tensor([labels])}, examples) is survive
