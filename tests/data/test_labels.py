"""Which tokens carry loss where a conversation has excluded turns, reasoning, or tools; and what no template may drop."""

import json

import pytest

from slimtune import models  # noqa: F401  tells data/text the tags around a thought
from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import IGNORE_INDEX, ChatTokenizer
from slimtune.data.records import Conversation, Message, ToolCall
from slimtune.datatools import preview

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "今日の天気 <b>&amp;</b>",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TOOLS = json.dumps([WEATHER], ensure_ascii=False)
CALL = ToolCall("get_weather", json.dumps({"city": '京都 "東" <山>', "days": 2, "exact": True}, ensure_ascii=False))
CALLED = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "京都 \\"東\\" <山>", "days": 2, "exact": true}}\n</tool_call>'
THINK = "<think>\n\n</think>\n\n"


def user(text):
    return Message("user", text)


def answer(text, **more):
    return Message("assistant", text, **more)


@pytest.fixture
def chat(template_folder):
    return lambda family, thinking=False: ChatTokenizer(template_folder(family), thinking)


def learned(tokenizer, example):
    """The texts that carry loss, in turn, and the whole text."""
    runs, before = [], False
    for token, label in zip(example.input_ids, example.labels, strict=True):
        assert label in (token, IGNORE_INDEX)
        if label != IGNORE_INDEX:
            runs[-1:] = [[*runs[-1], token]] if before else [*runs[-1:], [token]]
        before = label != IGNORE_INDEX
    return [tokenizer.decode(ids) for ids in runs], tokenizer.decode(example.input_ids)


def refusal(tokenizer, *messages, tools=""):
    with pytest.raises(SlimtuneError) as caught:
        tokenizer.examples(Conversation(messages, path="x.jsonl", line=7, tools=tools))
    (problem,) = caught.value.problems
    assert problem.where == "x.jsonl:7"
    return f"{problem.what} → {problem.fix}"


# ---- excluded turns --------------------------------------------------------------------------------------------------

TURNS = (user("問一"), answer("答一"), user("問二"), answer("答二"), user("問三"), answer("答三"))


def without_loss(*which):
    """TURNS with the answers of these numbers excluded."""
    return Conversation(
        tuple(Message(one.role, one.content, place // 2 + 1 in which) for place, one in enumerate(TURNS))
    )


def test_an_excluded_turn_stands_in_the_history_without_loss(chat):
    tokenizer = chat("qwen2.5")
    (whole,) = tokenizer.examples(without_loss())
    (example,) = tokenizer.examples(without_loss(2))
    assert list(example.input_ids) == list(whole.input_ids)
    assert learned(tokenizer, example)[0] == ["答一<|im_end|>", "答三<|im_end|>"]
    (example,) = tokenizer.examples(without_loss(1, 2))
    assert learned(tokenizer, example)[0] == ["答三<|im_end|>"]
    assert example.supervised_tokens == len(tokenizer.encode("答三<|im_end|>"))


def test_where_turns_become_examples_an_excluded_one_makes_none(chat):
    tokenizer = chat("qwen3")
    first, last = (learned(tokenizer, one) for one in tokenizer.examples(without_loss(2)))
    assert (first[0], last[0]) == (["答一<|im_end|>"], ["答三<|im_end|>"])
    assert "assistant\n答二<|im_end|>" in last[1] and "答二" not in first[1]


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_excluded_turns_at_the_end_are_no_part_of_an_example(chat, family):
    tokenizer = chat(family)
    (example,) = tokenizer.examples(without_loss(2, 3))
    assert learned(tokenizer, example)[0] == ["答一<|im_end|>"]
    assert learned(tokenizer, example)[1].endswith("答一<|im_end|>")
    assert tokenizer.examples(without_loss(1, 2, 3)) == []
    tail = tokenizer.excluded_tail(without_loss(2, 3))
    assert tail.supervised_tokens == 0 and "答三" in tokenizer.decode(tail.input_ids)
    assert tokenizer.excluded_tail(without_loss(2)) is None


def test_preview_shows_excluded_turns_as_not_learned(chat):
    tokenizer = chat("qwen2.5")
    (example,) = tokenizer.examples(without_loss(2))
    shown = preview.segments(example, tokenizer, 4096)
    assert ["答二" in one.text for one in shown if one.supervised] == [False] * 4
    assert any("答二" in one.text for one in shown if not one.supervised)


# ---- reasoning -------------------------------------------------------------------------------------------------------

THOUGHT = "<think>\n七日ではない。\n\n  十日だ。\n</think>\n\nb"


def test_no_reasoning_of_several_turns_vanishes(chat):
    tokenizer = chat("qwen3", thinking=True)
    found = [
        learned(tokenizer, one)[0]
        for one in tokenizer.examples(Conversation((user("問一"), answer(THOUGHT), user("問二"), answer(THOUGHT))))
    ]
    assert found == [[f"{THOUGHT}<|im_end|>"]] * 2


def test_reasoning_before_each_call_of_one_question_stays(chat):
    tokenizer = chat("qwen3", thinking=True)
    call = answer("<think>\n調べる。\n</think>\n\n", tool_calls=(CALL,))
    (example,) = tokenizer.examples(
        Conversation((user("天気は"), call, Message("tool", "晴"), answer(THOUGHT)), tools=TOOLS)
    )
    assert learned(tokenizer, example)[0] == [
        f"<think>\n調べる。\n</think>\n\n{CALLED}<|im_end|>", f"{THOUGHT}<|im_end|>",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "thinking", "told"),
    [
        ("qwen3", False, "model.thinking is false"),
        ("qwen2.5", False, "model.thinking is false"),
        ("qwen2.5", True, "chat template has no thinking"),
        ("qwen3-instruct", True, "chat template has no thinking"),
    ],
)
@pytest.mark.parametrize("excluded", [False, True])
def test_reasoning_for_a_model_that_does_not_think_is_refused_with_the_choices(chat, family, thinking, told, excluded):
    told_all = refusal(chat(family, thinking), user("問"), answer(THOUGHT, excluded=excluded), user("問"), answer("a"))
    assert told in told_all
    assert all(choice in told_all for choice in ("model.thinking: true", "mode cot", "remove it"))


def test_a_template_that_drops_reasoning_is_refused(template_folder, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((template_folder("qwen3") / "tokenizer.json").read_bytes())
    drops = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')|last }}<|im_end|>\n{% endfor %}"
    opens = "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '' if enable_thinking else ' ' }}{% endif %}"
    (folder / "chat_template.jinja").write_text(drops + opens)
    assert "drops the assistant's reasoning" in refusal(ChatTokenizer(folder, True), user("問"), answer(THOUGHT))


# ---- tools -----------------------------------------------------------------------------------------------------------


def test_a_call_carries_loss_and_its_answer_does_not(chat):
    messages = (user("天気は"), answer("", tool_calls=(CALL,)), Message("tool", "晴れ"), answer("晴れです。"))
    tokenizer = chat("qwen2.5")
    (example,) = tokenizer.examples(Conversation(messages, tools=TOOLS))
    texts, whole = learned(tokenizer, example)
    assert texts == [f"{CALLED}<|im_end|>", "晴れです。<|im_end|>"]
    assert json.dumps(WEATHER, ensure_ascii=False) in whole
    assert "<tool_response>\n晴れ\n</tool_response>" in whole

    # Qwen3 puts an empty thought before the last turn alone.
    tokenizer = chat("qwen3")
    call, last = (learned(tokenizer, one) for one in tokenizer.examples(Conversation(messages, tools=TOOLS)))
    assert (call[0], last[0]) == ([f"{CALLED}<|im_end|>"], ["晴れです。<|im_end|>"])
    assert call[1].endswith(f"assistant\n{THINK}{CALLED}<|im_end|>")
    assert f"assistant\n{CALLED}<|im_end|>\n<|im_start|>user\n<tool_response>\n晴れ\n</tool_response>" in last[1]


def test_several_calls_with_text_and_several_answers(chat):
    other = ToolCall("now", "{}")
    messages = (
        user("q"),
        answer("調べます。", tool_calls=(CALL, other)),
        Message("tool", "晴"),
        Message("tool", "九時"),
        answer("a"),
    )
    for family in ("qwen2.5", "qwen3"):
        tokenizer = chat(family)
        examples = tokenizer.examples(Conversation(messages, tools=TOOLS))
        texts = [text for one in examples for text in learned(tokenizer, one)[0]]
        assert texts == [
            f'調べます。\n{CALLED}\n<tool_call>\n{{"name": "now", "arguments": {{}}}}\n</tool_call><|im_end|>',
            "a<|im_end|>",
        ]


DROPS_TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_template_without_tools_refuses_rows_with_them(template_folder, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((template_folder("qwen3") / "tokenizer.json").read_bytes())
    (folder / "chat_template.jinja").write_text(DROPS_TOOLS)
    call = answer("", tool_calls=(CALL,))
    assert "leaves them out" in refusal(ChatTokenizer(folder), user("q"), answer("a"), tools=TOOLS)
    assert "'get_weather' of the call" in refusal(ChatTokenizer(folder), user("q"), call)

    # One that knows the tools and a call's name, and neither its arguments nor the role of their answer.
    head = "{% if tools %}{{ tools[0].function.name }}{% endif %}"
    calls = "{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}"
    body = DROPS_TOOLS.replace("{{ m.content }}", "{{ m.content if m.role != 'tool' }}" + calls)
    (folder / "chat_template.jinja").write_text(head + body)
    assert "'city' of the call" in refusal(ChatTokenizer(folder), user("q"), call, tools=TOOLS)
    bare = answer("", tool_calls=(ToolCall("get_weather", "{}"),))
    found = refusal(ChatTokenizer(folder), user("q"), bare, Message("tool", "晴"), answer("a"), tools=TOOLS)
    assert "drops a tool's answer" in found


def test_a_template_that_drops_the_system_prompt_is_refused(template_folder, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((template_folder("qwen3") / "tokenizer.json").read_bytes())
    (folder / "chat_template.jinja").write_text(
        DROPS_TOOLS.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    )
    assert "drops the system prompt" in refusal(
        ChatTokenizer(folder), Message("system", "短く。"), user("q"), answer("a")
    )
