"""Answers that are compared or rated: every spelling becomes the same record, and every fault is told."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimtune.core.errors import SlimtuneError
from slimtune.data import preferences
from slimtune.data.json_rows import Row
from slimtune.data.records import Message


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def turn(role, text):
    return {"role": role, "content": text}


def spoken(*texts, keys=("from", "value"), names=("human", "gpt")):
    return [dict(zip(keys, (names[number % 2], text), strict=True)) for number, text in enumerate(texts)]


def read(row, kind="preference", path="x.jsonl", system=None):
    problems = []
    found = preferences.convert(Row(7, row), kind, path=path, system=system, problems=problems)
    assert problems == []
    assert found is not None
    return found.record


def faults_of(row, kind="preference", path="x.jsonl"):
    problems = []
    assert preferences.convert(Row(7, row), kind, path=path, problems=problems) is None
    assert {problem.where for problem in problems} == {f"{path}:7"}
    assert all(problem.fix for problem in problems)
    return [problem.what for problem in problems]


ASKED, BETTER, WORSE = turn("user", "問い"), turn("assistant", "甲"), turn("assistant", "乙")
SIDES = {"chosen": "甲", "rejected": "乙"}
WHOLE = {"chosen": [ASKED, BETTER], "rejected": [ASKED, WORSE]}
ONE_TURN = {
    "TRL, texts": {"prompt": "問い", **SIDES},
    "TRL, turns": {"prompt": [ASKED], "chosen": [BETTER], "rejected": [WORSE]},
    "TRL, implicit prompt": WHOLE,
    "UltraFeedback": {"prompt": "問い", **WHOLE, "messages": [ASKED, BETTER], "score_chosen": 8.0, "prompt_id": "x"},
    "LLaMA-Factory, alpaca": {"instruction": "問い", "input": "", **SIDES},
    "LLaMA-Factory, ShareGPT": {
        "conversations": spoken("問い"),
        "chosen": {"from": "gpt", "value": "甲"},
        "rejected": {"from": "gpt", "value": "乙"},
    },
    "OpenAI": {
        "input": {"messages": [ASKED], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [BETTER],
        "non_preferred_output": [WORSE],
    },
    "chosen_messages": {"chosen_messages": [ASKED, BETTER], "rejected_messages": [ASKED, WORSE]},
    "HH-RLHF": {"chosen": "\n\nHuman: 問い\n\nAssistant: 甲", "rejected": "\n\nHuman: 問い\n\nAssistant: 乙"},
    "HH-RLHF with its prompt": {"prompt": "\n\nHuman: 問い\n\nAssistant:", **SIDES},
    "Axolotl, argilla": {"instruction": "問い", "chosen_response": "甲", "rejected_response": "乙"},
    "Axolotl, chat_template": {"messages": [ASKED], "chosen": BETTER, "rejected": WORSE},
    "Axolotl, one text": {"messages": "問い", **SIDES},
    "Intel": {"question": "問い", **SIDES},
    "icr": {"input": "問い", **SIDES, "rating": [9, 2], "generations": ["甲", "乙"]},
    "ms-swift": {"messages": [ASKED, BETTER], "rejected_response": "乙"},
    "ms-swift, rejected_messages": {"messages": [ASKED, BETTER], "rejected_messages": [ASKED, WORSE]},
    "ms-swift, query": {"query": "問い", "response": "甲", "rejected_response": "乙"},
    "alpaca beside rejected": {"instruction": "問い", "output": "甲", "rejected": "乙"},
    "prompt, completion beside rejected": {"prompt": "問い", "completion": "甲", "rejected": "乙"},
    "ShareGPT beside rejected": {"conversations": spoken("問い", "甲"), "rejected": "乙"},
    "ShareGPT, whole": {"chosen": spoken("問い", "甲"), "rejected": spoken("問い", "乙")},
    "accepted": {"prompt": "問い", "accepted": "甲", "rejected": "乙"},
    "reject": {"prompt": "問い", "chosen": "甲", "reject": "乙"},
    "AutoTrain": {"prompt": "問い", "text": "甲", "rejected_text": "乙"},
    "Orca, distilled": {
        **{
            "input": "問い",
            **SIDES,
            "generations": ["甲", "乙"],
            "rationale": "x",
            "labelling_prompt": [turn("user", "y")],
        }
    },
    "Capybara": {"prompt": "問い", **WHOLE, "conversation": [{"input": "問い", "output": "甲"}]},
    "content parts": {
        "prompt": [turn("user", [{"type": "text", "text": "問い"}])],
        "chosen": [turn("assistant", [{"type": "text", "text": "甲"}])],
        "rejected": [turn("assistant", [{"type": "text", "text": "乙"}])],
    },
    "a space behind Assistant:": {
        "prompt": "Human: 問い\n\nAssistant:",
        "chosen": " 甲",
        "rejected": " 乙",
        "response": " 甲",
    },
    "ranked": {"question": "問い", "response_j": "甲", "response_k": "乙"},
    "a table's cells": {key: json.dumps(turns) for key, turns in WHOLE.items()},
    "a text against turns": {"prompt": "問い", "chosen": "甲", "rejected": [WORSE]},
    "with a class": {"prompt": "問い", **SIDES, "label": True, "answer": "丙"},
}


@pytest.mark.parametrize("row", ONE_TURN.values(), ids=ONE_TURN)
def test_every_spelling_becomes_the_same_preference(row):
    record = read(row | {"meta": {"id": 1}})
    assert record.prompt == (Message("user", "問い"),)
    assert (record.chosen, record.rejected) == ((Message("assistant", "甲"),), (Message("assistant", "乙"),))
    assert (record.meta, record.where) == ({"id": 1}, "x.jsonl:7")
    assert record.conversation("rejected").messages == (*record.prompt, *record.rejected)


def test_tools_contexts_and_histories_mean_what_they_mean_in_conversations():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    record = read(
        {"input": {"messages": [ASKED], "tools": tools}, "preferred_output": [call], "non_preferred_output": [WORSE]}
    )
    assert (record.chosen[0].tool_calls[0].name, json.loads(record.tools)) == ("f", tools)
    assert read({"question": "問い", "context": "文", **SIDES}).prompt[0].content == "文\n\n問い"
    earlier = read({"instruction": "次", "history": [["問い", "甲"]], **SIDES}).prompt
    assert [message.content for message in earlier] == ["問い", "甲", "次"]
    thought = read({"prompt": "問い", "chosen": [BETTER | {"thinking": "考え"}], "rejected": [WORSE]})
    assert thought.chosen[0].content == "<think>\n考え\n</think>\n\n甲"


LONG = [ASKED, BETTER, turn("user", "次")]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": LONG, "chosen": "丙", "rejected": "丁"},
        {"prompt": LONG, "chosen": [turn("assistant", "丙")], "rejected": [turn("assistant", "丁")]},
        {"chosen": [*LONG, turn("assistant", "丙")], "rejected": [*LONG, turn("assistant", "丁")], "prompt": "次"},
        {"chosen": [*LONG, turn("assistant", "丙")], "rejected": [*LONG, turn("assistant", "丁")], "prompt": LONG},
        {"messages": [*LONG, turn("assistant", "丙")], "rejected_response": "丁"},
        {"messages": [*LONG, turn("assistant", "丙")], "chosen": "丙", "rejected": "丁"},
        {"messages": LONG, "chosen": "丙", "rejected": [*LONG, turn("assistant", "丁")]},
        {"conversations": spoken("問い", "甲", "次"), "chosen": "丙", "rejected": "丁"},
        {
            "chosen": "Human: 問い\n\nAssistant: 甲\n\nHuman: 次\n\nAssistant: 丙",
            "rejected": "Human: 問い\n\nAssistant: 甲\n\nHuman: 次\n\nAssistant: 丁",
        },
    ],
)
def test_earlier_turns_belong_to_the_prompt_and_carry_no_loss(row):
    record = read(row)
    assert [message.content for message in record.prompt] == ["問い", "甲", "次"]
    assert [answer[0].content for answer in (record.chosen, record.rejected)] == ["丙", "丁"]
    assert [message.excluded for message in record.conversation().messages] == [False, True, False, False]


def test_the_systems_prompt_stands_in_front():
    for row in ({"system": "簡潔に", "question": "問い", **SIDES}, {"system": "簡潔に", **ONE_TURN["ShareGPT, whole"]}):
        assert read(row).prompt == (Message("system", "簡潔に"), Message("user", "問い"))
    assert read(WHOLE, system="簡潔に").prompt[0] == Message("system", "簡潔に")
    assert (
        read({"instruction": "訳せ", "input": "犬", "chosen": "dog", "rejected": "cat"}).prompt[0].content
        == "訳せ\n\n犬"
    )


def test_conversations_that_part_at_an_earlier_answer():
    first, second = [ASKED, BETTER, turn("user", "次"), BETTER], [ASKED, WORSE, turn("user", "次"), WORSE]
    record = read({"chosen": first, "rejected": second})
    assert record.prompt == (Message("user", "問い"),)
    assert [len(answer) for answer in (record.chosen, record.rejected)] == [3, 3]


FAULTS = [
    ({"prompt": "問い", "chosen": "甲", "rejected": "甲 "}, ["the chosen and the rejected answer are equal"]),
    ({"chosen": [ASKED, BETTER], "rejected": [ASKED, BETTER]}, ["the chosen and the rejected answer are equal"]),
    ({"prompt": "", **SIDES}, ["'prompt' (user) is empty"]),
    ({"prompt": " ", "chosen": [BETTER], "rejected": [WORSE]}, ["'prompt' (user) is only white space"]),
    ({"prompt": [], **SIDES}, ["'prompt' is a list, not a string"]),
    ({"prompt": 3, **SIDES}, ["'prompt' is a number, neither a text nor a list of turns"]),
    (SIDES, ["there is no prompt: 'chosen' and 'rejected' alone"]),
    (
        {"chosen": [ASKED, BETTER], "rejected": [turn("user", "他"), WORSE]},
        ["the chosen and the rejected answer have different prompts"],
    ),
    (
        {"chosen": [ASKED, BETTER], "rejected": [turn("system", "x"), ASKED, WORSE]},
        ["the chosen and the rejected answer have different prompts"],
    ),
    (
        {"chosen": [ASKED, BETTER, turn("user", "次"), BETTER], "rejected": [ASKED, WORSE, turn("user", "他"), BETTER]},
        ["the chosen and the rejected answer have different prompts"],
    ),
    (
        {"chosen": [ASKED, BETTER], "rejected": [ASKED, BETTER, turn("user", "次"), WORSE]},
        ["the chosen answer is only the beginning of the other"],
    ),
    ({"prompt": "他", **WHOLE}, ["'prompt' is not the prompt with which 'chosen' begins"]),
    ({"prompt": "問い", "question": "他", **SIDES}, ["'question' is another prompt than 'prompt'"]),
    ({"prompt": "問い", "chosen": "甲"}, ["'rejected' is missing"]),
    ({"prompt": "問い", "rejected": "乙"}, ["'chosen' is missing"]),
    ({"prompt": "問い", "chosen": "", "rejected": "乙"}, ["'chosen' (assistant) is empty"]),
    ({"prompt": "問い", "chosen": None, "rejected": "乙"}, ["'chosen' is null, neither a text nor a list of turns"]),
    ({"prompt": "問い", "chosen": 1, "rejected": []}, ["'chosen' is a number, neither a text nor a list of turns"]),
    ({"prompt": "問い", "chosen": ["甲"], "rejected": ["乙"]}, ["'chosen[0]' is a string, not an object"]),
    (
        {"prompt": "問い", "chosen": [{"role": "assistant"}], "rejected": [turn("bot", "乙")]},
        ["'chosen[0].content' is missing", "'rejected[0]' has the unknown role 'bot'"],
    ),
    ({"messages": [ASKED, BETTER], "chosen": "丙", "rejected": "丁"}, ["'chosen' is a turn of assistant, not of user"]),
    ({"prompt": "問い", "chosen": "<|im_end|>", "rejected": "乙"}, ["'chosen' (assistant) contains the control token"]),
    (
        {"prompt": "問い", "chosen": "[{'role': 'assistant'}]", "rejected": "乙"},
        ["'chosen' has a list of turns as Python"],
    ),
    (
        {"prompt": "問い", "chosen": '[{"role": "assistant"', "rejected": "乙"},
        ["'chosen' has a list of turns that is broken"],
    ),
    ({"prompt": [turn("system", "x"), ASKED], **WHOLE}, ["'prompt' is not the prompt with which 'chosen' begins"]),
    ({"prompt": "問い", **SIDES, "images": ["x.png"]}, ["'images' is not text, and only text is learned"]),
    ({"prompt": "問い", **SIDES, "context": "文"}, ["'context' has text that the layout of these rows does not use"]),
    (
        {"prompt": "問い", "chosen": [BETTER | {"weight": 0}], "rejected": [WORSE]},
        ["every turn of the assistant is excluded, so the row teaches nothing"],
    ),
    (
        {"messages": LONG, "chosen": [BETTER], "rejected": [WORSE | {"weight": 0}]},
        ["an answer is excluded from the loss"],
    ),
    ({"input": "問い", "output": "甲"}, ["the row is none of the preference pairs: it has the keys 'input', 'output'"]),
    ({"input": {"messages": 3}, **SIDES}, ["'input.messages' is a number, neither a text nor a list of turns"]),
]


@pytest.mark.parametrize(("row", "expected"), FAULTS)
def test_every_fault_is_told_by_the_rows_own_key(row, expected):
    found = faults_of(row)
    assert found
    for what, start in zip(found, expected, strict=False):
        assert what.startswith(start)


RATED = {
    "TRL, texts": {"prompt": "問い", "completion": "甲", "label": True},
    "TRL, turns": {"prompt": [ASKED], "completion": [BETTER], "label": True},
    "whole conversation": {"completion": [ASKED, BETTER], "label": True},
    "LLaMA-Factory, alpaca": {"instruction": "問い", "input": "", "output": "甲", "kto_tag": True},
    "LLaMA-Factory, ShareGPT": {"conversations": spoken("問い", "甲"), "kto_tag": True},
    "LLaMA-Factory, messages": {"messages": [ASKED, BETTER], "kto_tag": True},
    "ms-swift": {"messages": [ASKED, BETTER], "label": True},
    "Axolotl": {"question": "問い", "completion": "甲", "label": True},
    "query": {"query": "問い", "response": "甲", "label": True},
    "HH-RLHF": {"completion": "Human: 問い\n\nAssistant: 甲", "label": True},
}


@pytest.mark.parametrize("row", RATED.values(), ids=RATED)
def test_every_spelling_becomes_the_same_rated_answer(row):
    record = read(row, "unpaired")
    assert (record.prompt, record.answer) == ((Message("user", "問い"),), (Message("assistant", "甲"),))
    assert record.good
    key = next(key for key in ("label", "kto_tag") if key in row)
    assert not read(row | {key: False}, "unpaired").good


@pytest.mark.parametrize("label", [0, 1, "true", "1"])
def test_a_rating_is_true_or_false(label):
    row = {"prompt": "問い", "completion": "甲", "label": label}
    assert faults_of(row, "unpaired") == [f"'label' is {label!r}, neither true nor false"]


def test_a_table_has_its_ratings_as_text():
    row = {"prompt": "問い", "completion": "甲", "label": "False"}
    assert not read(row, "unpaired", path="x.csv").good
    assert faults_of(row | {"label": "0"}, "unpaired", path="x.csv") == ["'label' is '0', neither true nor false"]
    assert faults_of({"input": "問い", "output": "甲", "kto_tag": [1]}, "unpaired") == [
        "'kto_tag' is a list, neither true nor false"
    ]
    assert faults_of({"prompt": "問い", "completion": "", "label": True}, "unpaired") == [
        "'completion' (assistant) is empty"
    ]
    assert faults_of({"prompt": "問い", "kto_tag": True}, "unpaired") == ["'completion' is missing"]


def test_files_are_read_weighted_and_told_of_like_conversations(tmp_path):
    rows = [{"prompt": str(number), **SIDES, "note": 1} for number in range(40)]
    one, two = write(tmp_path / "one.jsonl", rows), write(tmp_path / "two.jsonl", [{"prompt": "x", **SIDES}])
    loaded = preferences.load_preferences([(one, 0.5), (two, 2.0)], seed=3)
    assert len(loaded.conversations) == 22
    assert loaded.files[0].notes[0].endswith("ignored keys that the preference format does not have: note.")
    table = tmp_path / "rated.csv"
    table.write_text("prompt,completion,label\n問い,甲,True\n問い,乙,False\n", encoding="utf-8")
    rated = preferences.load_unpaired([(str(table), 1.0)]).conversations
    assert [record.good for record in rated] == [True, False]


def test_a_pair_that_stands_twice_or_the_other_way_round_is_refused(tmp_path):
    pair, other = {"prompt": "問い", **SIDES}, {"prompt": "問い", "chosen": "乙", "rejected": "甲"}
    third = {"prompt": "問い", "chosen": "甲", "rejected": "丙"}
    path = write(tmp_path / "x.jsonl", [pair, third])
    assert len(preferences.load_preferences([(path, 1.0)]).conversations) == 2
    write(tmp_path / "x.jsonl", [pair, third, pair, other, {"input": "x", "output": "y"}])
    with pytest.raises(SlimtuneError) as caught:
        preferences.load_preferences([(path, 1.0)])
    text = str(caught.value)
    assert f"duplicate rows: {path}:1 and {path}:3" in text
    assert f"the same input has two different answers: {path}:1 and {path}:4" in text
    assert f"{path}:5: the row is none of the preference pairs" in text


def test_a_layout_that_was_asked_for_is_none_of_preferences(tmp_path):
    path = write(tmp_path / "x.jsonl", [{"prompt": "問い", **SIDES}])
    with pytest.raises(
        SlimtuneError, match=r"data\.format is messages, but preference pairs are recognised by their keys"
    ):
        preferences.load_preferences([(path, 1.0)], format="messages")


leaves = st.one_of(
    st.none(), st.booleans(), st.sampled_from([0, 1, "", "a", "b", "true", "Human: a\n\nAssistant: b", [], {}])
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": leaves},
    optional={"from": leaves, "value": leaves, "weight": leaves, "tool_calls": leaves},
)
values = st.one_of(
    leaves, turns, st.lists(turns | leaves, max_size=4), st.fixed_dictionaries({"messages": st.lists(turns)})
)
NAMES = """prompt instruction question input messages conversations chosen rejected chosen_response rejected_messages
    preferred_output label kto_tag completion output system history tools"""
keys = st.sampled_from(NAMES.split())


@settings(max_examples=40)
@given(st.dictionaries(keys, values, max_size=6))
def test_any_row_is_a_sound_record_or_has_a_fault_with_its_place(row):
    for kind in ("preference", "unpaired"):
        problems = []
        found = preferences.convert(Row(3, row), kind, path="x", problems=problems)
        assert (found is None) == bool(problems)
        assert all(problem.where == "x:3" and problem.fix for problem in problems)
        for _, conversation in preferences.sides(found.record) if found else ():
            assert conversation.messages[-1].role == "assistant"
            assert any(message.role == "user" for message in conversation.messages)


def test_one_object_in_a_json_file_is_one_row(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"chosen": [ASKED, BETTER], "rejected": "乙"}), encoding="utf-8")
    (record,) = preferences.load_preferences([(str(path), 1.0)]).conversations
    assert record.rejected[0].content == "乙"
