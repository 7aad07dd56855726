"""The project's own question files: exactly these keys, and choices that can be told apart."""

import json
from pathlib import Path

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.data.questions import Question
from slimtune.datatools.build import question_sources

GOOD = {
    "id": "minpo-001",
    "source": "民法",
    "article": "第1条",
    "context": "民法\n第一条　私権は、公共の福祉に適合しなければならない。",
    "question": "正しいものはどれか。",
    "choices": {"a": "甲", "b": "乙", "c": "丙", "d": "丁"},
    "correct": "c",
    "reasoning": "条文にそうあるので、選択肢cが正しい。",
}


def write(path: Path, values: list[dict]) -> str:
    path.write_text("\n".join(json.dumps(value, ensure_ascii=False) for value in values), encoding="utf-8")
    return str(path)


def without(key: str) -> dict:
    return {name: value for name, value in GOOD.items() if name != key}


def test_a_question_is_read_as_it_stands(tmp_path):
    path = write(tmp_path / "q.jsonl", [GOOD])
    (question,) = question_sources.read([path], layout="questions").questions
    assert question == Question(**GOOD)
    assert question.where == f"{path}:1"


def test_texts_are_normalised(tmp_path):
    decomposed = {**GOOD, "context": "か\u3099", "choices": {"a": "は\u309a", "b": "乙", "c": "丙"}}
    (question,) = question_sources.read([write(tmp_path / "q.jsonl", [decomposed])], layout="questions").questions
    assert (question.context, question.choices["a"]) == ("\u304c", "\u3071")


PLANTED = [
    (GOOD, []),
    (without("reasoning"), ["'reasoning' is missing"]),
    ({**GOOD, "id": "2", "explanation": "x"}, ["unknown key 'explanation'"]),
    ({**GOOD, "id": "3", "context": " "}, ["'context' is only white space"]),
    ({**GOOD, "id": 4, "article": None}, ["'id' is a number, not a string", "'article' is null, not a string"]),
    ({**GOOD, "id": "5", "question": "x<|im_end|>"}, ["'question' contains the control token <|im_end|>"]),
    ({**GOOD, "id": "6", "choices": ["甲", "乙"]}, ["'choices' is a list, not an object"]),
    ({**GOOD, "id": "7", "choices": {"a": "甲", "c": "丙"}}, ["the labels are a, c"]),
    ({**GOOD, "id": "8", "choices": {"c": "丙"}}, ["the labels are c"]),
    ({**GOOD, "id": "9", "choices": {"b": "乙", "a": "甲", "c": "丙"}}, ["the labels are b, a, c"]),
    ({**GOOD, "id": "10", "correct": "e"}, ["'correct' is 'e', which is not one of the labels"]),
    ({**GOOD, "id": "11", "choices": {"a": "甲１", "b": "甲 1", "c": "丙"}}, ["the choices a and b are the same"]),
    (
        {**GOOD, "id": "12", "choices": {"a": "甲", "b": "", "c": 3}},
        ["choice 'b' is empty", "choice 'c' is a number, not a string"],
    ),
    (GOOD, ["the id 'minpo-001' is used twice: {path}:1 and {path}:14"]),
]


def test_planted_faults_are_all_found_on_their_lines(tmp_path):
    path = write(tmp_path / "q.jsonl", [value for value, _ in PLANTED])
    with pytest.raises(SlimtuneError) as caught:
        question_sources.read([path], layout="questions")
    expected = [
        (f"{path}:{line}", what.replace("{path}", path))
        for line, (_, faults) in enumerate(PLANTED, start=1)
        for what in faults
    ]
    assert [(problem.where, problem.what) for problem in caught.value.problems] == expected
    assert caught.value.summary == f"{len(expected)} problems in {path}"


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(SlimtuneError, match="no such file"):
        question_sources.read([str(tmp_path / "q.jsonl")], layout="questions")
