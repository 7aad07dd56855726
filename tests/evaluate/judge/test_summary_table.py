"""The before/after table."""

import math

from support.answer_rows import answers, items

from slimtune.evaluate import kinds
from slimtune.evaluate.judge import verdict


def test_summary_rows():
    gold = "abcd" * 2
    base = items(gold, answers(gold, range(2)), label_mass=0.25)
    tuned = items(gold, answers(gold, range(4)), label_mass=1.0)
    # Wilson for 2 and 4 of 8.
    assert kinds.table(verdict.judge(base, tuned)) == [
        ("accuracy", "25.0 % (7.1 to 59.1)", "50.0 % (21.5 to 78.5)"),
        ("correct / n", "2 / 8", "4 / 8"),
        ("answers a / b / c / d (gold 2 / 2 / 2 / 2)", "3 / 2 / 1 / 2", "2 / 2 / 2 / 2"),
        ("majority baseline", "25.0 % (always a)", "25.0 % (always a)"),
        ("label mass", "25.0 %", "100.0 %"),
    ]


def test_summary_rows_with_everything_that_can_be_known():
    base = items("ab", "ab", label_mass=0.5, greedy_agrees=True, logprobs={"a": math.log(0.25), "b": math.log(0.25)})
    tuned = [{**row, "greedy_agrees": False} for row in base]
    rows = kinds.table(verdict.judge(base, tuned))
    assert rows[-3:] == [
        ("agrees with greedy text", "100.0 %", "0.0 %"),
        ("Brier score", "0.500", "0.500"),
        ("calibration error", "50.0 %", "50.0 %"),
    ]
    assert len(rows) <= 10


def test_summary_rows_of_a_verdict_of_an_older_version():
    side = {"accuracy": 0.5, "correct": 1, "histogram": {"a": 1, "b": 0}, "unanswered": 1, "label_mass": None}
    old = {
        "n": 2,
        "labels": ["a", "b"],
        "base": side,
        "tuned": {**side, "label_mass": 0.5},
        "gold": {"a": 1, "b": 1},
        "majority": {"label": "a", "share": 0.5},
    }
    assert kinds.table(old) == [
        ("accuracy", "50.0 %", "50.0 %"),
        ("correct / n", "1 / 2", "1 / 2"),
        ("answers a / b (gold 1 / 1)", "1 / 0", "1 / 0"),
        ("no answer", "1", "1"),
        ("majority baseline", "50.0 % (always a)", "50.0 % (always a)"),
        ("label mass", "not recorded", "50.0 %"),
    ]
