"""Letter log-probabilities: right whatever the batch, every spelling of a letter counted."""

import math

import pytest
import torch

from slimtune.data.chat import ChatTokenizer
from slimtune.data.types import Conversation, Message
from slimtune.errors import SlimtuneError
from slimtune.evaluate import multiple_choice

CHOICES = {"a": "七日", "b": "十日", "c": "二十日", "d": "三十日"}


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return ChatTokenizer(tiny_model("qwen3"))


@pytest.fixture(scope="module")
def model(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model("qwen3"), dtype=torch.float32)


def conversation(line, text, correct="b", **meta):
    meta = {"id": f"q-{line}", "choices": CHOICES, "correct": correct, "mode": "direct", "source": "条例", **meta}
    return Conversation((Message("user", text), Message("assistant", "b")), meta, "test.jsonl", line)


@pytest.fixture(scope="module")
def items(tokenizer):
    rows = [conversation(n, "届出の期間は。" * n, "abcd"[n % 4]) for n in range(1, 8)]
    return multiple_choice.questions(rows, tokenizer, max_length=512)


def score(model, tokenizer, items, batch_size):
    return multiple_choice.score(model, tokenizer, items, batch_size=batch_size, precision=torch.float32)


def test_a_question_is_the_rendered_prompt(items, tokenizer):
    text = tokenizer.decode(items[0].prompt_ids)
    assert text == "<|im_start|>user\n届出の期間は。<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert (items[0].id, items[0].gold, items[0].labels) == ("q-1", "b", ("a", "b", "c", "d"))


def test_the_batch_changes_nothing(model, tokenizer, items):
    alone, together = (score(model, tokenizer, items, batch_size) for batch_size in (1, 7))
    assert [result["id"] for result in together] == [item.id for item in items]
    for one, many in zip(alone, together, strict=True):
        assert one["predicted"] == many["predicted"]
        assert one["logprobs"] == pytest.approx(many["logprobs"], abs=1e-4)


def test_log_probabilities_are_the_models_own(model, tokenizer, items):
    with torch.no_grad():
        logits = model(torch.tensor([items[2].prompt_ids])).logits[0, -1]
    probabilities = torch.softmax(logits, dim=-1)
    result = score(model, tokenizer, items, batch_size=3)[2]
    for letter in "abcd":
        expected = sum(float(probabilities[i]) for i in multiple_choice.letter_variants(letter, tokenizer))
        assert math.exp(result["logprobs"][letter]) == pytest.approx(expected, rel=1e-4)
    assert result["label_mass"] == pytest.approx(sum(math.exp(v) for v in result["logprobs"].values()), abs=1e-5)
    assert result["greedy_token"] == int(logits.argmax())


def test_every_spelling_of_a_letter_is_counted(tokenizer):
    spellings = {tokenizer.decode([i]) for i in multiple_choice.letter_variants("a", tokenizer)}
    assert {"a", "A", " a", " A"} <= spellings <= {"a", "A", " a", " A", "ａ", "Ａ", " ａ", " Ａ"}
    ids = [set(multiple_choice.letter_variants(letter, tokenizer)) for letter in "abcd"]
    assert sum(map(len, ids)) == len(set.union(*ids))  # no token stands for two letters


def test_the_mode_of_the_model_is_left_as_it_was(model, tokenizer, items):
    for training in (True, False):
        model.train(training)
        score(model, tokenizer, items[:1], 1)
        assert model.training is training


def test_rows_that_are_no_questions_are_all_named(tokenizer):
    rows = [
        conversation(1, "x", choices=None),
        conversation(2, "x", correct="e"),
        conversation(3, "x"),
        conversation(4, "x", id="q-3"),
        conversation(5, "長い。" * 300),
    ]
    with pytest.raises(SlimtuneError) as caught:
        multiple_choice.questions(rows, tokenizer, max_length=256)
    assert [problem.where for problem in caught.value.problems] == [f"test.jsonl:{line}" for line in (1, 2, 4, 5)]
