"""The verdict on figures worked by hand."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.answer_rows import answers, items

from slimtune.evaluate import kinds
from slimtune.evaluate.judge import verdict


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
    # Wilson, 115 of 120: 90.6 to 98.2 %. Each bootstrap end is within a question or two of ±1.96 √(0.692 · 0.308 / 120).
    assert result["tuned"]["interval"] == pytest.approx([0.9062, 0.9821], abs=1e-4)
    assert result["difference_interval"] == pytest.approx([60.9, 77.4], abs=1.3)
    low, high = result["difference_interval"]
    assert result["sentence"] == (
        "better: 26.7 % → 95.8 % (90.6 to 98.2) on 120 questions "
        f"(+69.2 points, 95 % interval {low:+.1f} to {high:+.1f}; exact McNemar p < 0.001; majority baseline 25.0 %)"
    )
    assert result["flips"]["lost"] == []
    assert result["flips"]["gained"] == [f"q{index}" for index in range(32, 115)]
    assert (result["kind"], result["mode"], result["contamination"]) == ("multiple_choice", "direct", None)
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
    assert result["sentence"].startswith("cannot tell at n=100: 40.0 % → 45.0 % (+5.0 points, 95 % interval -")
    assert "about 469 questions would be needed (power 80 %)" in result["sentence"]


def test_no_difference_needs_no_number():
    gold = "abcd" * 3
    same = items(gold, answers(gold, range(6)))
    result = verdict.judge(same, same)
    assert result["verdict"] == "cannot tell"
    assert result["items_needed"] is None
    assert result["sentence"] == (
        "cannot tell at n=12: 50.0 % → 50.0 % "
        "(+0.0 points, no question scored differently; exact McNemar p = 1; majority baseline 25.0 %); both do equally well"
    )


def test_collapse_is_not_better_even_when_it_scores_more():
    gold = "a" * 40 + "b" * 30 + "c" * 30
    base, tuned = items(gold, answers(gold, ())), items(gold, "a" * 95 + "bbbbb")
    result = verdict.judge(base, tuned)
    assert result["mcnemar"]["p_value"] < 0.001
    assert result["verdict"] == "collapsed"
    collapse = result["collapse"]
    assert (collapse["label"], collapse["collapsed"]) == ("a", True)
    # The base model's wrong answers are the letters that follow: b 40, c 30, d 30 times.
    assert (collapse["share"], collapse["gold_share"], collapse["base_share"]) == (0.95, 0.4, 0)
    # From a 95, b 5 to gold's a 40, b 30, c 30; from b 40, c 30, d 30.
    assert (collapse["tuned_distance"], collapse["base_distance"]) == pytest.approx((0.55, 0.4))
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
    assert 'the base model also answers "a" to 40 of 40' in result["sentence"]


def test_caveats_of_a_better_model():
    gold = "a" * 60 + "b" * 20 + "c" * 20
    base = items(gold, answers(gold, ()), label_mass=0.2)
    result = verdict.judge(base, items(gold, answers(gold, range(50)), label_mass=0.9))
    assert result["verdict"] == "better"
    assert result["caveats"] == [
        'no better than always answering "a"',
        "only 20.0 % of the base model's probability is on the labels, so part of the difference may be the form of "
        "the answer",
    ]
    assert result["sentence"].endswith(f". Note: {'; '.join(result['caveats'])}")


def test_probability_off_the_labels_is_a_format_failure_whatever_the_letters_say():
    gold = "abcd" * 25
    result = verdict.judge(items(gold, answers(gold, ())), items(gold, answers(gold, range(50)), label_mass=0.2))
    assert result["mcnemar"]["p_value"] < 0.001
    assert result["verdict"] == "format failure"
    assert result["sentence"].startswith(
        "format failure: only 20.0 % of the tuned model's probability is on the labels; "
        "by the letters alone 0.0 % → 50.0 % (+50.0 points, 95 % interval +"
    )


@pytest.mark.parametrize(("unanswered", "expected"), [(50, "worse"), (51, "format failure")])
def test_replies_without_an_answer_are_a_format_failure_from_half_of_them_on(unanswered, expected):
    gold = "abcd" * 25
    base = items(gold, gold, mode="cot", status="answered")
    tuned = [
        {**row, "predicted": None, "status": "truncated" if index % 2 else "unknown"} if index < unanswered else row
        for index, row in enumerate(base)
    ]
    result = verdict.judge(base, tuned)
    assert (result["verdict"], result["mode"]) == (expected, "cot")
    if expected == "format failure":
        assert result["sentence"].startswith(
            "format failure: 51 of 100 questions got no answer (26 unknown, 25 truncated); "
            "with these counted as wrong, accuracy 100.0 % → 49.0 % (-51.0 points"
        )
    else:
        assert "50 of 100 questions got no answer (25 unknown, 25 truncated), counted as wrong" in result["caveats"]


def test_a_difference_that_is_the_parsers_is_told_by_those_that_both_answered():
    # The base model's first 20 replies could not be read; where both can be, they are equally good.
    gold = "abcd" * 10
    base = items(gold, [None] * 20 + answers(gold, range(30))[20:])
    result = verdict.judge(base, items(gold, answers(gold, range(30))))
    assert result["verdict"] == "better"
    assert result["both_answered"] == {"n": 20, "base_correct": 10, "tuned_correct": 10, "p_value": 1.0}
    assert result["caveats"] == [
        "the base model left 20 of 40 unanswered (20 unknown)",
        "on the 20 that both answered: 50.0 % → 50.0 % (exact McNemar p = 1)",
    ]


def test_leaning_on_one_label_is_said():
    gold = "abcd" * 35
    predicted = "a" * 100 + gold[100:]
    result = verdict.judge(items(gold, answers(gold, ())), items(gold, predicted))
    assert result["verdict"] == "better"
    assert result["caveats"] == ['it answers "a" to 78.6 % of the questions; gold has 25.0 %, the base model 25.0 %']


def test_answers_spread_unlike_gold_are_said():
    gold = "abcd" * 35
    result = verdict.judge(items(gold, answers(gold, ())), items(gold, "a" * 63 + "b" * 63 + "c" * 14))
    # Shares of 45, 45 and 10 %, of which 20 and 20 are more than gold has.
    assert result["caveats"] == [
        "40.0 % of its answers would have to change to be spread over the labels like gold, and 0.0 % of the base model's"
    ]


def test_the_exact_test_decides_where_the_interval_is_too_sure():
    gold = "abcd" * 5
    # Five gained, none lost: p = 2 / 2⁵; yet hardly a resample of 20 questions holds none of the five.
    result = verdict.judge(items(gold, answers(gold, range(5))), items(gold, answers(gold, range(10))))
    assert result["mcnemar"]["p_value"] == pytest.approx(1 / 16)
    assert result["difference_interval"][0] > 0
    assert result["verdict"] == "cannot tell"
    assert "the interval leaves out 0, but the test does not confirm it" in result["caveats"]


def test_the_level_of_the_test_is_that_of_the_interval():
    gold = "abcd" * 5
    base, tuned = items(gold, answers(gold, range(10))), items(gold, answers(gold, {9, 10}))
    result = verdict.judge(base, tuned, alpha=0.01)
    assert result["verdict"] == "cannot tell"
    assert "99 % interval" in result["sentence"]
    low, high = verdict.judge(base, tuned)["difference_interval"]
    assert result["difference_interval"][0] <= low < high <= result["difference_interval"][1]


def test_items_pair_by_id_and_unanswered_ones_are_wrong():
    gold = "abab"
    tuned = items(gold, ["a", "b", None, "b"])
    result = verdict.judge(items(gold, "bbbb"), list(reversed(tuned)))
    tuned = result["tuned"]
    assert (tuned["accuracy"], tuned["correct"], tuned["unanswered"]) == (0.75, 3, 1)
    assert tuned["histogram"] == {"a": 1, "b": 2}
    assert ("no answer", "none", "1 unknown") in kinds.table(result)
    assert "1 of 4 questions got no answer" in result["sentence"]


def contamination(**kinds):
    """A check that found the questions of those numbers, by kind."""
    found = [(f"q{index}", kind.replace("_", " ")) for kind, numbers in kinds.items() for index in numbers]
    return {"checked": {}, "threshold": 0.8, "items": [{"id": key, "kind": kind} for key, kind in found]}


def test_contaminated_questions_are_scored_apart():
    gold = "abcd" * 30
    base, tuned = items(gold, answers(gold, range(30))), items(gold, answers(gold, range(35)))
    found = contamination(exact=range(31, 34), normalised=[0], near_duplicate=[1, 34], shared_context=[50])
    result = verdict.judge(base, tuned, contamination=found)
    # Five gained among 30 to 34, of which 30 alone is clean; of the base model's 30, two are contaminated.
    assert result["verdict"] == "contaminated"
    assert result["contamination"] == {
        "items": 6,
        "by_kind": {"exact": 3, "normalised": 1, "near duplicate": 2},
        "shared_context": 1,
        "ids": ["q0", "q1", "q31", "q32", "q33", "q34"],
        "clean": {"n": 114, "base_correct": 28, "tuned_correct": 29, "p_value": 1.0},
        "contaminated": {"n": 6, "base_correct": 2, "tuned_correct": 6, "p_value": pytest.approx(2 / 16)},
    }
    assert result["sentence"] == (
        "contaminated: 6 of 120 test questions are in the training data (3 exact, 1 normalised, 2 near duplicates); "
        "on the other 114: 24.6 % → 25.4 % (exact McNemar p = 1). "
        "Note: 1 question shares its context with the training data"
    )


def test_one_contaminated_question_of_one():
    result = verdict.judge(items("a", "b"), items("a", "a"), contamination=contamination(near_duplicate=[0, 7]))
    assert result["contamination"]["clean"] is None
    assert result["sentence"].startswith(
        "contaminated: 1 of 1 test questions is in the training data (1 near duplicate); no other item is left to judge"
    )


def test_a_shared_context_or_a_clean_check_is_no_contamination():
    gold = "abcd" * 30
    base, tuned = items(gold, answers(gold, range(32))), items(gold, answers(gold, range(115)))
    for found in (contamination(), contamination(shared_context=range(4)), contamination(exact=[500])):
        result = verdict.judge(base, tuned, contamination=found)
        assert result["verdict"] == "better"
        assert result["contamination"]["items"] == 0
        assert result["contamination"]["clean"]["n"] == 120
    shared = verdict.judge(base, tuned, contamination=contamination(shared_context=range(4)))
    assert shared["caveats"] == ["4 questions share their context with the training data"]


def test_what_is_wrong_with_the_model_comes_before_what_is_wrong_with_the_test():
    gold = "abcd" * 10
    base = items(gold, answers(gold, range(10)))
    found = contamination(exact=[0])
    collapsed = verdict.judge(base, items(gold, "a" * 40, label_mass=0.1), contamination=found)
    failed = verdict.judge(base, items(gold, gold, label_mass=0.1), contamination=found)
    leaked = verdict.judge(base, items(gold, gold, label_mass=0.9), contamination=found)
    assert [result["verdict"] for result in (collapsed, failed, leaked)] == [
        "collapsed",
        "format failure",
        "contaminated",
    ]
    for result in (collapsed, failed):
        assert "1 of 40 test questions is in the training data (1 exact)" in result["caveats"]


def test_a_collapse_needs_answers_to_half_of_the_questions():
    gold = "abcd" * 10
    some = items(gold, ["a"] * 24 + [None] * 16)
    few = items(gold, ["a"] * 16 + [None] * 24)
    assert verdict.judge(items(gold, gold), some)["verdict"] == "collapsed"
    assert verdict.judge(items(gold, gold), few)["verdict"] == "format failure"


def permuted(gold, answer):
    """Each question in the four rotations of its choices; `answer(displayed gold)` is the displayed label given."""
    rows = []
    for index, right in enumerate(gold):
        shown = []
        for shift in range(4):
            order = "abcd"[shift:] + "abcd"[:shift]
            displayed = "abcd"[order.index(right)]
            shown.append({"order": order, "gold": displayed, "predicted": answer(displayed)})
        votes = [shown_order["order"]["abcd".index(shown_order["predicted"])] for shown_order in shown]
        predicted = max("abcd", key=votes.count)
        rows.append({"id": f"q{index}", "gold": right, "predicted": predicted, "permutations": shown})
    return rows


def test_with_permutations_the_difference_is_of_the_mean_over_the_orders():
    gold = "abbb" * 5
    base = permuted(gold, lambda shown: "a")  # right in one order of four; the votes tie, so that "a" is its answer
    tuned = permuted(gold, lambda shown: "a" if shown == "d" else shown)  # right in three of four
    result = verdict.judge(base, tuned)
    assert (result["base"]["accuracy"], result["tuned"]["accuracy"]) == (0.25, 1.0)
    assert result["base"]["permutations"] == {"count": 4, "mean_accuracy": 0.25, "all_correct": 0.0}
    assert result["tuned"]["permutations"] == {"count": 4, "mean_accuracy": 0.75, "all_correct": 0.0}
    assert result["difference_points"] == 50
    assert result["difference_interval"] == [50, 50]
    assert result["gold"] == {"a": 20, "b": 20, "c": 20, "d": 20}
    assert result["tuned"]["histogram"] == {"a": 40, "b": 20, "c": 20, "d": 0}
    assert result["majority"] == {"label": "b", "share": 0.75}
    assert (
        "(+50.0 points, the same change on every question, so there is no interval; exact McNemar p < 0.001; "
        "mean over 4 orders of the choices; majority baseline 75.0 %)"
    ) in result["sentence"]
    assert ("right in all 4 orders (mean)", "0.0 % (25.0 %)", "0.0 % (75.0 %)") in kinds.table(result)


def test_an_ensemble_whose_orders_are_not_known_is_compared_by_its_answers():
    gold = "abbb" * 5
    member = permuted(gold, lambda shown: "a")
    result = verdict.judge(member, items(gold, gold))
    assert (result["difference_points"], result["mcnemar"]["gained"]) == (75, 15)
    assert result["gold"] == {"a": 5, "b": 15, "c": 0, "d": 0}
    assert "orders of the choices" not in result["sentence"]


def test_answering_by_position_is_a_collapse_that_permutations_cannot_hide():
    gold = "abcd" * 10
    result = verdict.judge(permuted(gold, lambda shown: shown), permuted(gold, lambda shown: "a"))
    assert result["verdict"] == "collapsed"
    assert result["sentence"].startswith(
        'collapsed: "a" is the answer to 160 of 160 permuted questions (gold: 40); accuracy 100.0 % → 25.0 %'
    )


def test_labels_are_those_that_occur_unless_named():
    base = items("aa", "ab", logprobs={"a": -0.1, "b": -3.0, "e": -9.0})
    assert verdict.judge(base, base)["labels"] == ["a", "b", "e"]
    assert verdict.judge(base, base, labels="abcdef")["tuned"]["histogram"]["f"] == 0


letters = st.sampled_from("abcd")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(letters, letters, letters), min_size=1, max_size=60), st.randoms())
def test_swapping_the_models_mirrors_the_verdict(rows, random):
    gold, first, second = zip(*rows, strict=True)
    one, other = items(gold, first), items(gold, second)
    shuffled = other.copy()
    random.shuffle(shuffled)
    there = verdict.judge(one, shuffled, labels="abcd", resamples=50)
    back = verdict.judge(other, one, labels="abcd", resamples=50)
    assert there["mcnemar"]["p_value"] == pytest.approx(back["mcnemar"]["p_value"])
    assert there["difference_points"] == -back["difference_points"]
    assert there["base"] == back["tuned"]
    mirrored = {"better": "worse", "worse": "better", "cannot tell": "cannot tell"}
    if "collapsed" not in (there["verdict"], back["verdict"]):
        assert back["verdict"] == mirrored[there["verdict"]]
    assert sum(there["tuned"]["histogram"].values()) == there["n"] == len(rows)
    if there["items_needed"] is not None:
        assert there["items_needed"] > len(rows)
