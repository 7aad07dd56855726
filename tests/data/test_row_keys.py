"""What the keys of rows and turns say: which turns are excluded, reasoning, tools, and the columns that are refused."""

import json

import pytest
from data.test_formats import converted, faults_of

from slimtune.core.errors import Problem
from slimtune.data import formats
from slimtune.data.json_rows import Row
from slimtune.data.loading import load_conversations
from slimtune.data.records import ToolCall

WEATHER = {"name": "weather", "description": "天気", "parameters": {"type": "object", "properties": {}}}
CALL = {"name": "weather", "arguments": {"city": "奈良"}}


def chat(*turns, **row):
    """turns: "u", "a", "s" or "t" with a text, and further keys of the turn."""
    roles = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    listed = [{"role": roles[code], "content": text, **(extra[0] if extra else {})} for code, text, *extra in turns]
    return {"messages": listed, **row}


def excluded(value, name="messages"):
    return [m.excluded for m in converted(value, name).conversation.messages if m.role == "assistant"]


ASKED = [("u", "x"), ("a", "y"), ("u", "z")]


@pytest.mark.parametrize(
    "key",
    [
        {"weight": 0},
        {"weight": 0.0},
        {"train": False},
        {"training": False},
        {"loss": False},
        {"loss_scale": 0},
        {"loss_weight": 0.0},
        {"train_detail": [{"begin_offset": 0, "end_offset": 0, "train": False}]},
        {"train": None, "weight": 0},
        {"weight": 0, "train": False},
    ],
)
def test_a_turn_without_loss_in_any_trainers_words(key):
    one = converted(chat(("u", "x"), ("a", "y", key), ("u", "z"), ("a", "w", {"weight": 1})), "messages")
    assert [m.excluded for m in one.conversation.messages] == [False, True, False, False]
    assert (one.excluded, one.ignored) == (1, ())
    assert excluded({"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y", **key}, *chat(("u", "z"), ("a", "w"))["messages"]]}, "sharegpt") == [True, False]  # fmt: skip


@pytest.mark.parametrize(
    "key",
    [
        {"weight": 1},
        {"train": True},
        {"loss": 1.0},
        {"weight": None, "tool_calls": None},
        {"skip": False},
        {"include": True},
    ],
)
def test_a_turn_with_loss_says_nothing_new(key):
    assert excluded(chat(("u", "x"), ("a", "y", key))) == [False]
    # What is not learned anyway may say so.
    assert excluded(chat(("u", "x", {"weight": 0, "train": False}), ("a", "y"))) == [False]


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ({"weight": 0.5}, "is 0.5, and only 0 and 1 are supported"),
        ({"weight": -1}, "is -1, and only"),
        ({"weight": 10**400}, "is 100000000000, and only"),
        ({"train": "false"}, "is a string, and only"),
        ({"loss": []}, "is a list, and only"),
        ({"weight": 1, "train": False}, "contradict each other"),
        ({"train_detail": [{"begin_offset": 0, "end_offset": 3, "train": False}]}, "learns a part of the turn"),
        ({"train_detail": [{"begin_offset": 2, "end_offset": 9, "train": False}]}, "learns a part of the turn"),
        ({"train_detail": "0-3"}, "is not a list of spans"),
        ({"train_detail": [{"begin_offset": 5, "end_offset": 3, "train": False}]}, "ends before it begins"),
        ({"masked": True}, "could change which answers are learned"),
        ({"loss_mask": [0, 1]}, "could change which answers are learned"),
        ({"train_on_turn": "no"}, "could change which answers are learned"),
        ({"prefix": True}, "would change how the turn is rendered"),
        ({"learnt": False}, "that Slimtune does not know"),
        ({"priority": 3}, "that Slimtune does not know"),
        ({"value": "other"}, "has text that is not learned"),
        ({"refusal": "no"}, "has text that is not learned"),
        ({"images": ["a.png"]}, "is not text"),
        ({"image_url": "a.png"}, "is not text"),
        ({"thinking_blocks": "考え"}, "has text that is not learned"),
        ({"prefill": "はい"}, "would change how the turn is rendered"),
        ({"skip": 1}, "that Slimtune does not know"),
        ({"excluded": True}, "could change which answers are learned"),
    ],
)
def test_a_key_of_a_turn_that_could_change_what_is_learned(key, what):
    (fault,) = faults_of(chat(("u", "x"), ("a", "seven letters", key)), "messages")
    assert fault.startswith("'messages[1].") and what in fault and next(iter(key)) in fault


def test_loss_of_other_turns_and_of_no_turn():
    (fault,) = faults_of(chat(("u", "x", {"train": True}), ("a", "y")), "messages")
    assert fault == "'messages[0].train' asks to learn a turn of user, and only the assistant's turns are learned"
    (fault,) = faults_of(chat(("u", "x"), ("a", "y", {"weight": 0})), "messages")
    assert fault == "every turn of the assistant is excluded, so the row teaches nothing"


def test_metadata_of_turns_is_a_note():
    extra = {
        "id": "m1",
        "timestamp": 3,
        "toxic": False,
        "mood": "merry",
        "reasoning_tokens": 3,
        "refusal": None,
        "annotations": [],
    }
    one = converted(chat(("u", "x", {"name": "bob"}), ("a", "y", extra)), "messages")
    assert sorted(one.ignored) == [
        f"messages[].{key}" for key in ("id", "mood", "name", "reasoning_tokens", "timestamp", "toxic")
    ]


def test_a_masked_history():
    for key, expected in (({"mask_history": True}, [True, False]), ({"mask_history": False}, [False, False])):
        assert excluded(chat(*ASKED, ("a", "w"), **key)) == expected
        row = {"instruction": "z", "output": "w", "history": [["x", "y"]], **key}
        assert excluded(row, "alpaca") == expected
        assert [m.content for m in converted(row, "alpaca").conversation.messages] == ["x", "y", "z", "w"]
    assert faults_of(chat(("u", "x"), ("a", "y"), mask_history="yes"), "messages") == [
        "'mask_history' is a string, not true or false"
    ]
    assert faults_of({"instruction": "z", "output": "w", "history": [["x"]]}, "alpaca") == [
        "'history[0]' is not a pair of texts"
    ]


def test_the_prompt_of_trl_is_not_learned():
    row = {"prompt": chat(*ASKED)["messages"], "completion": chat(("a", "w"))["messages"]}
    assert excluded(row, "prompt_completion") == [True, False]
    row["completion"] += chat(("u", "x"), ("a", "w"))["messages"]
    assert faults_of(row, "prompt_completion") == ["'completion[1].content' is a turn of user"]


def test_files_count_what_they_exclude(tmp_path):
    path = tmp_path / "x.jsonl"
    rows = [chat(("s", " "), ("u", f"{n}"), ("a", "y", {"weight": 0}), ("u", "z"), ("a", "w")) for n in range(2)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    notes = load_conversations([(str(path), 1.0)]).files[0].notes
    assert f"{path}: the file excludes 2 turns of the assistant from the loss: read as history, not learned." in notes
    assert f"{path}: left out the empty system prompt of 2 rows." in notes


# --- reasoning

THOUGHT = "<think>\n考え\n</think>\n\n甲"


@pytest.mark.parametrize("key", ["thinking", "reasoning", "reasoning_content"])
def test_reasoning_stands_in_front_of_the_answer(key):
    for value, name in [
        (chat(("u", "x"), ("a", "甲", {key: "\n考え\n"})), "messages"),
        ({"input": "x", "output": "甲", key: "考え"}, "input_output"),
        (chat(("u", "x"), ("a", [{"type": key[:9], key[:9]: "考え"}, {"type": "text", "text": "甲"}])), "messages")
        if key != "reasoning_content"
        else ({"question": "x", "answer": "甲", key: "考え"}, "question_answer"),
    ]:
        assert converted(value, name).conversation.messages[-1].content == THOUGHT
    assert converted(chat(("u", "x"), ("a", "甲", {key: None})), "messages").conversation.messages[-1].content == "甲"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (chat(("u", "x", {"thinking": "t"}), ("a", "y")), "'messages[0]' is a turn of user with reasoning"),
        (chat(("u", "x"), ("a", "y", {"thinking": "t", "reasoning": "s"})), "'messages[1].reasoning' differ"),
        (chat(("u", "x"), ("a", THOUGHT, {"thinking": "t"})), "begins with a block of reasoning"),
        (chat(("u", "x"), ("a", "y", {"thinking": ["t"]})), "'messages[1].thinking' is a list, not a string"),
        (chat(("u", "x"), ("a", "y", {"reasoning": "off"})), "which is no reasoning but switches it"),
        (chat(("u", "x"), ("a", "y", {"thinking": "a</think>b"})), "contains the control token </think>"),
        (chat(("u", "x"), ("a", "y"), reasoning="t"), "'reasoning' has text that the layout messages does not use"),
    ],
)
def test_reasoning_in_the_wrong_place(value, what):
    assert what in " ".join(faults_of(value, "messages"))


# --- columns


@pytest.mark.parametrize(
    ("name", "value", "asked"),
    [
        ("instruction_response", {"instruction": "i", "context": "c", "response": "r"}, "i\n\nc"),
        ("instruction_response", {"instruction": "i", "input": "n", "response": "r"}, "i\n\nn"),
        ("question_answer", {"context": "c", "question": "q", "answer": "a"}, "c\n\nq"),
    ],
)
def test_a_context_is_part_of_the_question_where_the_layout_has_one(name, value, asked):
    assert converted(value, name).conversation.messages[0].content == asked


def test_the_system_prompt_has_several_names():
    for key in ("system", "system_prompt", "system_message"):
        for value, name in [
            ({"input": "x", "output": "y", key: "s"}, "input_output"),
            (chat(("u", "x"), ("a", "y"), **{key: "s"}), "messages"),
            (chat(("s", "s"), ("u", "x"), ("a", "y"), **{key: "s"}), "messages"),
            (chat(("s", ""), ("u", "x"), ("a", "y"), **{key: "s"}), "messages"),
        ]:
            assert [m.content for m in converted(value, name, system="d").conversation.messages] == ["s", "x", "y"]
    developer = {"messages": [{"role": "developer", "content": "s"}, *chat(("u", "x"), ("a", "y"))["messages"]]}
    assert converted(developer, "messages").conversation.messages[0].role == "system"
    assert "differs from the system prompt" in faults_of(chat(("s", "a"), *ASKED[:2], system="b"), "messages")[0]
    assert "differ" in faults_of({"input": "x", "output": "y", "system": "a", "system_prompt": "b"}, "input_output")[0]


@pytest.mark.parametrize("content", ["", " \n", None, [{"type": "text", "text": ""}]])
def test_an_empty_system_turn_is_no_system_prompt(content):
    one = converted(chat(("s", content), *ASKED[:2]), "messages", system="d")
    assert [m.content for m in one.conversation.messages] == ["d", "x", "y"] and one.empty_system


def test_parts_of_text_are_one_text():
    parts = [{"type": "text", "text": "一"}, {"type": "input_text", "text": "二"}, {"text": "三", "cache_control": {}}]
    assert converted(chat(("u", parts), ("a", "y")), "messages").conversation.messages[0].content == "一二三"
    for odd in ([{"type": "image_url"}], ["x"], [{"type": "text"}], [{"type": "text", "text": "x", "weight": 0}]):
        assert "'messages[0].content" in faults_of(chat(("u", odd), ("a", "y")), "messages")[0]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *(
            (name, key)
            for name in ("input_output", "messages")
            for key in ("context", "history", "System-Prompt", "cot")
        ),
        *(("input_output", key) for key in ("answer", "B", "choices", "option_a", "explanation", "reflection")),
        *(("messages", key) for key in ("prompt", "response", "passage")),
    ],
)
def test_a_column_with_text_that_the_layout_does_not_use(name, key):
    row = chat(*ASKED[:2]) if name == "messages" else {"input": "x", "output": "y"}
    (fault,) = faults_of(row | {key: "something else"}, name)
    assert fault == f"'{key}' has text that the layout {name} does not use"
    # Nothing is said, or nothing new.
    for content in (None, "", [], "y"):
        assert key in converted(row | {key: content}, name).ignored or key == "history"


@pytest.mark.parametrize(
    ("column", "fine"),
    [
        ({"weight": 0.3}, False),
        ({"loss": False}, False),
        ({"loss_mask": "0011"}, False),
        ({"train_on_input": True}, False),
        ({"unmask": True}, False),
        ({"excluded": True}, False),
        ({"include": False}, False),
        ({"exclude": False, "included": True}, True),
        ({"skip_prompt_formatting": True}, True),
        ({"mask": "User"}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"images": ["a.png"]}, False),
        ({"weight": 1}, True),
        ({"category": "a", "difficulty": 3, "url": "u", "id": 7, "tags": ["b"], "score": 0.5, "verified": True}, True),
        ({"training_source": "web", "parallel_tool_calls": False, "title": "t", "answer_id": 3}, True),
        ({"text": "### Question: x ### Answer: y"}, True),
    ],
)
def test_other_columns(column, fine):
    problems: list[Problem] = []
    row = Row(1, {"input": "x", "output": "y", **column})
    one = formats.convert(row, "input_output", path="x", problems=problems)
    assert (one is not None) == fine == (not problems)
    assert fine or next(iter(column)) in problems[0].what


# --- tools


def call(**function):
    return {"id": "c1", "type": "function", "function": function}


def test_calls_in_every_spelling_are_one_conversation():
    expected = (ToolCall("weather", '{"city": "奈良"}'),)
    wrapped = [{"type": "function", "function": WEATHER}]
    as_text = json.dumps(CALL["arguments"])
    rows = [
        ("messages", chat(("u", "x"), ("a", None, {"tool_calls": [call(**CALL)]}), ("t", "晴れ", {"tool_call_id": "c1", "name": "weather"}), ("a", "y"), tools=wrapped)),
        ("messages", chat(("u", "x"), ("a", "", {"tool_calls": [call(name="weather", arguments=as_text)]}), ("t", "晴れ"), ("a", "y"), tools=json.dumps(wrapped))),
        ("messages", {"functions": [WEATHER], "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "function_call": {"name": "weather", "arguments": as_text}}, {"role": "function", "name": "weather", "content": "晴れ"}, {"role": "assistant", "content": "y"}]}),
        ("sharegpt", {"tools": json.dumps([WEATHER]), "conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": json.dumps(CALL)}, {"from": "observation", "value": "晴れ"}, {"from": "gpt", "value": "y"}]}),
        ("messages", {"tools": [WEATHER], "messages": [{"role": "user", "content": "x"}, {"role": "tool_call", "content": json.dumps(CALL)}, {"role": "tool_response", "content": "晴れ"}, {"role": "assistant", "content": "y"}]}),
    ]  # fmt: skip
    for name, value in rows:
        conversation = converted(value, name).conversation
        assert [m.role for m in conversation.messages] == ["user", "assistant", "tool", "assistant"]
        assert (conversation.messages[1].content, conversation.messages[1].tool_calls) == ("", expected)
        assert json.loads(conversation.tools) == wrapped


def test_several_calls_and_a_conversation_that_ends_with_one():
    two = [call(**CALL), call(name="weather", arguments={})]
    row = chat(
        ("u", "x"), ("a", "見ます。", {"tool_calls": two}), ("t", "1"), ("t", "2"), ("a", None, {"tool_calls": two[:1]})
    )
    messages = converted(row, "messages").conversation.messages
    assert [len(m.tool_calls) for m in messages] == [0, 2, 0, 0, 1] and messages[1].content == "見ます。"
    listed = [{"role": "tool_call", "content": json.dumps(CALL)}] * 2
    merged = converted({"messages": [{"role": "user", "content": "x"}, *listed]}, "messages").conversation.messages
    assert [len(m.tool_calls) for m in merged] == [0, 2]
    thought = chat(("u", "x"), ("a", "", {"reasoning_content": "調べる", "tool_calls": two[:1]}))
    assert converted(thought, "messages").conversation.messages[1].content == "<think>\n調べる\n</think>\n\n"


@pytest.mark.parametrize(
    ("turns", "row", "what"),
    [
        ([("a", "y"), ("t", "1")], {}, "'messages[2].content' is a turn of tool, not of user"),
        ([("a", "", {"tool_calls": [call(**CALL)]}), ("u", "1")], {}, "is a turn of user, not of tool"),
        ([("a", "", {"tool_calls": [call(**CALL)]}), ("t", "1")], {}, "ends with tool"),
        ([("a", "", {"tool_calls": [call(**CALL)]}), ("t", "1"), ("t", "2"), ("a", "y")], {}, "'messages[3].content' is a turn of tool"),
        ([("a", "", {"tool_calls": [call(**CALL)]}), ("t", "1", {"tool_call_id": "c9"}), ("a", "y")], {}, "answers the call 'c9'"),
        ([("a", "", {"tool_calls": [call(**CALL)]}), ("t", "1", {"name": "maps"}), ("a", "y")], {}, "answers the call 'maps'"),
        ([("a", "", {"tool_calls": [call(name="maps", arguments={})]})], {"tools": [WEATHER]}, "calls 'maps', which 'tools' does not define"),
        ([("a", "", {"tool_calls": [call(name="weather", arguments="{city")]})], {}, "is not JSON"),
        ([("a", "", {"tool_calls": [call(name="weather", arguments="[1]")]})], {}, "arguments' is a list, not an object"),
        ([("a", "", {"tool_calls": [call(name="weather", arguments='{"a": 1, "a": 2}')]})], {}, "occurs twice"),
        ([("a", "", {"tool_calls": [call(name="weather", arguments={"a": "<|im_end|>"})]})], {}, "control token <|im_end|>"),
        ([("a", "", {"tool_calls": [call(name="weather", arguments="[" * 2000)]})], {}, "nested too deeply"),
        ([("a", "", {"tool_calls": [call(arguments={})]})], {}, "has no name"),
        ([("a", "", {"tool_calls": [{"type": "web_search"}]})], {}, "has the type 'web_search'"),
        ([("a", "", {"tool_calls": [call(**CALL)], "function_call": CALL})], {}, "has calls in"),
        ([("a", "")], {}, "is empty"),
        ([("a", "y")], {"tools": "no JSON"}, "'tools' is not JSON"),
        ([("a", "y")], {"tools": [{"type": "function"}]}, "'tools[0]' has no name"),
        ([("a", "y")], {"tools": [WEATHER, WEATHER]}, "defines the function 'weather' again"),
        ([("a", "y")], {"tools": [{"name": "f", "input_schema": {}}]}, "is not a key of OpenAI's layout"),
        ([("a", "y")], {"tools": [{"name": "f", "parameters": "x"}]}, "'tools[0].parameters' is a string"),
        ([("a", "y")], {"tools": [{"name": "f", "description": "<tool_call>"}]}, "control token <tool_call>"),
        ([("a", "y")], {"tools": [WEATHER], "functions": [{"name": "f"}]}, "'tools' and 'functions' differ"),
    ],
)  # fmt: skip
def test_faulty_calls(turns, row, what):
    assert what in " ".join(faults_of(chat(("u", "x"), *turns, **row), "messages"))


def test_a_users_turn_cannot_call():
    row = chat(("u", "x", {"tool_calls": [call(**CALL)]}), ("a", "y"))
    assert faults_of(row, "messages") == ["'messages[0].tool_calls' is in a turn of user"]
