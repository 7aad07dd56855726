"""The shapes of public multiple-choice sets, a few rows of our own each: built right, or refused with the reason."""

import json

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.datatools.build import question_sources

TEXTS = ["甲", "乙", "丙", "丁"]
Q = {"question": "Q?"}


def read(tmp_path, rows, **options):
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return question_sources.read([str(path)], **options)


def rows_of(answers, /, **columns):
    """A row for each answer, with the other columns repeated."""
    return [{**columns, **answer} for answer in answers]


def labelled(labels="ABCD"):
    return {"choices": {"text": TEXTS, "label": list(labels)}}


SHAPES = {
    "MMLU": (rows_of([{"answer": 0}, {"answer": 2}], **Q, subject="law", choices=TEXTS), "ac"),
    "MMLU-Pro": (
        rows_of(
            [{"answer": "B", "answer_index": 1}, {"answer": "C", "answer_index": 2}],
            question_id=70, **Q, options=["C", "甲", "B", "乙"], cot_content="", category="law", src="x",
        ),
        "bc",
    ),
    "ARC": (
        [{"id": "a", **Q, **labelled(), "answerKey": "B"}, {"id": "b", **Q, **labelled("1234"), "answerKey": "4"}],
        "bd",
    ),
    "ARC, only numbers": (
        [{"id": n, **Q, **labelled("1234"), "answerKey": n} for n in ("2", "3")],
        "bc",
    ),
    "ARC's own files": (
        [
            {
                "id": "a",
                "question": {"stem": "Q?", "choices": [{"text": t, "label": n} for t, n in zip(TEXTS, "ABCD", strict=True)]},
                "answerKey": "C",
            }
        ],
        "c",
    ),
    "CommonsenseQA": (
        [{"id": "a", **Q, "question_concept": "x", "choices": {"label": list("ABCD"), "text": TEXTS}, "answerKey": "D"}],
        "d",
    ),
    "OpenBookQA": ([{"id": "a", "question_stem": "Q?", **labelled(), "answerKey": "A"}], "a"),
    "JMMLU": (rows_of([{"answer": "A"}, {"answer": "B"}], **Q, A="B", B="A", C="D", D="C"), "ab"),
    "CMMLU": (rows_of([{"Answer": "C"}], Question="Q?", A="甲", B="乙", C="丙", D="丁"), "c"),
    "KMMLU": (
        rows_of([{"answer": 1}, {"answer": 4}], **Q, A="甲", B="乙", C="丙", D="丁", Category="Law"),
        "ad",
    ),
    "JCommonsenseQA": (
        rows_of([{"label": 0}, {"label": 3}], q_id=1, **Q, choice0="甲", choice1="乙", choice2="丙", choice3="丁") ,
        "ad",
    ),
    "HellaSwag": (
        rows_of([{"label": "0"}, {"label": "3"}], ind=1, ctx_a="Q", ctx_b="?", ctx="Q?", endings=TEXTS, split="train"),
        "ad",
    ),
    "SWAG": (
        rows_of([{"label": 0}, {"label": 2}], sent1="x", startphrase="Q?", ending0="甲", ending1="乙", ending2="丙"),
        "ac",
    ),
    "RACE": (
        rows_of([{"answer": "B"}], example_id="h1", article="Long text. " * 30, **Q, options=["B", "C", "A", "D"]),
        "b",
    ),
    "MedMCQA": (
        rows_of(
            [{"cop": 0}, {"cop": 2}], id=None, **Q, opa="甲", opb="乙", opc="丙", opd="丁", exp=None, subject_name="x"
        ),
        "ac",
    ),
    "MedQA": (
        rows_of([{"answer": "乙", "answer_idx": "B"}, {"answer": "甲", "answer_idx": "A"}], **Q, options=dict(zip("ABCD", TEXTS, strict=True))),
        "ba",
    ),
    "AGIEval": (
        rows_of(
            [{"label": "C"}], passage=None, **Q, options=["(A)甲", "(B)乙", "(C)丙", "(D)丁"], answer=None, other=None
        ),
        "c",
    ),
    "AQuA-RAT": (rows_of([{"correct": "B"}], **Q, options=["A)21", "B)21.5", "C)22"], rationale="since"), "b"),
    "MathQA": (
        rows_of([{"correct": "c"}], Problem="Q?", Rationale="x", options="a ) 38 , b ) 27.6 , c ) 30 , d ) none of these"),
        "c",
    ),
    "SIQA": (
        rows_of([{"label": "1"}, {"label": "3"}], context="x", **Q, answerA="甲", answerB="乙", answerC="丙"),
        "ac",
    ),
    "PIQA": (rows_of([{"label": 0}, {"label": 1}], goal="Q?", sol1="甲", sol2="乙"), "ab"),
    "WinoGrande": (rows_of([{"answer": "1"}, {"answer": "2"}], sentence="Q _", option1="甲", option2="乙"), "ab"),
    "CosmosQA": (
        rows_of([{"label": 0}, {"label": 1}], id="", context="x", **Q, answer0="甲", answer1="乙", answer2="丙"),
        "ab",
    ),
    "ReClor": (rows_of([{"label": 0}, {"label": 1}], context="x", **Q, answers=TEXTS), "ab"),
    "LogiQA": (rows_of([{"correct_option": 0}, {"correct_option": 3}], context="x", query="Q?", options=TEXTS), "ad"),
    "Belebele": (
        rows_of(
            [{"correct_answer_num": "4"}, {"correct_answer_num": "1"}],
            flores_passage="x", **Q, mc_answer1="甲", mc_answer2="乙", mc_answer3="丙", mc_answer4="丁",
        ),
        "da",
    ),
    "MuSR": (
        rows_of([{"answer_index": 1, "answer_choice": "乙"}], narrative="x", **Q, choices="['甲', \"乙\", '丙']"),
        "b",
    ),
    "a list as JSON in a table": (rows_of([{"answer": "B"}], **Q, choices='["甲", "乙"]'), "b"),
    "a struct with an empty last choice": (
        rows_of([{"answer": "B"}], **Q, options={"A": "甲", "B": "乙", "C": "丙", "D": None}),
        "b",
    ),
    "pandas' numbers": (rows_of([{"answer": 0.0}, {"answer": "2.0"}], **Q, choices=TEXTS), "ac"),
    "label and text": (rows_of([{"answer": "B. 乙"}, {"answer": "(C) 丙"}], **Q, choices=TEXTS), "bc"),
    "the column's name": (rows_of([{"answer": "option_b"}], **Q, option_a="甲", option_b="乙"), "b"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_public_set_is_built_right(tmp_path, name):
    rows, expected = SHAPES[name]
    for number, row in enumerate(rows):
        row |= {name: number for name in ("id", "question_id", "q_id") if name in row}
    found = read(tmp_path, rows).questions
    assert "".join(one.correct for one in found) == expected
    assert all(one.question in ("Q?", "Q _") and not one.choices["a"].startswith(("A)", "(A)")) for one in found)


def test_a_passage_in_a_column_called_article_is_the_context(tmp_path):
    (race,) = read(tmp_path, SHAPES["RACE"][0]).questions
    assert race.context.startswith("Long text.") and race.article == ""
    (law,) = read(tmp_path, rows_of([{"answer": "A"}], **Q, choices=TEXTS, article="第5条")).questions
    assert law.context == "" and law.article == "第5条"


@pytest.mark.parametrize("letters", [TEXTS, ["B", "A", "D", "C"], ["b", "c", "d", "a"], ["Ｂ", "Ａ", "甲", "乙"]])
@pytest.mark.parametrize("written", ["ABC", "abc", "ＡＢＣ", ["(A)", "(B)", "(C)"]])
def test_a_letter_that_is_also_the_text_of_a_choice_is_a_letter_where_the_column_holds_letters(
    tmp_path, letters, written
):
    rows = [{**Q, "choices": letters, "answer": answer} for answer in written]
    assert [one.correct for one in read(tmp_path, rows).questions] == ["a", "b", "c"]


def test_a_letter_is_a_text_where_the_column_holds_texts(tmp_path):
    rows = [
        {**Q, "choices": ["A", "B", "AB", "O"], "answer": "O"},
        {**Q, "choices": ["B", "A", "AB", "O"], "answer": "B"},
    ]
    assert [one.correct for one in read(tmp_path, rows).questions] == ["d", "a"]


def test_a_cell_that_may_be_either_in_a_column_of_both_is_an_error_with_its_line(tmp_path):
    rows = [
        {**Q, "choices": TEXTS, "answer": "B"},
        {**Q, "choices": TEXTS, "answer": "丙"},
        {**Q, "choices": ["B", "A", "D", "C"], "answer": "B"},
        {**Q, "choices": ["A", "B", "D", "C"], "answer": "B"},
    ]
    with pytest.raises(SlimtuneError) as error:
        read(tmp_path, rows)
    (problem,) = error.value.problems
    assert problem.where.endswith(":3") and "a label and the text of another choice" in problem.what


def test_numbers_are_texts_where_all_are_texts(tmp_path):
    sums = [{**Q, "choices": ["2", "3", "4", "5"], "answer": answer} for answer in ("2", "4")]
    assert [one.correct for one in read(tmp_path, sums).questions] == ["a", "c"]
    places = [{**Q, "choices": ["2", "3", "4", "5"], "answer": answer} for answer in ("0", "2", "3")]
    assert [one.correct for one in read(tmp_path, places).questions] == ["a", "c", "d"]
    large = [{**Q, "choices": [12, 15, 18], "answer": 15}]
    assert read(tmp_path, large).questions[0].correct == "b"


def test_numbered_columns_do_not_say_from_what_answers_count(tmp_path):
    rows = rows_of([{"label": 0}, {"label": 1}], **Q, choice1="甲", choice2="乙")
    assert [one.correct for one in read(tmp_path, rows).questions] == ["a", "b"]
    rows = rows_of([{"label": 1}, {"label": 2}], **Q, choice1="甲", choice2="乙", choice3="丙")
    assert [one.correct for one in read(tmp_path, rows).questions] == ["a", "b"]


@pytest.mark.parametrize(("start", "said"), [(0, "from 0"), (1, "from 1")])
def test_an_index_is_checked_against_the_letters_and_said_once(tmp_path, start, said):
    rows = [
        {**Q, "options": ["B", "A", "D", "C"], "answer": letter, "answer_index": place + start}
        for place, letter in [(1, "B"), (2, "C")]
    ]
    found = read(tmp_path, rows)
    assert [one.correct for one in found.questions] == ["b", "c"]
    assert sum(f"'answer_index' repeats the answer: numbers that count {said}" in note for note in found.notes) == 1
    rows += [
        {**Q, "options": TEXTS, "answer": "D", "answer_index": start},
        {**Q, "options": TEXTS, "answer": "A", "answer_index": 9},
        {**Q, "options": TEXTS, "answer": "A", "answer_index": None},
    ]
    with pytest.raises(SlimtuneError) as error:
        read(tmp_path, rows)
    assert [problem.where.rpartition(":")[2] for problem in error.value.problems] == ["3", "4"]
    assert f"'answer' is 'D' (choice d), but 'answer_index' is {start} (choice a)" in str(error.value)
    assert "'answer_index' is 9 (none of the choices)" in str(error.value)


def test_letters_beside_numbers_tell_from_what_these_count(tmp_path):
    rows = [{**Q, "choices": TEXTS, "answer": n, "answer_letter": "ABCD"[n]} for n in (1, 2)]
    assert [one.correct for one in read(tmp_path, rows).questions] == ["b", "c"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"context": "x", **Q, "answers": {"text": ["甲"], "answer_start": [1]}}, "no column is known to hold the 'correct'"),
        ({**Q, "correct_answer": "甲", "distractor1": "乙", "distractor2": "丙"}, "hold the 'choices'"),
        ({**Q, "mc1_targets": {"choices": TEXTS, "labels": [1, 0, 0, 0]}}, "hold the 'choices'"),
        ({"premise": "x", "question": "cause", "choice1": "甲", "choice2": "乙", "label": 0}, "'premise' would be left out"),
        ({**Q, "choices": TEXTS, "label": [0, 1, 0, 0]}, "'label' is a list, not the answer"),
        ({**Q, "choices": TEXTS, "answerKey": ""}, "hold the 'correct'"),
        ({**Q, "choices": [["甲"], ["乙"]], "answer": "A"}, "'choices' is a list without texts"),
        ({**Q, "choices": "", "answer": "A"}, "hold the 'choices'"),
        ({**Q, "choices": "甲", "answer": "A"}, "label at least two choices"),
        ({**Q, "choices": "[" * 5000 + "]" * 5000, "answer": "A"}, "label at least two choices"),
        ({**Q, "choices": TEXTS, "cop": -1}, "'correct' is '-1'"),
        ({**Q, "choices": TEXTS, "answer": True}, "'answer' is a boolean, not the answer"),
    ],
)  # fmt: skip
def test_what_is_no_such_set_is_refused_with_the_reason(tmp_path, row, reason):
    with pytest.raises(SlimtuneError) as error:
        read(tmp_path, [row])
    assert reason in str(error.value)
