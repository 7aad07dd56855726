"""Comparisons on figures worked by hand."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.answer_rows import items
from support.contenders import choice, read_texts, texts

from slimtune.core.errors import SlimtuneError
from slimtune.evaluate.judge.compare import compare
from slimtune.evaluate.judge.comparison_text import as_rows
from slimtune.evaluate.judge.contenders import Contender


def test_two_contenders():
    # 40 and 55 right; 5 lost (0 to 4), 20 gained (40 to 59).
    result = compare([choice("base", range(40)), choice("tuned", range(5, 60))])
    (pair,) = result["pairs"]
    assert (result["kind"], result["n"], result["adjustment"]) == ("multiple_choice", 100, None)
    assert [one["figures"]["correct"] for one in result["contenders"]] == [40, 55]
    assert (pair["reference"], pair["contender"], pair["difference"]) == ("base", "tuned", 15.0)
    assert pair["mcnemar"]["lost"] == 5
    assert pair["mcnemar"]["gained"] == 20
    # 2 · P(X <= 5) for 25 fair throws: 2 · (1 + 25 + 300 + 2300 + 12650 + 53130) / 2²⁵.
    assert pair["p_value"] == pair["adjusted_p_value"] == pytest.approx(2 * 68406 / 2**25)
    assert pair["verdict"] == "better"
    low, high = pair["difference_interval"]
    # The standard error of the mean of 20 times +1, 5 times -1 and 75 times 0 is √(0.25 - 0.15²) / 10 = 4.77 points.
    assert low == pytest.approx(15 - 1.96 * 4.77, abs=1.1)
    assert high == pytest.approx(15 + 1.96 * 4.77, abs=1.1)
    assert pair["sentence"].startswith(
        "better: base 40.0 % → tuned 55.0 % on 100 questions (+15.0 points, 95 % interval"
    )
    assert json.loads(json.dumps(result)) == result


def test_the_other_way_round_it_is_worse():
    result = compare([choice("tuned", range(5, 60)), choice("base", range(40))])
    (pair,) = result["pairs"]
    assert (pair["difference"], pair["verdict"]) == (-15.0, "worse")


@settings(deadline=None, max_examples=6)
@given(st.lists(st.tuples(*[st.sampled_from("abcd")] * 3), min_size=2, max_size=40), st.randoms())
def test_swapping_the_contenders_mirrors_the_comparison(rows, random):
    gold, first, second = zip(*rows, strict=True)
    one, other = Contender("one", items(gold, first)), Contender("other", items(gold, second))
    shuffled = Contender("other", random.sample(other.answers, len(rows)))
    there, back = (compare(both)["pairs"][0] for both in ([one, shuffled], [other, one]))
    assert there["p_value"] == back["p_value"]
    assert there["difference"] == pytest.approx(-back["difference"])
    mirrored = {"better": "worse", "worse": "better", "cannot tell": "cannot tell"}
    assert there["verdict"] == mirrored[back["verdict"]]
    assert there["items_needed"] == back["items_needed"]


def test_three_contenders_are_compared_two_by_two_and_adjusted():
    result = compare([choice("one", range(40)), choice("two", range(55)), choice("three", range(47))])
    pairs = {(pair["reference"], pair["contender"]): pair for pair in result["pairs"]}
    assert list(pairs) == [("one", "two"), ("one", "three"), ("two", "three")]
    # Nothing lost, 15, 7 and (as a loss) 8 changed: p = 2 / 2¹⁵, 2 / 2⁷, 2 / 2⁸.
    assert [pair["p_value"] for pair in pairs.values()] == pytest.approx([2 / 2**15, 2 / 2**7, 2 / 2**8])
    # Holm: the smallest times 3, the next times 2, the largest as it is, but not below the one before.
    assert [pair["adjusted_p_value"] for pair in pairs.values()] == pytest.approx([6 / 2**15, 2 / 2**7, 4 / 2**8])
    assert [pair["verdict"] for pair in pairs.values()] == ["better", "better", "worse"]
    assert result["adjustment"] == "holm"
    assert "Holm-adjusted p < 0.001" in pairs["one", "two"]["sentence"]


def test_what_many_comparisons_make_significant_by_chance_is_not_believed():
    # 8 gained, 1 lost: p = 2 · (1 + 9) / 2⁹ = 0.039 alone, more than 0.05 with two others of p = 1 and 0.039.
    one, two = choice("one", range(1, 50)), choice("two", {0, *range(2, 50), *range(60, 67)})
    alone = compare([one, two])["pairs"][0]
    assert alone["p_value"] == pytest.approx(20 / 2**9)
    assert alone["verdict"] == "better"
    three = compare([one, two, choice("same", range(1, 50))])
    pair = three["pairs"][0]
    assert pair["adjusted_p_value"] == pytest.approx(3 * 20 / 2**9)
    assert pair["verdict"] == "cannot tell"
    assert pair["items_needed"] > 100
    assert "cannot tell at n=100" in pair["sentence"]
    assert three["pairs"][1]["items_needed"] is None
    assert "both do equally well" in three["pairs"][1]["sentence"]


def test_flipped_items_with_prompt_and_answers():
    asked = {
        "q1": {
            "id": "q1",
            "messages": [{"role": "user", "content": "問\n" + "長" * 3000 + "末尾"}],
            "choices": {"a": "甲"},
        }
    }
    first = choice("base", range(40), asked=asked, source="民法", where="test.jsonl:1")
    second = choice("tuned", {0, *range(2, 41)}, text="考えた。\n回答: b")
    second.answers[40]["logprobs"] = {"a": math.log(0.6), "b": math.log(0.1), "c": math.log(0.05), "d": math.log(0.05)}
    flips = compare([first, second])["flips"]
    assert [flip["id"] for flip in flips] == ["q1", "q40"]
    assert (flips[0]["gold"], flips[0]["source"], flips[0]["where"]) == ("b", "民法", "test.jsonl:1")
    assert flips[0]["prompt"].startswith("問\n長")
    assert flips[0]["prompt"].endswith("末尾")
    assert len(flips[0]["prompt"]) == 1500
    assert flips[0]["choices"] == {"a": "甲"}
    assert flips[0]["answers"] == [
        {"predicted": "b", "correct": True, "status": "answered", "probability": None},
        {"text": "考えた。\n回答: b", "predicted": "c", "correct": False, "status": "answered", "probability": None},
    ]
    assert flips[1]["prompt"] is None
    assert flips[1]["answers"][1]["probability"] == pytest.approx(0.75)


def test_only_what_all_answered_is_compared_and_the_rest_is_counted():
    one, two = choice("one", range(50)), choice("two", range(60))
    short = Contender("short", [*two.answers[10:90], {**two.answers[0], "id": "extra"}])
    result = compare([one, short])
    assert result["n"] == 80
    assert [contender["left_out"] for contender in result["contenders"]] == [20, 1]
    assert result["contenders"][0]["figures"]["correct"] == 40
    assert result["notes"] == [
        "20 of the 100 items of one are left out, because not all contenders answered them",
        "1 of the 81 items of short are left out, because not all contenders answered them",
    ]


def test_other_prompts_and_modes_are_a_note():
    one = choice("one", range(50), prompt_sha256="11", mode="direct")
    two = choice("two", range(50), prompt_sha256="22", mode="cot")
    two.answers[0]["prompt_sha256"] = None
    permuted = choice("three", range(50), permutations=[{"order": "abcd", "gold": "a", "predicted": "a"}] * 4)
    assert compare([one, two, permuted])["notes"] == [
        "different modes: direct for one, three; cot for two",
        "different numbers of orders of the choices: 1 for one, two; 4 for three",
        "two and one were asked 99 of 100 items in different prompts, so the difference is not of the models alone",
    ]


def test_permuted_questions_are_resampled_whole():
    """Each question is right in two of four orders, or in three: 25 points more, whatever is drawn."""

    def orders(right):
        return [{"order": "abcd", "gold": "a", "predicted": "a" if place < right else "b"} for place in range(4)]

    one = choice("one", range(100), permutations=orders(2))
    two = choice("two", range(100), permutations=orders(3))
    (pair,) = compare([one, two])["pairs"]
    assert (pair["difference"], pair["difference_interval"]) == (25.0, [25.0, 25.0])
    assert (pair["p_value"], pair["verdict"]) == (1.0, "cannot tell")


def test_generated_texts():
    result = compare([texts("one", [10] * 8 + [50]), texts("two", [20, 30, 40, 50, 60, 70, 80, 90, 49], exact={7})])
    (pair,) = result["pairs"]
    assert pair["difference"] == pytest.approx((10 + 20 + 30 + 40 + 50 + 60 + 70 + 80 - 1) / 9)
    assert pair["difference_unit"] == "chrF points"
    # Only the smallest of nine changes is negative: two rank sums of 1 or less and their mirrors, 2 · 2 / 2⁹.
    assert pair["p_value"] == pytest.approx(4 / 2**9)
    assert pair["rank_biserial"] == pytest.approx(1 - 2 / 45)
    assert (pair["mcnemar"]["gained"], pair["verdict"]) == (1, "better")
    assert [flip["id"] for flip in result["flips"]][:3] == ["g7", "g6", "g5"]
    assert result["flips"][0]["answers"][1] == {"text": "two 7", "chrf": 90, "exact": True}
    assert result["flips"][0]["reference"] == "参照"


def test_perplexities():
    one, two = read_texts("one", [20.0] * 8), read_texts("two", [19, 18, 17, 16, 15, 14, 13, 12])
    result = compare([one, two])
    (pair,) = result["pairs"]
    # 36 nats less over 80 tokens: e⁻⁰·⁴⁵ = 0.638 of the perplexity.
    assert pair["difference"] == pytest.approx(-0.45)
    assert pair["p_value"] == pytest.approx(2 / 2**8)
    assert pair["verdict"] == "better"
    assert "perplexity 7.39 → two perplexity 4.71 on 8 texts (-36.2 %, 95 % interval" in pair["sentence"]
    assert result["flips"][0]["answers"] == [{"nats_per_token": 2.0}, {"nats_per_token": 1.2}]
    shown = {row[0]: row[1:] for row in as_rows(result)}
    assert shown["perplexity"] == ("7.39", "4.71")
    assert shown["difference"][1].startswith("-36.2 % (-")


def test_five_texts_are_too_few_for_a_verdict():
    (pair,) = compare([read_texts("one", [20.0] * 5), read_texts("two", [10.0] * 5)])["pairs"]
    assert pair["verdict"] == "cannot tell"


def test_contenders_of_one_name_are_told_apart_by_their_place():
    one, two = choice("same", range(3)), choice("same", range(4))
    result = compare([one, Contender("same", two.answers, place="elsewhere")])
    assert [contender["name"] for contender in result["contenders"]] == ["same (outputs/same)", "same (elsewhere)"]
    with pytest.raises(SlimtuneError, match="is given twice"):
        compare([one, one])


def test_everything_that_cannot_be_compared_is_told_at_once():
    broken = Contender("broken", [{"id": "q0"}, {"id": "q0", "gold": "a", "predicted": "a"}])
    with pytest.raises(SlimtuneError) as caught:
        compare([choice("fine", range(3)), broken, Contender("empty", []), texts("text", [1.0])])
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        ("broken", "1 of 2 answers lack gold"),
        ("broken", "1 of 2 answers lack predicted"),
        ("broken", "repeated ids: q0"),
        ("empty", "no answers"),
        ("results", "different kinds: fine is multiple_choice, broken is multiple_choice, text is generation"),
    ]


@pytest.mark.parametrize(
    ("contenders", "message"),
    [
        ([choice("one", ())], "a comparison needs two or more"),
        (
            [choice("one", ()), Contender("two", [{"id": "other", "gold": "a", "predicted": "a"}])],
            "no item was answered by all",
        ),
        ([choice("one", ()), choice("two", (), gold="b" * 100)], "different gold answers: q0, q2, q3, q4, q6"),
        ([read_texts("one", [1.0]), read_texts("two", [1.0], tokens=9)], "different numbers of tokens"),
        ([choice("one", (), kind="essay"), choice("two", ())], "unknown kind 'essay'"),
        (
            [Contender("mixed", [*choice("", ()).answers, *texts("", [1]).answers]), choice("two", ())],
            "of different kinds",
        ),
    ],
)
def test_what_cannot_be_compared_is_an_error(contenders, message):
    with pytest.raises(SlimtuneError, match=message):
        compare(contenders)
