"""Keys that compare or rate answers are recognised, and no such answer is learned by supervised training."""

import json

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.data import formats, loading
from slimtune.data.json_rows import Row
from slimtune.data.preference_keys import marks

USER, GOOD, BAD = {"role": "user", "content": "問い"}, {"role": "assistant", "content": "甲"}, "乙"
LAYOUTS = [
    {"input": "問い", "output": "甲"},
    {"instruction": "問い", "input": "", "output": "甲"},
    {"messages": [USER, GOOD]},
    {"conversations": [{"from": "human", "value": "問い"}, {"from": "gpt", "value": "甲"}]},
]
BESIDE_A_LAYOUT = [
    {"rejected": BAD},
    {"rejected_response": BAD},
    {"Rejected Response": BAD},
    {"rejectedAnswer": BAD},
    {"rejected_messages": [USER, {"role": "assistant", "content": BAD}]},
    {"chosen": "甲", "rejected": BAD},
    {"chosen": {"from": "gpt", "value": "甲"}, "rejected": {"from": "gpt", "value": BAD}},
    {"accepted": "甲", "reject": BAD},
    {"preferred_output": [GOOD], "non_preferred_output": [{"role": "assistant", "content": BAD}]},
    {"good_answer": "甲", "bad_answer": BAD},
    {"response_j": "甲", "response_k": BAD},
    {"kto_tag": False},
    {"kto_tag": "false"},
    {"label": False},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: next(iter(layout)))
def test_a_rejected_answer_beside_a_layout_is_refused_never_ignored(layout, tmp_path):
    for number, keys in enumerate(BESIDE_A_LAYOUT):
        row = layout | keys
        path = write(tmp_path / f"{number}.jsonl", [row, row])
        with pytest.raises(SlimtuneError) as caught:
            loading.load_conversations([(path, 1.0)])
        (problem,) = caught.value.problems
        assert problem.where == f"{path}:1"
        assert problem.what.startswith("2 of 2 rows are ")
        assert any(repr(key) in problem.what for key in keys)
        assert f"slimtune data import {path} --chosen" in problem.fix
        problems = []
        assert formats.convert(Row(1, row), formats.detect(row), path="x", problems=problems) is None
        assert len(problems) == 1


def test_one_such_row_in_a_file_of_conversations_is_refused(tmp_path):
    rows = [{"input": str(number), "output": "甲"} for number in range(30)]
    path = write(tmp_path / "mixed.jsonl", [*rows, {"input": "問い", "output": "甲", "rejected": BAD}])
    with pytest.raises(SlimtuneError, match=r"mixed.jsonl:31: 1 of 31 rows are preference pairs \('rejected'\)"):
        loading.load_conversations([(path, 1.0)])


@pytest.mark.parametrize(
    "keys",
    [
        {"label": "spam"},
        {"label": 1},
        {"label": "true"},
        {"label": None},
        {"rejected": None, "chosen": ""},
        {"chosen_score": 4.5, "rejected_model": "x", "score_rejected": 1},
        {"accepted_answer": "甲", "preferred_language": "ja"},
        {"good": True, "negative": ["x"], "reject_reason": "none"},
        {"text": "x", "": "y", "質問": "z", "x" * 10_000: 1},
    ],
)
def test_other_keys_say_nothing_about_the_answer(keys):
    row = {"input": "問い", "output": "甲"} | keys
    assert marks(row) is None
    assert formats.convert(Row(1, row), "input_output", path="x", problems=[]) is not None


@pytest.mark.parametrize("label", [True, False, 0, 1, "0", "1", "True", "false"])
def test_a_label_beside_a_completion_rates_it(label):
    found = marks({"prompt": "問い", "completion": "甲", "label": label})
    assert found
    assert (found.kind, found.keys) == ("unpaired", ("label",))


def test_a_label_without_an_answer_is_a_class():
    assert marks({"text": "問い", "label": True}) is None
    assert marks({"input": "問い", "label": 1}) is None
