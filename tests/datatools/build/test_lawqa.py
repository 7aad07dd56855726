"""The reader of lawqa_jp, on made-up samples and, where it is at hand, on the real file."""

import json
from collections import Counter
from pathlib import Path

import pytest
from support.paths import ROOT

from scripts.law_files import render_question, split_questions
from slimtune.core.errors import SlimtuneError
from slimtune.data.loading import load_conversations
from slimtune.datatools.build import question_sources
from slimtune.datatools.build.lawqa import parse_choices

SELECTION = ROOT / "../shared/data/lawqa_jp/selection.json"

SAMPLE = {
    "ファイル名": "民法_第1章_選択式_問題番号1",
    "コンテキスト": "## 民法\n### 第1条\n#### 第2項\n権利の行使は、信義に従い誠実に行わなければならない。",
    "問題文": "正しいものを教えてください。",
    "指示": "a、b、c、dの中から１つ選んでください。",
    "選択肢": "a 一つ目\nb 二つ目\nc 三つ目\nd 四つ目",
    "output": "b",
    "references": [],
}


def write(path: Path, samples: list) -> str:
    path.write_text(json.dumps({"samples": samples}, ensure_ascii=False, indent=1), encoding="utf-8")
    return str(path)


def test_a_sample_becomes_a_question(tmp_path):
    path = write(tmp_path / "x.json", [SAMPLE, {**SAMPLE, "output": "d\n"}])
    first, second = question_sources.read([path], layout="lawqa").questions
    assert (first.id, first.source, first.article) == ("民法_第1章_選択式_問題番号1", "民法", "第1条")
    assert first.choices == {"a": "一つ目", "b": "二つ目", "c": "三つ目", "d": "四つ目"}
    assert (first.correct, first.reasoning, first.context) == ("b", "", SAMPLE["コンテキスト"])
    assert (second.id, second.correct) == ("民法_第1章_選択式_問題番号1-2", "d")
    # {"samples": [ are lines 1 and 2; a sample takes nine lines.
    assert (first.where, second.where) == (f"{path}:3", f"{path}:12")


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("a 一\nb 二", {"a": "一", "b": "二"}),
        ("a　一\nb　二\n", {"a": "一", "b": "二"}),
        ("a 一\n続き\nb 二", {"a": "一\n続き", "b": "二"}),
        ("a 一\na 二", {"a": "一\na 二"}),
        ("前置き\na 一", {"": "前置き\na 一"}),
    ],
)
def test_choices_are_parsed_by_the_next_label(text, choices):
    assert parse_choices(text) == choices


def test_planted_faults_are_all_found(tmp_path):
    planted = [
        (SAMPLE, []),
        ({**SAMPLE, "問題文": " "}, ["'問題文' is only white space"]),
        ({**SAMPLE, "output": 2}, ["'output' is a number, not a string"]),
        ({key: value for key, value in SAMPLE.items() if key != "コンテキスト"}, ["'コンテキスト' is missing"]),
        ({**SAMPLE, "output": "e"}, ["選択肢: 'correct' is 'e', which is not one of the labels"]),
        ({**SAMPLE, "選択肢": "a 同じ\nb 同じ\nc 三\nd 四"}, ["選択肢: the choices a and b are the same"]),
        (
            {**SAMPLE, "選択肢": "一\n二"},
            ["選択肢: the labels are (none)", "選択肢: 'correct' is 'b', which is not one of the labels"],
        ),
        ("text", ["the row is a string, not an object"]),
    ]
    path = write(tmp_path / "x.json", [sample for sample, _ in planted])
    with pytest.raises(SlimtuneError) as caught:
        question_sources.read([path], layout="lawqa")
    lines = json.dumps({"samples": [sample for sample, _ in planted]}, ensure_ascii=False, indent=1).split("\n")
    starts = [number for number, text in enumerate(lines, start=1) if text in ("  {", '  "text"')]
    expected = [
        (f"{path}:{start}", what) for start, (_, faults) in zip(starts, planted, strict=True) for what in faults
    ]
    assert [(problem.where, problem.what) for problem in caught.value.problems] == expected


needs_lawqa = pytest.mark.skipif(not SELECTION.is_file(), reason="lawqa_jp is not at ../shared/data/lawqa_jp")


@needs_lawqa
def test_the_real_file():
    questions = question_sources.read([str(SELECTION)], layout="lawqa").questions
    assert len(questions) == 140
    assert len({question.id for question in questions}) == 140
    assert all(list(question.choices) == ["a", "b", "c", "d"] for question in questions)
    assert Counter(question.correct for question in questions) == {"a": 23, "b": 37, "c": 48, "d": 32}
    assert Counter(question.source for question in questions) == {"金商法": 80, "薬機法": 39, "借地借家法": 21}
    assert questions[0].article == "第5条"
    lines = SELECTION.read_text(encoding="utf-8").split("\n")
    for question in questions:
        assert lines[question.line - 1].strip() == "{"
        assert question.id in lines[question.line]


@needs_lawqa
def test_the_real_file_splits_without_shared_contexts_and_loads_as_training_data(tmp_path):
    split = split_questions(
        question_sources.read([str(SELECTION)], layout="lawqa").questions, dev=0.15, test=0.25, seed=42
    )
    assert {name: len(part) for name, part in split.items()} == {"train": 84, "dev": 21, "test": 35}
    contexts = [{question.context for question in part} for part in split.values()]
    assert len(set.union(*contexts)) == sum(map(len, contexts)) == 114
    # The label shares of all 140 are 23, 37, 48 and 32: a quarter, 5.75, 9.25, 12 and 8, rounded either way.
    assert Counter(question.correct for question in split["test"]) == {"a": 6, "b": 9, "c": 12, "d": 8}

    path = tmp_path / "train.jsonl"
    rows = [render_question(question, mode="direct", rag=True) for question in split["train"]]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    loaded = load_conversations([(str(path), 1.0)], mode="direct")
    assert len(loaded.conversations) == 84
    assert {conversation.messages[-1].content for conversation in loaded.conversations} == set("abcd")
