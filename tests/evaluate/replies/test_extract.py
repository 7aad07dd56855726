"""What a careful reader takes from a reply: the given cases, our own of the same kinds, and how long it takes."""

import json
import time
from pathlib import Path

import pytest
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.evaluate.replies.demand import demand
from slimtune.evaluate.replies.extract import Extraction, extract

GIVEN = ROOT.parent / "shared" / "cases" / "answer_cases.jsonl"
OWN = Path(__file__).with_name("reply_cases.jsonl")
VERDICTS = Path(__file__).with_name("verdict_cases.jsonl")


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.skipif(not GIVEN.is_file(), reason=f"the given cases are not there: {GIVEN}")
@pytest.mark.parametrize("case", read(GIVEN) if GIVEN.is_file() else [], ids=lambda case: case["name"])
def test_given_case(case):
    assert extract(case["text"], mode=case["mode"]).answer == case["expected"]


@pytest.mark.parametrize("kind", dict.fromkeys(case["kind"] for case in read(OWN)))
def test_own_cases_of_the_kind(kind):
    cases = [case for case in read(OWN) if case["kind"] == kind]
    found = [
        (case["mode"], case["text"], extract(case["text"], mode=case["mode"], labels=case.get("labels", 4)).answer)
        for case in cases
    ]
    assert found == [(case["mode"], case["text"], case["expected"]) for case in cases]


@pytest.mark.parametrize("kind", dict.fromkeys(case["kind"] for case in read(VERDICTS)))
def test_replies_whose_question_counts(kind):
    """Half of them are counter-examples: what a careful reader does not take is not taken."""
    wrong = []
    for case in (case for case in read(VERDICTS) if case["kind"] == kind):
        labels, asks = case.get("labels", list("abcd")), demand(case.get("question", ""))
        for mode in ("direct", "cot") if case["mode"] == "both" else (case["mode"],):
            found = extract(case["text"], mode=mode, labels=labels, truncated=case.get("truncated", False), asks=asks)
            if found.answer != case["expected"]:
                wrong.append((mode, case.get("question", ""), case["text"], found, case["expected"]))
    assert not wrong


@pytest.mark.parametrize(
    ("text", "mode", "rule"),
    [
        ("\\boxed{\\text{C}}", "direct", "boxed"),
        ("回答: c", "cot", "marker"),
        ("正しいのはc", "direct", "sentence"),
        ("よってc。", "cot", "conclusion"),
        ("c\n\n解説…", "direct", "bare label"),
        ("C. 第5条の届出書", "direct", "label with text"),
        ("c\n\n解説…", "cot", "first line"),
        ("cccccc", "direct", "repeated label"),
        ("aは誤り。bは誤り。cは正しい。dは誤り。", "direct", "odd one out"),
        ("選択肢cは正しい。", "direct", "only one named"),
        ("- [ ] a\n- [x] c", "cot", "ticked box"),
        ("Answer: a\nNo wait, c.", "cot", "correction"),
        ("aは誤り。bは誤り。cは正しい。dは誤り。", "cot", "odd one out"),
    ],
)
def test_the_rule_that_found_c(text, mode, rule):
    assert extract(text, mode=mode) == Extraction("c", rule, "answered")


@pytest.mark.parametrize(
    ("text", "rule", "status"),
    [
        (" \n　", "empty", "unknown"),
        ("<think>回答: c", "unclosed reasoning", "unknown"),
        ("Error: CUDA out of memory", "error message", "error"),
        ("正解はaまたはcです。", "several labels", "ambiguous"),
        ("a, b, c, d", "all labels listed", "unknown"),
        ("回答: e", "label out of range", "unknown"),
        ("該当なし", "refusal", "unknown"),
        ("選択肢の記号1文字だけで答えてください。", "instruction echo", "unknown"),
        ("第2条第1項", "no label", "unknown"),
    ],
)
def test_why_there_is_no_answer(text, rule, status):
    assert extract(text, mode="direct") == Extraction(None, rule, status)
    cut_off = extract(text, mode="direct", truncated=True)
    assert cut_off == Extraction(None, rule, "error" if status == "error" else "truncated")


def test_a_reply_that_was_cut_off_behind_its_answer_is_answered():
    assert extract("回答: c\n\n理由は、第2条第1", mode="cot", truncated=True) == Extraction("c", "marker", "answered")


def test_answers_are_named_as_the_labels_are():
    assert extract("正解はｃ", mode="direct", labels="ABCD").answer == "C"
    assert extract("正解はc", mode="direct", labels=["1", "2", "3", "4"]).answer == "3"
    assert extract("答え: 2", mode="direct", labels=("ア", "イ")).answer == "イ"
    assert extract("e", mode="direct", labels=5).answer == "e"


@pytest.mark.parametrize(
    "labels",
    [1, 11, 0, [], ["a"], ["b", "a"], ["I"], ["II", "I"], ["a", "x"], ["a", "a"], ["yes", "no"], "abcdefghijk"],
)
def test_what_are_no_labels(labels):
    with pytest.raises(SlimtuneError, match="not valid labels"):
        extract("a", mode="direct", labels=labels)


PIECES = [
    *(
        "a",
        "a ",
        "a\n",
        "a, ",
        "a-",
        "aで",
        "aが正しい",
        "c is ",
        "回答: ",
        "正解は",
        "Answer ",
        "the answer is ",
        "よって",
        "therefore ",
    ),
    *(
        "(",
        "(a",
        "()",
        "[",
        "!",
        "*",
        "\\boxed{",
        "\\text{",
        "<b>",
        "<think>",
        "</think>",
        '{"a":',
        "~~a",
        "1. ",
        "例: ",
        "error",
    ),
    *(
        " ",
        "\n",
        "、",
        "' ",
        ".",
        "a\n",
        "\u0301\u0327",
        "sure, . ",
        "the quick brown fox ",
        "条文の規定により",
        "どれか",
        "問題",
        "not ",
    ),
]
QUICK = ("回答: ", "(", "\u0301\u0327")


@pytest.mark.parametrize(
    "piece", [pytest.param(piece, marks=[] if piece in QUICK else pytest.mark.slow) for piece in PIECES]
)
def test_a_hundred_kilobytes_of_anything_take_no_minute(piece):
    text = (piece * (100_000 // len(piece) + 1))[:100_000]
    started = time.process_time()
    extract(f"答え{text}x", mode="direct", labels=10)
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    "piece",
    [
        "(a) ",
        *(
            pytest.param(piece, marks=pytest.mark.slow)
            for piece in ("回答: a\n", "よってbが", "問題2\n", "条文の規定により、")
        ),
    ],
)
def test_the_time_grows_with_the_length_and_not_with_its_square(piece):
    def seconds(length):
        text = (piece * (length // len(piece) + 1))[:length]
        started = time.process_time()
        for _ in range(3):
            extract(text, mode="cot", labels=10)
        return time.process_time() - started

    seconds(1_000)
    # Sixteen times the text: 256 times the time, were it quadratic.
    assert seconds(64_000) < 80 * seconds(4_000)
