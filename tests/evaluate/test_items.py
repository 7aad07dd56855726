"""What a held-out file asks: every row that is no question is named, all at once."""

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.data.records import Conversation, Message
from slimtune.evaluate import items

CHOICES = {"a": "七日", "b": "十日"}


def conversation(line, **meta):
    meta = {"id": f"q-{line}", "choices": CHOICES, "correct": "b", "source": "条例", "context": "第一条", **meta}
    messages = (Message("system", "簡潔に。"), Message("user", "期間は。"), Message("assistant", "b"))
    return Conversation(messages, meta, "test.jsonl", line)


def test_an_item_is_the_prompt_without_the_answer():
    (item,) = items.read([conversation(3)], "multiple_choice")
    assert [message.role for message in item.prompt] == ["system", "user"]
    assert (item.reference, item.gold, item.labels) == ("b", "b", ("a", "b"))
    assert (item.id, item.source, item.context, item.where) == ("q-3", "条例", "第一条", "test.jsonl:3")
    assert item.as_json()["messages"][1] == {"role": "user", "content": "期間は。"}


def test_rows_that_are_no_questions_are_all_named():
    rows = [conversation(1, choices=None), conversation(2, correct="e"), conversation(3), conversation(4, id="q-3")]
    with pytest.raises(SlimtuneError) as caught:
        items.read(rows, "multiple_choice")
    assert [problem.where for problem in caught.value.problems] == [f"test.jsonl:{line}" for line in (1, 2, 4)]


def test_free_form_rows_need_no_choices():
    (item,) = items.read([conversation(1, choices=None, correct=None, id=None)], "generation")
    assert (item.id, item.labels, item.gold) == ("test.jsonl:1", (), "")


def test_fewer_items_than_asked_for_are_an_error():
    rows = [conversation(1), conversation(2)]
    assert items.first(rows, 1, "test.jsonl") == rows[:1]
    assert items.first(rows, None, "test.jsonl") == rows
    with pytest.raises(SlimtuneError, match=r"test.jsonl: you asked for 3 items, but the file has 2"):
        items.first(rows, 3, "test.jsonl")
