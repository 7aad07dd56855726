"""The figures of one model, from rows of every mode, worked by hand."""

import math

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.evaluate import kinds
from slimtune.evaluate.kinds.choice_figures import labels_in


def letters(identifier, gold, shares, **more):
    """A row of direct answering, with probabilities instead of their logarithms."""
    predicted = max(shares, key=shares.get)
    return {
        "id": identifier,
        "kind": "multiple_choice",
        "mode": "direct",
        "gold": gold,
        "predicted": predicted,
        "correct": predicted == gold,
        "status": "answered",
        "labels": list(shares),
        "rule": "letters",
        "logprobs": {label: math.log(share) for label, share in shares.items()},
        "label_mass": sum(shares.values()),
        "greedy_agrees": True,
        **more,
    }


def test_letters_by_hand():
    rows = [
        letters("q1", "a", {"a": 0.6, "b": 0.2}),  # renormalised 0.75, 0.25: right
        letters("q2", "b", {"a": 0.9, "b": 0.1}, greedy_agrees=False),  # wrong
    ]
    measured = kinds.measure(rows)
    calibration = measured.pop("calibration")
    assert measured == {
        "kind": "multiple_choice",
        "n": 2,
        "labels": ["a", "b"],
        "gold": {"a": 1, "b": 1},
        "majority": {"label": "a", "share": 0.5},
        "accuracy": 0.5,
        "interval": pytest.approx([0.094531, 0.905469], abs=1e-6),
        "correct": 1,
        "histogram": {"a": 2, "b": 0},
        "unanswered": 0,
        "statuses": {"answered": 2, "unknown": 0, "ambiguous": 0, "truncated": 0, "error": 0},
        "label_mass": pytest.approx(0.9),
        "greedy_agreement": 0.5,
        # (0.25² + 0.25² + 0.9² + 0.9²) / 2
        "brier": pytest.approx(0.8725),
        # (|1 - 0.75| + |0 - 0.9|) / 2, each in a bin of its own
        "calibration_error": pytest.approx(0.575),
        "recall": {"a": 1.0, "b": 0.0},
        "position_bias": 0.5,
        "permutations": None,
    }
    assert [row["n"] for row in calibration] == [1, 1]


def test_replies_are_counted_by_status():
    rows = [
        {"id": "q1", "mode": "cot", "gold": "a", "predicted": "a", "status": "answered", "text": "回答: a"},
        {"id": "q2", "mode": "cot", "gold": "b", "predicted": None, "status": "truncated", "text": "まず"},
        {"id": "q3", "mode": "cot", "gold": "b", "predicted": None, "status": "ambiguous", "text": "aかb"},
        {"id": "q4", "mode": "cot", "gold": "a", "predicted": "b", "status": "answered", "votes": {"b": 2, "a": 1}},
    ]
    measured = kinds.measure(rows)
    assert measured["statuses"] == {"answered": 2, "unknown": 0, "ambiguous": 1, "truncated": 1, "error": 0}
    assert (measured["accuracy"], measured["unanswered"]) == (0.25, 2)
    assert measured["histogram"] == {"a": 1, "b": 1}
    assert (measured["brier"], measured["label_mass"], measured["greedy_agreement"]) == (None, None, None)
    assert ("no answer", "1 ambiguous, 1 truncated") in kinds.table(measured)


def test_rows_of_older_versions():
    rows = [
        {"id": "q1", "gold": "a", "predicted": "a", "logprobs": {"a": -0.1, "b": -3.0}, "label_mass": 0.95},
        {"id": "q2", "gold": "b", "predicted": None},
    ]
    measured = kinds.measure(rows)
    assert measured["statuses"]["answered"] == measured["statuses"]["unknown"] == 1
    assert measured["label_mass"] == 0.95
    # Of the one row that has probabilities: p(b) = e⁻³ / (e⁻⁰·¹ + e⁻³).
    p = math.exp(-3) / (math.exp(-0.1) + math.exp(-3))
    assert measured["brier"] == pytest.approx(2 * p**2)


def test_permutations_count_each_order_as_it_was_displayed():
    def question(identifier, gold, predicted, shown):
        orders = [{"order": order, "gold": g, "predicted": p} for order, g, p in shown]
        return {"id": identifier, "gold": gold, "predicted": predicted, "permutations": orders}

    rows = [
        # Answers "a" whatever stands there: right in one of two orders.
        question("q1", "a", "a", [("ab", "a", "a"), ("ba", "b", "a")]),
        question("q2", "b", "a", [("ab", "b", "a"), ("ba", "a", "a")]),
        question("q3", "b", "b", [("ab", "b", "b"), ("ba", "a", "a")]),
        question("q4", "b", "b", [("ab", "b", None), ("ba", "a", "a")]),
    ]
    measured = kinds.measure(rows)
    # The question's own prediction: q1, q3, q4.
    assert (measured["accuracy"], measured["correct"], measured["n"]) == (0.75, 3, 4)
    assert measured["histogram"] == {"a": 6, "b": 1}
    assert measured["gold"] == {"a": 4, "b": 4}
    assert measured["majority"] == {"label": "b", "share": 0.75}
    # Displayed a: 4 of 4; displayed b: 1 of 4 (q3).
    assert measured["recall"] == {"a": 1.0, "b": 0.25}
    assert measured["position_bias"] == pytest.approx(0.375)
    # 0.5, 0.5, 1, 0.5
    assert measured["permutations"] == {"count": 2, "mean_accuracy": 0.625, "all_correct": 0.25}
    rows = dict(kinds.table(measured))
    assert rows["right in all 2 orders (mean)"] == "25.0 % (62.5 %)"
    assert rows["position bias"] == "37.5 %"


def test_labels_come_in_the_order_of_the_questions():
    rows = [
        {"gold": "2", "predicted": "10", "labels": ["1", "2", "10"]},
        {"gold": "1", "predicted": "x", "labels": ["1", "2"], "logprobs": {"z": -1.0}},
    ]
    assert labels_in(rows) == ["1", "2", "10", "x", "z"]


def test_perplexity_weighs_tokens_not_texts():
    rows = [
        {"id": 1, "kind": "perplexity", "nll": 30 * math.log(2), "tokens": 30},
        {"id": 2, "kind": "perplexity", "nll": 10 * math.log(32), "tokens": 10},
    ]
    measured = kinds.measure(rows)
    # exp((30 ln 2 + 10 · 5 ln 2) / 40) = 2²
    assert measured["perplexity"] == pytest.approx(4)
    assert measured["tokens"] == 40
    assert kinds.table(measured)[0] == ("perplexity", "4.00")


def reply(text, reference, chrf=50.0, **more):
    return {
        "kind": "generation",
        "text": text,
        "reference": reference,
        "chrf": chrf,
        "exact": text == reference,
        **more,
    }


def test_replies_against_references():
    rows = [
        reply("契約は無効である。", "契約は無効である。", 100.0),
        reply("契約は無効である。", "取り消すことができる。", 10.0, status="answered"),
        reply(" ", "追認を要する。", 0.0),
        reply("まず、", "追認を要する。", 5.0, status="truncated"),
        reply("", "追認を要する。", 0.0, status="error"),
    ]
    measured = kinds.measure(rows)
    assert (measured["exact"], measured["correct"], measured["chrf"]) == (0.2, 1, 23.0)
    assert measured["statuses"] == {"answered": 3, "truncated": 1, "error": 1}
    assert (measured["empty"], measured["unusable"]) == (1, 3)
    assert measured["commonest"] == {"text": "契約は無効である。", "count": 2, "share": 0.4}
    assert "tok:char" in measured["bleu_signature"]
    assert ("cut off, empty or failed", "3 / 5") in kinds.table(measured)


def test_bleu_counts_words_where_there_are_spaces_and_characters_where_there_are_none():
    english = kinds.measure([reply("the cat sat on the mat", "the cat sat on the mat")])
    assert "tok:13a" in english["bleu_signature"]
    assert (english["bleu"], english["corpus_chrf"]) == pytest.approx((100, 100))
    # All n-grams of the four characters are right; half as long costs the brevity penalty exp(1 - 8/4).
    half = kinds.measure([reply("一二三四", "一二三四五六七八")])
    assert half["bleu"] == pytest.approx(100 * math.exp(-1))


def test_no_rows_are_an_error():
    with pytest.raises(SlimtuneError, match="no items to measure"):
        kinds.measure([])
