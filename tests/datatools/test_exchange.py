"""Conversations survive the way out and back; what a layout cannot hold is refused or counted."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimtune.core.errors import SlimtuneError
from slimtune.data.formats import convert
from slimtune.data.json_rows import Row
from slimtune.data.records import Conversation, Message
from slimtune.datatools.exchange import broken_rules, cost, is_single_turn, read_files, to_rows
from slimtune.plan.lengths import Lengths

texts = st.text("あがabc \n<>「」", min_size=1).filter(str.strip)


@st.composite
def conversations(draw):
    messages = [Message("system", draw(texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages += [Message("user", draw(texts)), Message("assistant", draw(texts))]
    return Conversation(tuple(messages), draw(st.dictionaries(st.sampled_from(["id", "mode"]), texts)))


@pytest.mark.parametrize("layout", ["openai", "messages", "alpaca", "sharegpt", "input_output"])
@given(conversation=conversations())
def test_out_and_back(layout, conversation):
    if layout in ("alpaca", "input_output") and not is_single_turn(conversation):
        with pytest.raises(SlimtuneError, match="turns"):
            to_rows([conversation], layout)
        return
    rows, losses = to_rows([conversation], layout)
    row = Row(1, json.loads(json.dumps(rows[0])))
    problems = []
    back = convert(row, "messages" if layout == "openai" else layout, path="f", problems=problems)
    assert not problems and back.conversation.messages == conversation.messages
    assert back.conversation.meta == ({} if layout == "openai" else conversation.meta)
    assert len(losses) == (layout == "openai" and bool(conversation.meta))


def test_losses_are_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    turn = {"role": "assistant", "content": "か\u3099", "weight": 0}
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "q"}, turn], "extra": 1}), "utf-8")
    losses = " ".join(read_files([str(path)])[1])
    assert "1 row: the key 'extra'" in losses and "form C" in losses
    assert "'weight' of turns is dropped: every turn of the assistant is trained on" in losses


def test_the_services_limits():
    one = Conversation((Message("user", "q"), Message("assistant", "a")), {}, "f", 3)
    few = broken_rules([one], [{}], Lengths((5,), (1,), False), longest=4)
    assert [problem.where for problem in few] == ["--to openai", "f:3"]
    many = broken_rules([one] * 30, [{}] * 30, Lengths((5,) * 30, (1,) * 30, False), longest=4)
    assert len(many) == 21 and many[-1].what == "10 more rows are too long"
    assert broken_rules([one] * 10, [{}] * 10, Lengths((4,) * 10, (1,) * 10, False), longest=4) == []
    assert cost(1_000_000, 3, 25) == 75
