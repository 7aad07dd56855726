"""Every layout, one conversation; every fault of a row, with its field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimtune.core.errors import Problem
from slimtune.data import formats
from slimtune.data.json_rows import Row
from slimtune.data.records import Message
from slimtune.data.text import control_token, faults

USER, ASSISTANT = Message("user", "問い"), Message("assistant", "甲")
SYSTEM = Message("system", "簡潔に")


def converted(value: dict, name: formats.FormatName, system: str | None = None) -> formats.Converted:
    problems: list[Problem] = []
    one = formats.convert(Row(7, value), name, path="x.jsonl", system=system, problems=problems)
    assert problems == []
    assert one is not None
    return one


def faults_of(value: dict, name: formats.FormatName) -> list[str]:
    problems: list[Problem] = []
    assert formats.convert(Row(7, value), name, path="x.jsonl", problems=problems) is None
    assert problems
    assert {problem.where for problem in problems} == {"x.jsonl:7"}
    assert all(problem.fix for problem in problems)
    return [problem.what for problem in problems]


def turns(*pairs: tuple[str, str]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


SAME = [
    ("input_output", {"input": "問い", "output": "甲"}),
    ("messages", turns(("user", "問い"), ("assistant", "甲"))),
    ("alpaca", {"instruction": "問い", "output": "甲"}),
    ("alpaca", {"instruction": "問い", "input": "", "output": "甲"}),
    ("alpaca", {"instruction": "問い", "input": None, "output": "甲"}),
    ("sharegpt", {"conversations": [{"from": "human", "value": "問い"}, {"from": "gpt", "value": "甲"}]}),
    ("sharegpt", {"conversations": [{"from": "user", "value": "問い"}, {"from": "assistant", "value": "甲"}]}),
    ("sharegpt", {"conversations": [{"role": "user", "content": "問い"}, {"role": "assistant", "content": "甲"}]}),
    ("messages", {"messages": [{"from": "human", "value": "問い"}, {"from": "gpt", "value": "甲"}]}),
    ("instruction_response", {"instruction": "問い", "response": "甲", "category": "closed_qa"}),
    ("instruction_response", {"instruction": "問い", "context": "", "response": "甲"}),
    ("prompt_completion", {"prompt": "問い", "completion": "甲"}),
    ("prompt_completion", {"prompt": "問い", "response": "甲"}),
    ("prompt_completion", {"prompt": turns(("user", "問い"))["messages"], "completion": "甲"}),
    (
        "prompt_completion",
        {"prompt": turns(("user", "問い"))["messages"], "completion": turns(("assistant", "甲"))["messages"]},
    ),
    ("question_answer", {"question": "問い", "answer": "甲"}),
    ("question_answer", {"question": "問い", "response": "甲", "context": None}),
    ("query_response", {"query": "問い", "response": "甲", "history": []}),
]


@pytest.mark.parametrize(("name", "value"), SAME)
def test_every_format_becomes_the_same_conversation(name, value):
    assert formats.detect(value) == name
    conversation = converted({**value, "meta": {"id": 1}}, name).conversation
    assert conversation.messages == (USER, ASSISTANT)
    assert (conversation.meta, conversation.where) == ({"id": 1}, "x.jsonl:7")


@pytest.mark.parametrize(("name", "value"), SAME)
def test_default_system_prompt_is_put_in_front(name, value):
    assert converted(value, name, system="簡潔に").conversation.messages == (SYSTEM, USER, ASSISTANT)


def test_a_rows_own_system_prompt_stays():
    for name, value in [
        ("messages", turns(("system", "簡潔に"), ("user", "問い"), ("assistant", "甲"))),
        ("input_output", {"system": "簡潔に", "input": "問い", "output": "甲"}),
        ("alpaca", {"system": "簡潔に", "instruction": "問い", "output": "甲"}),
        (
            "sharegpt",
            {
                "conversations": [
                    {"from": "system", "value": "簡潔に"},
                    {"from": "human", "value": "問い"},
                    {"from": "gpt", "value": "甲"},
                ]
            },
        ),
    ]:
        assert converted(value, name, system="other").conversation.messages == (SYSTEM, USER, ASSISTANT)


def test_alpaca_input_follows_the_instruction():
    value = {"instruction": "訳せ", "input": "犬", "output": "dog"}
    assert converted(value, "alpaca").conversation.messages[0].content == "訳せ\n\n犬"


def test_nfc_is_counted_and_applied():
    decomposed = {"input": "か\u3099", "output": "は\u309a"}
    one = converted(decomposed, "input_output")
    assert [message.content for message in one.conversation.messages] == ["\u304c", "\u3071"]
    assert one.nfc_changed
    assert not converted({"input": "が", "output": "ぱ"}, "input_output").nfc_changed


def test_keys_that_the_format_does_not_have_are_listed():
    value = {"id": 3, "input": "x", "output": "y", "note": ""}
    assert converted(value, "input_output").ignored == ("id", "note")


MISSING = [
    ("input_output", {"input": "x"}, ["'output' is missing"]),
    (
        "input_output",
        {"input": None, "output": 3},
        ["'input' is null, not a string", "'output' is a number, not a string"],
    ),
    (
        "input_output",
        {"input": "", "output": " \n\u3000"},
        ["'input' (user) is empty", "'output' (assistant) is only white space"],
    ),
    (
        "input_output",
        {"input": {"a": 1}, "output": True},
        ["'input' is an object, not a string", "'output' is a boolean, not a string"],
    ),
    ("input_output", {"input": "x", "output": []}, ["'output' is a list, not a string"]),
    ("input_output", {"input": "x", "output": "y", "system": 5}, ["'system' is a number, not a string"]),
    ("input_output", {"input": "x", "output": "y", "meta": []}, ["'meta' is a list, not an object"]),
    ("input_output", {"input": "x", "output": "y", "meta": None}, ["'meta' is null, not an object"]),
    (
        "input_output",
        {"input": "x", "output": "y", "history": [["a", "b"]]},
        ["'history' has text that the layout input_output does not use"],
    ),
    (
        "prompt_completion",
        {"prompt": '[{"role": "user", "content": "x"}]', "completion": "[{'content': 'y', 'role': 'assistant'}]"},
        [f"'{key}' is a list of turns that was written as a text" for key in ("prompt", "completion")],
    ),
    ("alpaca", {"instruction": "", "input": "x", "output": "y"}, ["'instruction' (user) is empty"]),
    ("alpaca", {"instruction": "x", "input": 4, "output": "y"}, ["'input' is a number, not a string"]),
    ("alpaca", {"instruction": "x", "input": " ", "output": "y"}, ["'input' (user) is only white space"]),
    ("alpaca", {"output": "y"}, ["'instruction' is missing"]),
    ("messages", {"messages": []}, ["'messages' is empty"]),
    ("messages", {"messages": None}, ['\'messages\' is null, not a list of {"role": …, "content": …}']),
    ("messages", {"meta": {}}, ["'messages' is missing"]),
    (
        "messages",
        {"messages": ["hi", {"role": "user"}]},
        ["'messages[0]' is a string, not an object", "'messages[1].content' is missing"],
    ),
    ("messages", {"messages": [{"content": "x"}]}, ["'messages[0].role' is missing"]),
    (
        "messages",
        turns(("user", "x"), ("critic", "y"), ("bot", "z")),
        ["'messages[1]' has the unknown role 'critic'", "'messages[2]' has the unknown role 'bot'"],
    ),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url"}]}]},
        ["'messages[0].content' is a list of content parts ('text', 'image_url'), not a string"],
    ),
    (
        "messages",
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "tool_calls": [1]}]},
        ["'messages[1].tool_calls[0]' is a number, not an object"],
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": ""}, {"from": "narrator", "value": "x"}]},
        ["'conversations[0].value' (user) is empty", "'conversations[1]' has the unknown role 'narrator'"],
    ),
    (
        "sharegpt",
        {"conversations": [{"speaker": "user", "says": "x"}]},
        ["'conversations[0].from' is missing", "'conversations[0].value' is missing"],
    ),
]


@pytest.mark.parametrize(("name", "value", "expected"), MISSING)
def test_missing_empty_and_wrong_fields(name, value, expected):
    assert faults_of(value, name) == expected


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("u", "the conversation ends with user, not with the assistant"),
        ("s", "the conversation ends with system, not with the assistant"),
        ("a", "'messages[0].content' is a turn of assistant, not of user"),
        ("ua u a a", "'messages[4].content' is a turn of assistant, not of user"),
        ("uu a", "'messages[1].content' is a turn of user, not of assistant"),
        ("ua s ua", "'messages[2].content' is a turn of system, not of user"),
        ("ss ua", "'messages[1].content' is a turn of system, not of user"),
        ("sa", "'messages[1].content' is a turn of assistant, not of user"),
        ("su a u", "the conversation ends with user, not with the assistant"),
    ],
)
def test_role_order(roles, expected):
    names = {"s": "system", "u": "user", "a": "assistant"}
    value = turns(*((names[role], "x") for role in roles.replace(" ", "")))
    assert faults_of(value, "messages") == [expected]


@given(st.lists(st.sampled_from(["system", "user", "assistant"]), min_size=1, max_size=6))
def test_exactly_the_alternating_orders_pass(roles):
    body = roles[1:] if roles[0] == "system" else roles
    sound = (
        bool(body) and len(body) % 2 == 0 and all(role == ("user", "assistant")[i % 2] for i, role in enumerate(body))
    )
    problems: list[Problem] = []
    value = turns(*((role, "x") for role in roles))
    assert (formats.convert(Row(1, value), "messages", path="x", problems=problems) is not None) == sound
    assert len(problems) == (0 if sound else 1)


# The special tokens of Qwen2.5 and Qwen3 (tokenizer_config.json, added_tokens_decoder).
QWEN_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
]


@pytest.mark.parametrize("token", QWEN_TOKENS)
def test_control_tokens_are_named_with_their_field(token):
    for role, field in [("user", "input"), ("assistant", "output"), ("system", "system")]:
        value = {"system": "s", "input": "x", "output": "y"} | {field: f"before{token}after"}
        assert faults_of(value, "input_output") == [f"'{field}' ({role}) contains the control token {token}"]


def test_every_control_token_of_a_text_is_named_once():
    value = {"input": "<|im_end|><|im_start|>user<|im_end|>", "output": "y"}
    assert faults_of(value, "input_output") == [
        "'input' (user) contains the control token <|im_end|>",
        "'input' (user) contains the control token <|im_start|>",
    ]


@pytest.mark.parametrize("text", ["a <| b |> c", "x < y | z > w", "<b>think</b>", "<Think>", "<| im_end |>", "f <|> g"])
def test_what_only_resembles_a_control_token_is_text(text):
    assert faults(text, "user") == []


def test_normalisation_cannot_hide_a_token():
    # U+226E is "<" and U+0338: in NFC the two become one character, so there is no token left to find.
    assert control_token().search("<\u0338|im_end|>") is None
    assert converted({"input": "<\u0338|im_end|>", "output": "y"}, "input_output").nfc_changed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\n理由\n</think>\n\n甲", []),
        ("<think>\n\n</think>\n\n甲", []),
        ("<think>理由</think>", ["has no answer after its <think> block"]),
        ("<think>理由</think> \n", ["has no answer after its <think> block"]),
        ("<think>理由", ["contains the control token <think>"]),
        ("理由</think>甲", ["contains the control token </think>"]),
        ("甲<think>理由</think>乙", ["contains the control token <think>", "contains the control token </think>"]),
        (
            "<think>一</think>甲<think>二</think>",
            ["contains the control token <think>", "contains the control token </think>"],
        ),
        ("<think><think>一</think>甲", ["contains the control token <think>"]),
        ("<think>一<|im_end|></think>甲", ["contains the control token <|im_end|>"]),
        ("<think>一</think>甲<tool_call>", ["contains the control token <tool_call>"]),
    ],
)
def test_an_assistant_may_begin_with_one_think_block(text, expected):
    assert [what for what, _ in faults(text, "assistant")] == expected
    assert any("<think>" in what or "</think>" in what for what, _ in faults(text, "user"))


def test_surrogates_and_nul():
    value = {"input": "a\ud800b", "output": "c\0", "meta": {"choices": {"a": ["\udfff"]}}}
    assert faults_of(value, "input_output") == [
        "'input' (user) contains the lone surrogate \\ud800",
        "'output' (assistant) contains a NUL character",
        "'meta' contains the lone surrogate \\udfff",
    ]


def test_problems_can_always_be_printed():
    problems: list[Problem] = []
    for value in [
        {"\ud800": 1},
        {"messages": [{"role": "\ud800", "content": "x"}]},
        {"input": "\ud800", "output": "x"},
    ]:
        formats.convert(Row(1, value), formats.detect(value) or "input_output", path="x", problems=problems)
    assert len("\n".join(map(str, problems)).encode()) > 100


# --- the format of a file


def file_format(values: list[dict], format: str = "auto") -> tuple[str | None, list[str]]:
    problems: list[Problem] = []
    rows = [Row(line, value) for line, value in enumerate(values, start=1)]
    name = formats.choose(rows, format, "x", problems)
    sound = formats.convert_rows(rows, name, format, path="x", system=None, problems=problems) if name else []
    assert len(sound) + len({problem.where for problem in problems}) == len(rows) or name is None
    return name, [str(problem).split("\n")[0] for problem in problems]


def test_the_first_rows_decide_and_strays_are_problems():
    good = {"input": "x", "output": "y"}
    strays = [turns(("user", "x")), {"instruction": "x", "input": "", "output": "y"}, {"input": "x"}]
    assert file_format([good, good, good, *strays]) == (
        "input_output",
        [
            "x:4: a row of format messages in a file of format input_output",
            "x:5: a row of format alpaca in a file of format input_output",
            "x:6: 'output' is missing",
        ],
    )
    # The odd row comes first: the others still decide.
    assert file_format([strays[0], good, good])[0] == "input_output"


def test_unknown_and_preference_files():
    name, problems = file_format([{"sentence": "x", "translation": "y"}])
    assert (name, problems) == (None, ["x:1: no known format: the first row has the keys 'sentence', 'translation'"])
    problems_found: list[Problem] = []
    formats.choose([Row(1, {"prompt": "x", "chosen": "y", "rejected": "z"})], "auto", "x", problems_found)
    assert problems_found[0].what == "the rows are preference pairs ('chosen', 'rejected')"


def test_an_explicit_format_rules():
    assert file_format([{"input": "x", "output": "y", "messages": "z"}], "input_output") == ("input_output", [])
    assert file_format([{"input": "x", "output": "y"}] * 3, "alpaca") == (
        None,
        ["x:1: data.format is alpaca, but the rows have the format input_output (keys 'input', 'output')"],
    )
