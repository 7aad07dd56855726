"""Tables of any making: which column is what, and every way in which people write choices and right answers."""

import csv
import io
import json

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.datatools.build import columns, question_sources


def read(tmp_path, rows, name="set.jsonl", **options):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return question_sources.read([str(path)], **options)


def read_csv(tmp_path, *rows, **options):
    path = tmp_path / "表.csv"
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
    return question_sources.read([str(path)], **options)


def problems_of(error):
    return [(problem.where.rpartition("/")[2], problem.what, problem.fix) for problem in error.value.problems]


ABC = {"a": "甲", "b": "乙", "c": "丙"}


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Q?", "choices": ["甲", "乙", "丙"], "answer": "b"},
        {"question": "Q?", "choices": ["甲", "乙", "丙"], "answer": "乙"},
        {"question": "Q?", "choices": {"A": "甲", "B": "乙", "C": "丙"}, "answer": "B"},
        {"question": "Q?", "choices": {"1": "甲", "2": "乙", "3": "丙"}, "label": 2},
        {"question": "Q?", "choices": {"text": ["甲", "乙", "丙"], "label": ["A", "B", "C"]}, "answerKey": "B"},
        {"question": "Q?", "choices": {"text": ["甲", "乙", "丙"], "label": ["1", "2", "3"]}, "answerKey": "2"},
        {"question": "Q?", "choice0": "甲", "choice1": "乙", "choice2": "丙", "label": 1},
        {"question": "Q?", "choice1": "甲", "choice2": "乙", "choice3": "丙", "answer": 2},
        {"question": "Q?", "A": "甲", "B": "乙", "C": "丙", "answer": "Ｂ"},
        {"question": "Q?", "option_a": "甲", "option_b": "乙", "option_c": "丙", "answer": "(b)"},
        {"設問": "Q?", "肢ア": "甲", "肢イ": "乙", "肢ウ": "丙", "正解": "イ"},
        {"問題文": "Q?", "選択肢": "ア．甲\nイ．乙\nウ．丙", "正解": "イ"},
        {"問題": "Q?", "選択肢": "a 甲\nb 乙\nc 丙", "答え": "b"},
        {"問題": "Q?", "選択肢": "(1) 甲\n(2) 乙\n(3) 丙", "答え": "2"},
        {"問題": "Q?", "選択肢": "甲\n乙\n丙", "答え": "乙"},
    ],
)
def test_every_way_of_writing_a_question(tmp_path, row):
    (found,) = read(tmp_path, [row]).questions
    assert (found.question, found.choices, found.correct) == ("Q?", ABC, "b")
    assert found.id == "set-1"


def test_a_choice_may_have_several_lines(tmp_path):
    row = {"問題": "Q?", "選択肢": "ア．甲\n1．続き\nイ．乙", "答え": "イ"}
    (found,) = read(tmp_path, [row]).questions
    assert found.choices == {"a": "甲\n1．続き", "b": "乙"}


def test_a_question_may_have_fewer_choices_than_the_table_has_columns(tmp_path):
    found = read_csv(
        tmp_path, ["question", "A", "B", "C", "answer"], ["三つ", "甲", "乙", "丙", "C"], ["二つ", "甲", "乙", "", "A"]
    )
    assert [one.choices for one in found.questions] == [ABC, {"a": "甲", "b": "乙"}]
    assert [one.id for one in found.questions] == ["表-2", "表-3"]


def test_numbers_count_from_zero_where_one_is_zero(tmp_path):
    rows = [{"question": f"Q{n}?", "choices": ["甲", "乙", "丙"], "answer": n} for n in (0, 1, 2)]
    assert [one.correct for one in read(tmp_path, rows).questions] == ["a", "b", "c"]


def test_numbers_count_from_one_where_one_is_the_last_choice(tmp_path):
    rows = [{"question": f"Q{n}?", "choices": ["甲", "乙", "丙"], "answer": str(n)} for n in (1, 3)]
    assert [one.correct for one in read(tmp_path, rows).questions] == ["a", "c"]


def test_numbers_that_could_be_either_are_not_guessed(tmp_path):
    rows = [{"question": f"Q{n}?", "choices": ["甲", "乙", "丙", "丁"], "answer": n} for n in (1, 2)]
    with pytest.raises(SlimtuneError, match="nothing tells whether they count from 0 or from 1"):
        read(tmp_path, rows)
    assert [one.correct for one in read(tmp_path, rows, first_answer=0).questions] == ["b", "c"]
    assert [one.correct for one in read(tmp_path, rows, first_answer=1).questions] == ["a", "b"]


def test_all_fields_and_what_is_not_used(tmp_path):
    row = {
        "番号": 7,
        "設問": "Q?",
        "選択肢": ["甲", "乙"],
        "正解": "a",
        "条文": "本文",
        "解説": "なぜなら",
        "法令名": "民法",
        "備考": "x",
    }
    found = read(tmp_path, [row])
    (one,) = found.questions
    assert (one.id, one.context, one.reasoning, one.source) == ("7", "本文", "なぜなら", "民法")
    assert "correct from 正解" in found.notes[0] and found.notes[1].endswith("not used: 備考")


def test_columns_can_be_mapped(tmp_path):
    row = {"設": "Q?", "い": "甲", "ろ": "乙", "は": "丙", "解": "丙"}
    mapping = columns.parse_mapping(["question=設", "choices=い,ろ,は", "correct=解"])
    (found,) = read(tmp_path, [row], mapping=mapping).questions
    assert (found.choices, found.correct) == (ABC, "c")


def test_a_mapping_says_all_that_is_wrong_with_it():
    with pytest.raises(SlimtuneError) as error:
        columns.parse_mapping(["frage=設", "question=a,b", "correct", "id=x", "id=y"])
    assert [problem.what for problem in error.value.problems] == [
        "'frage=設' maps no column to a field",
        "'question=a,b' maps no column to a field",
        "'correct' maps no column to a field",
        "the field 'id' is mapped twice",
    ]


def test_a_table_without_the_columns_says_which_it_has(tmp_path):
    with pytest.raises(SlimtuneError) as error:
        read(tmp_path, [{"text": "Q?", "answer": "a"}])
    assert [what for _, what, _ in problems_of(error)] == [
        "no column is known to hold the 'question' of a question",
        "no column is known to hold the 'choices' of a question",
    ]
    assert "the columns are text, answer" in str(error.value)
    with pytest.raises(SlimtuneError, match="there is no column 設, which --map gives to 'question'"):
        read(tmp_path, [{"問題": "Q?", "choices": ["甲", "乙"], "answer": "a"}], mapping={"question": ("設",)})


def test_every_bad_row_is_named_with_its_line(tmp_path):
    rows = [
        {"question": "", "choices": ["甲", "乙"], "answer": "a"},
        {"question": "Q?", "choices": ["甲"], "answer": "a"},
        {"question": "Q?", "choices": ["甲", "甲"], "answer": "a"},
        {"question": "Q?", "choices": ["甲", "乙"], "answer": "e"},
        {"question": "Q?", "choices": ["甲", "乙"]},
        {"question": "<|im_end|>", "choices": ["甲", 3], "answer": "a"},
        {"question": "Q?", "choices": ["甲", "乙"], "answer": "a"},
    ]
    with pytest.raises(SlimtuneError) as error:
        read(tmp_path, rows)
    found = {where for where, _, _ in problems_of(error)}
    assert found == {f"set.jsonl:{line}" for line in range(1, 7)}


def test_ids_are_used_once_over_all_files(tmp_path):
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text('{"id": "x", "question": "Q?", "choices": ["甲", "乙"], "answer": "a"}\n')
    with pytest.raises(SlimtuneError, match="the id 'x' is used twice"):
        question_sources.read([str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl")])


def test_a_hub_set_is_read_like_a_table(monkeypatch):
    import datasets

    table = datasets.Dataset.from_list(
        [{"question": "Q?", "subject": "law", "choices": ["甲", "乙", "丙"], "answer": n} for n in (0, 2)]
    )
    asked = []

    # The hub is the one part that does not exist on a machine without a network.
    def load_dataset(name, split):
        asked.append((name, split))
        return table

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = question_sources.read(["hf://cais/mmlu:test"]).questions
    assert asked == [("cais/mmlu", "test")]
    assert [(one.correct, one.source) for one in found] == [("a", "law"), ("c", "law")]
