"""The verdict on figures worked by hand."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimtune.errors import SlimtuneError
from slimtune.evaluate import verdict

NEXT = {"a": "b", "b": "c", "c": "d", "d": "a"}


def items(gold, predicted, **more):
    return [
        {"id": f"q{index}", "gold": g, "predicted": p, **more}
        for index, (g, p) in enumerate(zip(gold, predicted, strict=True))
    ]


def answers(gold, right):
    """The gold letters, wrong (the next letter) wherever the index is not in `right`."""
    return [letter if index in right else NEXT[letter] for index, letter in enumerate(gold)]


def test_mcnemar_by_hand():
    # 10 items changed: P(X <= 1) = (1 + 10) / 1024 under Binomial(10, 1/2), twice that for two sides.
    assert verdict.mcnemar_exact(1, 9) == pytest.approx(22 / 1024)
    assert verdict.mcnemar_exact(9, 1) == pytest.approx(22 / 1024)
    assert verdict.mcnemar_exact(0, 5) == pytest.approx(2 / 32)
    assert verdict.mcnemar_exact(7, 7) == 1.0
    assert verdict.mcnemar_exact(0, 0) == 1.0


def test_items_needed_by_hand():
    # ψ = 0.15, δ = 0.05: (1.95996 * √0.15 + 0.84162 * √0.1475)² / 0.05² = 1.08232² / 0.0025 = 468.6
    assert verdict.items_needed(100, 5, 10) == 469
    assert verdict.items_needed(100, 10, 5) == 469
    assert verdict.items_needed(100, 5, 5) is None
    # The formula alone gives 4; but five of five have just not been enough.
    assert verdict.items_needed(5, 0, 5) == 6


def test_better():
    gold = "abcd" * 30
    base, tuned = items(gold, answers(gold, range(32))), items(gold, answers(gold, range(115)))
    result = verdict.judge(base, tuned, labels="abcd")
    assert result["verdict"] == "better"
    assert (result["base"]["correct"], result["tuned"]["correct"]) == (32, 115)
    assert result["mcnemar"]["lost"] == 0
    assert result["mcnemar"]["gained"] == 83
    assert result["difference_points"] == pytest.approx(100 * 83 / 120)
    assert result["majority"] == {"label": "a", "share": 0.25}
    assert result["sentence"] == (
        "better: 26.7 % → 95.8 % on 120 questions (majority baseline 25.0 %, exact McNemar p < 0.001)"
    )
    assert json.loads(json.dumps(result)) == result


def test_worse_with_its_p_value():
    gold = "abcd" * 5
    # Nine lost, one gained: the p-value worked by hand above.
    result = verdict.judge(items(gold, answers(gold, range(10))), items(gold, answers(gold, {9, 10})))
    assert (result["mcnemar"]["lost"], result["mcnemar"]["gained"]) == (9, 1)
    assert result["verdict"] == "worse"
    assert "exact McNemar p = 0.0215" in result["sentence"]


def test_cannot_tell_says_how_many_items_it_would_take():
    gold = "abcd" * 25
    base, tuned = answers(gold, range(40)), answers(gold, range(5, 50))
    result = verdict.judge(items(gold, base), items(gold, tuned))
    assert (result["mcnemar"]["lost"], result["mcnemar"]["gained"]) == (5, 10)
    assert result["verdict"] == "cannot tell"
    assert result["items_needed"] == 469
    assert "on 100 questions" in result["sentence"]
    assert "about 469 questions would be needed (power 80 %)" in result["sentence"]


def test_no_difference_needs_no_number():
    gold = "abcd" * 3
    same = items(gold, answers(gold, range(6)))
    result = verdict.judge(same, same)
    assert result["verdict"] == "cannot tell"
    assert result["items_needed"] is None
    assert "both models have 6 right" in result["sentence"]


def test_collapse_is_not_better_even_when_it_scores_more():
    gold = "a" * 40 + "b" * 30 + "c" * 30
    base, tuned = items(gold, answers(gold, ())), items(gold, "a" * 95 + "bbbbb")
    result = verdict.judge(base, tuned)
    assert result["mcnemar"]["p_value"] < 0.001
    assert result["verdict"] == "collapsed"
    assert result["collapse"] == {"label": "a", "share": 0.95, "gold_share": 0.4, "collapsed": True}
    assert result["sentence"].startswith('collapsed: "a" is the answer to 95 of 100 questions (gold: 40); accuracy')


@pytest.mark.parametrize(
    ("gold", "predicted", "collapsed"),
    [
        ("abcd" * 10, "a" * 40, True),
        ("abcd" * 10, "a" * 36 + "bcdb", True),  # exactly 90 %
        ("abcd" * 10, "a" * 35 + "bcdbb", False),  # 87.5 %
        ("a" * 38 + "bc", "a" * 40, False),  # gold itself is 95 % "a"
        ("aab" * 20, "a" * 60, True),  # two thirds of gold, all of the answers
        ("ab", "aa", False),  # two answers can be alike by chance: p = 0.25
        ("abcd", "aaaa", True),  # four hardly: p = 1/256
    ],
)
def test_what_counts_as_collapse(gold, predicted, collapsed):
    result = verdict.judge(items(gold, answers(gold, ())), items(gold, predicted), labels="abcd")
    assert result["collapse"]["collapsed"] is collapsed
    assert (result["verdict"] == "collapsed") is collapsed


def test_a_collapse_that_the_base_shares_is_said():
    gold = "abcd" * 10
    result = verdict.judge(items(gold, "a" * 40), items(gold, "a" * 40))
    assert result["verdict"] == "collapsed"
    assert 'the base model answers "a" to 40 of 40 as well' in result["sentence"]


def test_caveats_of_a_better_model():
    gold = "a" * 60 + "b" * 20 + "c" * 20
    result = verdict.judge(items(gold, answers(gold, ())), items(gold, answers(gold, range(50)), label_mass=0.2))
    assert result["verdict"] == "better"
    assert 'no better than always answering "a"' in result["sentence"]
    assert "only 20.0 % of its probability is on the labels" in result["sentence"]


def test_leaning_on_one_label_is_said():
    gold = "abcd" * 35
    predicted = "a" * 100 + gold[100:]
    result = verdict.judge(items(gold, answers(gold, ())), items(gold, predicted))
    assert result["verdict"] == "better"
    assert 'it answers "a" to 78.6 % of the questions, gold has 25.0 %' in result["caveats"]


def test_items_pair_by_id_and_unanswered_ones_are_wrong():
    gold = "abab"
    tuned = items(gold, ["a", "b", None, "b"])
    result = verdict.judge(items(gold, "bbbb"), list(reversed(tuned)))
    assert result["tuned"] == {
        "accuracy": 0.75,
        "correct": 3,
        "histogram": {"a": 1, "b": 2},
        "unanswered": 1,
        "label_mass": None,
    }
    assert ("no answer", "0", "1") in verdict.summary_rows(result)
    assert "1 of 4 questions got no answer" in result["sentence"]


def test_labels_are_those_that_occur_unless_named():
    base = items("aa", "ab", logprobs={"a": -0.1, "b": -3.0, "e": -9.0})
    assert verdict.judge(base, base)["labels"] == ["a", "b", "e"]
    assert verdict.judge(base, base, labels="abcdef")["tuned"]["histogram"]["f"] == 0


def test_summary_rows():
    gold = "abcd" * 2
    base = items(gold, answers(gold, range(2)), label_mass=0.25)
    tuned = items(gold, answers(gold, range(4)), label_mass=1.0)
    assert verdict.summary_rows(verdict.judge(base, tuned)) == [
        ("accuracy", "25.0 %", "50.0 %"),
        ("correct / n", "2 / 8", "4 / 8"),
        ("answers a / b / c / d (gold 2 / 2 / 2 / 2)", "3 / 2 / 1 / 2", "2 / 2 / 2 / 2"),
        ("majority baseline", "25.0 % (always a)", "25.0 % (always a)"),
        ("label mass", "25.0 %", "100.0 %"),
    ]


def test_everything_that_does_not_pair_is_told_at_once():
    base = items("abc", "abc")
    tuned = [*items("ab", "ab"), {"id": "extra", "gold": "a", "predicted": "a"}]
    tuned[1]["gold"] = "d"
    with pytest.raises(SlimtuneError) as caught:
        verdict.judge(base, tuned)
    assert [problem.what for problem in caught.value.problems] == [
        "answered by the base model only: q2",
        "answered by the tuned model only: extra",
        "different gold answers: q1",
    ]


@pytest.mark.parametrize(
    ("tuned", "labels", "message"),
    [
        ([], None, "no items to judge"),
        (items("ab", "ab") + items("a", "a"), None, "repeated ids: q0"),
        ([{"id": "q0", "gold": "a"}, *items("ab", "ab")[1:]], None, "without predicted"),
        (items("ab", "ab", correct=False), None, "marked correct=False"),
        (items("ab", "ae"), "abcd", "answers outside a, b, c, d: e"),
    ],
)
def test_bad_items_are_errors(tuned, labels, message):
    with pytest.raises(SlimtuneError, match=message):
        verdict.judge(items("ab", "ab"), tuned, labels=labels)


letters = st.sampled_from("abcd")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(letters, letters, letters), min_size=1, max_size=60), st.randoms())
def test_swapping_the_models_mirrors_the_verdict(rows, random):
    gold, first, second = zip(*rows, strict=True)
    one, other = items(gold, first), items(gold, second)
    shuffled = other.copy()
    random.shuffle(shuffled)
    there, back = verdict.judge(one, shuffled, labels="abcd"), verdict.judge(other, one, labels="abcd")
    assert there["mcnemar"]["p_value"] == pytest.approx(back["mcnemar"]["p_value"])
    assert there["difference_points"] == -back["difference_points"]
    assert there["base"] == back["tuned"]
    mirrored = {"better": "worse", "worse": "better", "cannot tell": "cannot tell"}
    if "collapsed" not in (there["verdict"], back["verdict"]):
        assert back["verdict"] == mirrored[there["verdict"]]
    assert sum(there["tuned"]["histogram"].values()) == there["n"] == len(rows)
    if there["items_needed"] is not None:
        assert there["items_needed"] > len(rows)
