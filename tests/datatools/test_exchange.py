"""Conversations survive the way out and back; what a layout cannot hold is refused or counted."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimtune.core.errors import SlimtuneError
from slimtune.data.formats import convert
from slimtune.data.json_rows import Row
from slimtune.data.records import Conversation, Message, ToolCall
from slimtune.datatools.exchange import broken_rules, cost, is_single_turn, own_layout, read_files, to_rows
from slimtune.plan.lengths import Lengths

texts = st.text("あがabc \n<>「」", min_size=1).filter(str.strip)


TOOLS = json.dumps([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}])


@st.composite
def conversations(draw):
    messages = [Message("system", draw(texts))] if draw(st.booleans()) else []
    tools = ""
    for left_out in [*draw(st.lists(st.booleans(), max_size=2)), False]:
        messages.append(Message("user", draw(texts)))
        if cities := draw(st.lists(texts, max_size=2)) if draw(st.booleans()) else []:
            tools = TOOLS
            calls = tuple(ToolCall("weather", json.dumps({"city": city}, ensure_ascii=False)) for city in cities)
            messages += [Message("assistant", "", left_out, calls), *(Message("tool", city) for city in cities)]
        messages.append(Message("assistant", draw(texts), left_out))
    return Conversation(
        tuple(messages), tools=tools, meta=draw(st.dictionaries(st.sampled_from(["id", "mode"]), texts))
    )


@pytest.mark.parametrize("layout", ["openai", "messages", "alpaca", "sharegpt", "input_output"])
@given(conversation=conversations())
def test_out_and_back(layout, conversation):
    if layout in ("alpaca", "input_output") and not is_single_turn(conversation):
        with pytest.raises(SlimtuneError, match=r"turns|calls functions"):
            to_rows([conversation], layout)
        return
    rows, losses = to_rows([conversation], layout)
    row = Row(1, json.loads(json.dumps(rows[0])))
    problems = []
    back = convert(row, "messages" if layout == "openai" else layout, path="f", problems=problems)
    assert not problems and back.conversation == conversation
    assert back.conversation.meta == ({} if layout == "openai" else conversation.meta)
    assert len(losses) == (layout == "openai" and bool(conversation.meta))


def test_losses_are_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    turn = {"role": "assistant", "content": "か\u3099", "model": "m"}
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "q"}, turn], "extra": 1}), "utf-8")
    losses = " ".join(read_files([str(path)])[1])
    assert "1 row: the key 'extra'" in losses and "form C" in losses
    assert "the key 'messages[].model' is dropped" in losses


CALLS = (ToolCall("weather", '{"city": "奈良"}'), ToolCall("weather", '{"city": "岡山"}'))


@pytest.mark.parametrize("layout", ["openai", "messages", "sharegpt"])
def test_calls_their_answers_and_excluded_turns_survive(layout):
    turns = (
        Message("user", "q"),
        Message("assistant", "a", excluded=True),
        Message("user", "天気は。"),
        Message("assistant", "", tool_calls=CALLS),
        Message("tool", "晴れ"),
        Message("tool", "雨"),
        Message("assistant", "奈良は晴れです。"),
    )
    one = Conversation(turns, {}, "f", 1, TOOLS)
    (row,), losses = to_rows([one], layout)
    problems = []
    back = convert(
        Row(1, json.loads(json.dumps(row))), "messages" if layout == "openai" else layout, path="f", problems=problems
    )
    assert (problems, losses) == ([], []) and back.conversation == one and back.excluded == 1
    if layout == "openai":
        calls, first, second = row["messages"][3]["tool_calls"], row["messages"][4], row["messages"][5]
        assert [call["id"] for call in calls] == [first["tool_call_id"], second["tool_call_id"]]
        assert isinstance(calls[0]["function"]["arguments"], str)


def test_what_a_layout_of_one_answer_cannot_hold_is_refused():
    calling = Conversation((Message("user", "q"), Message("assistant", "", tool_calls=CALLS[:1])), {}, "f", 1)
    for layout in ("alpaca", "input_output"):
        with pytest.raises(SlimtuneError, match="calls functions"):
            to_rows([calling], layout)
    saying = Conversation((Message("user", "q"), Message("assistant", "見ます。", tool_calls=CALLS[:1])), {}, "f", 1)
    with pytest.raises(SlimtuneError, match="says something and calls functions"):
        to_rows([saying], "sharegpt")
    assert own_layout([calling]) == "messages"


def test_the_services_limits():
    one = Conversation((Message("user", "q"), Message("assistant", "a")), {}, "f", 3)
    few = broken_rules([one], [{}], Lengths((5,), (1,), False), longest=4)
    assert [problem.where for problem in few] == ["--to openai", "f:3"]
    many = broken_rules([one] * 30, [{}] * 30, Lengths((5,) * 30, (1,) * 30, False), longest=4)
    assert len(many) == 21 and many[-1].what == "10 more rows are too long"
    assert broken_rules([one] * 10, [{}] * 10, Lengths((4,) * 10, (1,) * 10, False), longest=4) == []
    assert cost(1_000_000, 3, 25) == 75
