"""What a held-out file asks: every row that is no question is named, all at once."""

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation, Message, ToolCall
from slimtune.evaluate import items
from slimtune.evaluate.kinds.kind import Settings

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


def test_calls_tools_and_excluded_answers_cannot_be_judged():
    asked, called = Message("user", "天気は。"), Message("assistant", "", tool_calls=(ToolCall("weather", "{}"),))
    plain = Message("assistant", "晴れ")
    rows = [
        Conversation((asked, called), {}, "test.jsonl", 1),
        Conversation((asked, called, Message("tool", "晴れ"), plain), {}, "test.jsonl", 2),
        Conversation((asked, plain), {}, "test.jsonl", 3, tools="[]"),
        Conversation((asked, plain, asked, Message("assistant", "雨", excluded=True)), {}, "test.jsonl", 4),
        Conversation((asked, Message("assistant", "雨", excluded=True), asked, plain), {}, "test.jsonl", 5),
    ]
    with pytest.raises(SlimtuneError) as caught:
        items.read(rows, "generation")
    assert [problem.where for problem in caught.value.problems] == [f"test.jsonl:{line}" for line in (1, 2, 3, 4)]


def test_fewer_items_than_asked_for_are_an_error():
    rows = [conversation(1), conversation(2)]
    assert items.first(rows, 1, "test.jsonl") == rows[:1]
    assert items.first(rows, None, "test.jsonl") == rows
    with pytest.raises(SlimtuneError, match=r"test.jsonl: you asked for 3 items, but the file has 2"):
        items.first(rows, 3, "test.jsonl")


@pytest.fixture
def tokenizer(template_folder):
    return ChatTokenizer(template_folder("qwen3"))


def asked(line, text="期間は。", answer="b", **meta):
    meta = {"choices": CHOICES, "correct": "b", **meta}
    return Conversation((Message("user", text), Message("assistant", answer)), meta, "test.jsonl", line)


def refused(rows, tokenizer, settings, max_length=256):
    """Where the items cannot be asked."""
    with pytest.raises(SlimtuneError, match="The evaluation set cannot be used") as caught:
        items.require_askable(items.read(rows, settings.kind), settings, tokenizer, max_length)
    return [problem.where for problem in caught.value.problems]


def test_questions_without_room_for_an_answer_are_all_named(tokenizer):
    rows = [asked(1), asked(2, "長い。" * 300), asked(3, "長い。" * 400)]
    assert refused(rows, tokenizer, Settings()) == ["test.jsonl:2", "test.jsonl:3"]
    # An argued reply needs room of its own.
    assert refused(rows[:1], tokenizer, Settings(mode="cot", max_new_tokens=250)) == ["test.jsonl:1"]
    items.require_askable(
        items.read(rows[:1], "multiple_choice"), Settings(mode="cot", max_new_tokens=100), tokenizer, 256
    )


def test_references_without_room_are_named(tokenizer):
    assert refused([asked(7, answer="十日。" * 300)], tokenizer, Settings(kind="perplexity")) == ["test.jsonl:7"]


def test_labels_that_are_no_single_token_are_named_once(tokenizer):
    odd = {"choices": {"first": "x", "second": "y"}, "correct": "first"}
    rows = [asked(1), asked(2, **odd), asked(3, **odd)]
    assert refused(rows, tokenizer, Settings()) == ["test.jsonl:2", "test.jsonl:2"]
    # A reply in words can name them.
    items.require_askable(items.read(rows, "multiple_choice"), Settings(by="text"), tokenizer, 256)


def test_all_that_is_wrong_with_a_question_is_said_of_it_and_fifty_questions_are_listed():
    rows = [conversation(line, choices={"a": "七日"}, correct="x") for line in range(1, 61)]
    with pytest.raises(SlimtuneError) as caught:
        items.read(rows, "multiple_choice")
    first, *_, last = caught.value.problems
    assert "1 choice" in first.what and "'x'" in first.what
    assert (len(caught.value.problems), last.what) == (51, "… and 10 more")


def test_too_few_orders_and_bad_rows_are_told_together():
    with pytest.raises(SlimtuneError) as caught:
        items.read([asked(1), asked(2, correct="c")], "multiple_choice", permutations=4)
    assert [problem.where for problem in caught.value.problems] == ["test.jsonl:2", "test.jsonl:1"]
