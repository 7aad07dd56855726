"""Stored replies read again: every key stays, nothing is lost, twice is once, and totals of our own come out as they were."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.answer_rows import rows_of, write
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.evaluate import rescore

GIVEN = ROOT.parent / "shared" / "cases" / "answer_cases.jsonl"


def test_each_row_gets_answer_rule_and_status(tmp_path):
    path = write(
        tmp_path / "replies.jsonl",
        {"id": 7, "response": "正解はｃです。", "seconds": 1.5, "nested": {"list": [1, None]}},
        {"text": "aまたはb", "id": 8},
        {"mode": "cot", "text": "回答: a\n…\n回答: b", "id": 9},
    )
    summary = rescore.rescore(path)
    assert summary.path == tmp_path / "replies.rescored.jsonl"
    assert rows_of(summary.path) == summary.rows
    assert [list(row.items()) for row in summary.rows] == [
        [
            ("id", 7),
            ("response", "正解はｃです。"),
            ("seconds", 1.5),
            ("nested", {"list": [1, None]}),
            ("answer", "c"),
            ("rule", "marker"),
            ("status", "answered"),
        ],
        [("text", "aまたはb"), ("id", 8), ("answer", None), ("rule", "several labels"), ("status", "ambiguous")],
        [
            ("mode", "cot"),
            ("text", "回答: a\n…\n回答: b"),
            ("id", 9),
            ("answer", "b"),
            ("rule", "marker"),
            ("status", "answered"),
        ],
    ]


@pytest.mark.skipif(not GIVEN.is_file(), reason=f"the given cases are not there: {GIVEN}")
def test_the_given_cases(tmp_path):
    cases = rows_of(GIVEN)
    summary = rescore.rescore(GIVEN, output=tmp_path / "out.jsonl")
    written = rows_of(tmp_path / "out.jsonl")
    assert [row["answer"] for row in written] == [case["expected"] for case in cases]
    assert [list(row)[:4] for row in written] == [list(case) for case in cases]
    known = sum(case["expected"] is not None for case in cases)
    assert (summary.correct, summary.known) == (known, known)


def test_the_mode_is_the_rows_own_or_else_the_one_given(tmp_path):
    rows = [
        {"text": "回答: a\n回答: b"},
        {"text": "回答: a\n回答: b", "mode": "direct"},
        {"text": "回答: a\n回答: b", "mode": None},
    ]
    summary = rescore.rescore(write(tmp_path / "r.jsonl", *rows), mode="cot")
    assert [row["answer"] for row in summary.rows] == ["b", "a", "b"]


def test_a_row_may_tell_its_labels(tmp_path):
    five, upper = {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}, ["A", "B", "C"]
    summary = rescore.rescore(
        write(
            tmp_path / "r.jsonl",
            {"text": "e"},
            {"text": "e", "labels": 5},
            {"text": "c", "labels": upper},
            {"text": "e", "choices": five},
            {"text": "e", "meta": {"choices": five}},
            {"text": "e", "choices": ["東", "西", "南", "北", "中"]},
            {"text": "b", "choices": {"text": ["東", "西"], "label": ["A", "B"]}},
            {"text": "5", "choices": {"first": "東", "second": "西"}},
        )
    )
    assert [row["answer"] for row in summary.rows] == [None, "e", "C", "e", "e", "e", "B", None]


def test_labels_may_be_given_by_name(tmp_path):
    summary = rescore.rescore(write(tmp_path / "r.jsonl", {"text": "答え: ｂ"}), labels=["ア", "イ"])
    assert summary.rows[0]["answer"] == "イ"


def test_a_reply_that_was_cut_off(tmp_path):
    rows = [
        {"text": "条文によれば", "truncated": True},
        {"text": "条文によれば", "finish_reason": "length"},
        {"text": "条文によれば", "finish_reason": "stop", "truncated": False},
        {"text": "回答: c", "finish_reason": "length"},
        {"text": "条文によれば", "status": "truncated"},
    ]
    summary = rescore.rescore(write(tmp_path / "r.jsonl", *rows), mode="cot")
    assert [row["status"] for row in summary.rows] == ["truncated", "truncated", "unknown", "answered", "truncated"]


def test_a_reply_that_never_came_is_an_error(tmp_path):
    rows = [{"text": None, "error": "connection refused"}, {"text": "", "status": "error"}, {"response": "Error: 429"}]
    summary = rescore.rescore(write(tmp_path / "r.jsonl", *rows))
    assert [(row["answer"], row["rule"], row["status"]) for row in summary.rows] == [
        (None, "error message", "error")
    ] * 3


def test_what_a_row_said_before_is_kept(tmp_path):
    path = write(
        tmp_path / "r.jsonl",
        {"answer": "a", "text": "回答（1文字のみ）: c", "status": "ok"},
        {"text": "回答: c", "answer": "c", "rule": "marker", "status": "answered"},
    )
    summary = rescore.rescore(path)
    assert [list(row.items()) for row in summary.rows] == [
        [
            ("answer", "c"),
            ("text", "回答（1文字のみ）: c"),
            ("status", "answered"),
            ("rule", "marker"),
            ("previous", {"answer": "a", "status": "ok"}),
        ],
        [("text", "回答: c"), ("answer", "c"), ("rule", "marker"), ("status", "answered")],
    ]
    assert summary.changed == 1
    once = summary.path
    again = rescore.rescore(once)
    assert again.changed == 0
    assert again.path.read_bytes() == once.read_bytes()
    # Other labels, other answers: what stood there first is still there, and nothing is nested.
    others = rescore.rescore(once, labels=2, overwrite=True).rows
    assert others[0]["previous"] == {"answer": "a", "status": "ok", "rule": "marker"}
    assert others[1]["previous"] == {"answer": "c", "rule": "marker", "status": "answered"}


def test_a_previous_of_another_tool_stays_unless_it_would_be_overwritten(tmp_path):
    path = write(tmp_path / "r.jsonl", {"text": "c", "previous": "q-6"})
    assert rescore.rescore(path).rows[0]["previous"] == "q-6"
    path = write(tmp_path / "other.jsonl", {"text": "c", "previous": "q-6", "answer": "d"})
    with pytest.raises(SlimtuneError, match="a 'previous' of its own, and other answer"):
        rescore.rescore(path)


def test_totals_by_hand(tmp_path):
    path = write(
        tmp_path / "r.jsonl",
        {"text": "a", "gold": "a"},
        {"text": "回答: b", "expected": "Ｂ"},
        {"text": "c", "correct": "d"},
        {"text": "該当なし", "meta": {"correct": "a"}},
        {"text": "aまたはb", "correct": True},
        {"text": "d", "gold": "第5条"},
    )
    summary = rescore.rescore(path)
    assert summary.statuses == {"answered": 4, "unknown": 1, "ambiguous": 1}
    assert summary.rules == {"bare label": 3, "marker": 1, "refusal": 1, "several labels": 1}
    assert summary.answers == {"a": 1, "b": 1, "c": 1, "d": 1}
    assert (summary.known, summary.answered, summary.correct) == (4, 3, 2)
    assert rescore.lines(summary) == [
        "6 replies: answered 4, unknown 1, ambiguous 1",
        "rules: bare label 3, marker 1, refusal 1, several labels 1",
        "answers: a 1, b 1, c 1, d 1",
        "correct: 2 of 4 (50.0 %); of the 3 answered ones 66.7 %",
    ]


def test_without_right_answers_there_is_no_accuracy(tmp_path):
    summary = rescore.rescore(write(tmp_path / "r.jsonl", {"text": "?", "answer": "b"}))
    assert summary.known == 0
    assert rescore.lines(summary) == [
        "1 reply: unknown 1",
        "rules: no label 1",
        "answers: none",
        "1 row changed; the old values are under 'previous'",
    ]


def test_everything_that_is_wrong_is_told_at_once_and_nothing_is_written(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(
        "\n".join(
            [
                '{"text": "c"}',
                '{"text": "c",',
                '["c"]',
                '{"id": 4}',
                '{"text": 3}',
                '{"response": null}',
                '{"text": "c", "mode": "fast"}',
                '{"text": "c", "labels": ["x", "y"], "mode": 7}',
                '{"text": "c", "choices": ["only one"]}',
                '{"text": "c", "kind": "generation"}',
                '{"rule": "letters", "predicted": "c"}',
                '{"text": "c", "text": "d"}',
            ]
        ),
        encoding="utf-8",
    )
    before = path.read_bytes()
    with pytest.raises(SlimtuneError) as caught:
        rescore.rescore(path, output=tmp_path / "out.jsonl")
    told = [(problem.where.rpartition(":")[2], problem.what) for problem in caught.value.problems]
    assert told == [
        ("2", "broken JSON at column 14: Expecting property name enclosed in double quotes"),
        ("3", "the row is a list, not an object"),
        ("4", "the row has neither 'text' nor 'response'"),
        ("5", "'text' is a number, not a string"),
        ("6", "'response' is null, not a string"),
        ("7", "unknown mode 'fast'"),
        ("8", "unknown mode 7"),
        ("8", "these are not valid labels: x, y"),
        ("9", "these are not valid labels: 1"),
        ("10", "a row of kind generation has no answer to read"),
        ("11", "the row was scored by the letters' probabilities"),
        ("12", "the key 'text' occurs twice in one object"),
    ]
    assert all(problem.fix for problem in caught.value.problems)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.jsonl"]


@pytest.mark.parametrize(
    ("content", "what"), [(b"", "no rows"), (b"\n \n", "no rows"), ("正解".encode("cp932"), "UTF-8")]
)
def test_a_file_without_rows(tmp_path, content, what):
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(SlimtuneError, match=what):
        rescore.rescore(path)
    assert path.read_bytes() == content


def test_wrong_wishes(tmp_path):
    path = write(tmp_path / "r.jsonl", {"text": "c"})
    with pytest.raises(SlimtuneError, match="no such file"):
        rescore.rescore(tmp_path / "other.jsonl")
    with pytest.raises(SlimtuneError, match="unknown mode 'fast'"):
        rescore.rescore(path, mode="fast")
    with pytest.raises(SlimtuneError, match="these are not valid labels: 1"):
        rescore.rescore(path, labels=1)
    with pytest.raises(SlimtuneError, match="is a file, not a folder"):
        rescore.rescore(path, output=path / "folder.jsonl")
    with pytest.raises(SlimtuneError, match=r"--output .*r\.jsonl: the output is also an input"):
        rescore.rescore(path, output=path, overwrite=True)
    assert rows_of(path) == [{"text": "c"}]


def test_half_a_character_survives(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"text": "\xe7\xad\x94\xe3\x81\x88: c \\ud83d", "note": "\\\\ud83d"}\n')
    assert rows_of(rescore.rescore(path).path)[0] == {
        "text": "答え: c \ud83d",
        "note": "\\ud83d",
        "answer": "c",
        "rule": "marker",
        "status": "answered",
    }


def test_replies_behind_a_link_are_not_written(tmp_path):
    path = write(tmp_path / "real.jsonl", {"text": "c"})
    for link in (os.symlink, os.link):
        link(path, tmp_path / "latest.rescored.jsonl")
        link(path, tmp_path / "latest.jsonl")
        with pytest.raises(SlimtuneError, match="the output is also an input"):
            rescore.rescore(tmp_path / "latest.jsonl", overwrite=True)
        assert rows_of(path) == [{"text": "c"}]
        for name in ("latest.rescored.jsonl", "latest.jsonl"):
            (tmp_path / name).unlink()


def test_other_rows_are_replaced_only_when_asked(tmp_path):
    path = write(tmp_path / "r.jsonl", {"text": "c"})
    taken = write(tmp_path / "r.rescored.jsonl", {"mine": 1})
    with pytest.raises(SlimtuneError, match=r"r\.rescored\.jsonl: the file exists already and has other content"):
        rescore.rescore(path)
    assert rows_of(taken) == [{"mine": 1}]
    rescore.rescore(path, overwrite=True)
    assert rescore.rescore(path).rows == rows_of(taken)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
own_keys = {"mode", "labels", "choices", "meta", "kind", "rule", "previous", "votes", "text", "response", "status"}
replies = st.fixed_dictionaries(
    {
        "text": st.sampled_from(["c", "回答: b", "該当なし", "aまたはb", "Error: 429", "正解はｄです。"])
        | st.text(max_size=30)
    },
    optional={"mode": st.sampled_from(["direct", "cot"]), "truncated": st.booleans(), "answer": values, "gold": values},
)
rows = st.tuples(
    replies, st.dictionaries(st.text(max_size=6).filter(lambda key: key not in own_keys), values, max_size=3)
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows.map(lambda parts: {**parts[1], **parts[0]}), min_size=1, max_size=5))
def test_nothing_is_lost_and_twice_is_once(tmp_path, rows):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    summary = rescore.rescore(path, overwrite=True)
    written = rows_of(summary.path)
    assert rows_of(path) == rows
    for before, after in zip(rows, written, strict=True):
        assert [key for key in after if key in before] == list(before)
        restored = {**after, **after.get("previous", {})}
        assert {key: restored[key] for key in before} == before
        assert (after["status"] == "answered") == (after["answer"] is not None)
    assert sum(summary.statuses.values()) == len(rows) == sum(summary.rules.values())
    again = rescore.rescore(summary.path, overwrite=True)
    assert again.changed == 0
    assert again.path.read_bytes() == summary.path.read_bytes()
