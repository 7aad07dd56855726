"""Examples of random words have exactly the lengths that were asked for, as the project's own loader counts them."""

import pytest

from benchmarks import random_data
from slimtune.data import loading
from slimtune.data.chat_template import ChatTokenizer
from slimtune.plan.lengths import of, packed_rows


@pytest.fixture(params=["qwen2.5", "qwen3"])
def tokenizer(request, template_folder):
    return ChatTokenizer(template_folder(request.param))


def load(path, mode="auto"):
    return loading.load_conversations([(str(path), 1.0)], mode=mode, system=None, format="auto", seed=0).conversations


def test_lengths_are_exact(tokenizer, tmp_path):
    wanted = [128, 128, 129, 333, 1024]
    path = random_data.write_examples(tmp_path / "rows.jsonl", wanted, tokenizer)
    lengths = of(tokenizer.examples_of(load(path)))
    assert list(lengths.tokens) == wanted
    # An answer, its end-of-turn token included: 30 % of the example and one more.
    assert list(lengths.supervised) == [round(0.3 * tokens) + 1 for tokens in wanted]


def test_an_example_shorter_than_its_template_is_refused(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="the template alone"):
        random_data.write_examples(tmp_path / "rows.jsonl", [20], tokenizer)


@pytest.mark.parametrize("row_length", [256, 1024, 8192])
def test_lengths_fill_the_rows(row_length):
    lengths = random_data.lengths_for_rows(10, row_length)
    assert packed_rows(lengths, row_length) == 10
    assert max(lengths) == row_length
    assert min(lengths) >= random_data.SHORTEST
    assert sum(lengths) / (10 * row_length) > 0.85
    assert lengths == random_data.lengths_for_rows(10, row_length)
    assert lengths != random_data.lengths_for_rows(10, row_length, seed=1)


def test_questions_can_be_scored(tokenizer, tmp_path):
    from slimtune.evaluate import items
    from slimtune.evaluate.kinds.kind import Settings

    path = random_data.write_questions(tmp_path / "questions.jsonl", 8, 200, tokenizer)
    asked = items.read(load(path, mode="direct"), "multiple_choice")
    items.require_askable(asked, Settings(), tokenizer, 512)
    assert [item.gold for item in asked] == ["a", "b", "c", "d"] * 2
    assert all(150 <= len(tokenizer.prompt_ids(item.prompt)) <= 250 for item in asked)
