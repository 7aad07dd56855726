"""The verdict on perplexities and on free replies."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimtune.core.errors import SlimtuneError
from slimtune.evaluate import kinds
from slimtune.evaluate.judge import verdict


def texts(nlls, tokens=None, **more):
    """One text of ten tokens each, or of `tokens`."""
    tokens = tokens or [10] * len(nlls)
    return [
        {"id": f"t{index}", "kind": "perplexity", "nll": nll, "tokens": count, **more}
        for index, (nll, count) in enumerate(zip(nlls, tokens, strict=True))
    ]


def replies(chrfs, written=None, **more):
    """One reply each, other than its reference unless `written` says what it is."""
    return [
        {
            "id": f"p{index}",
            "kind": "generation",
            "text": text,
            "reference": f"第{index}条による。",
            "chrf": chrf,
            "exact": text == f"第{index}条による。",
            "status": "answered",
            **more,
        }
        for index, (chrf, text) in enumerate(
            zip(chrfs, written or [f"返答{number}" for number in range(len(chrfs))], strict=True)
        )
    ]


def test_a_lower_perplexity_is_better():
    # Per token ln 8 before; afterwards ln 4, give or take 0.1: every text improved, by ln 2 over all tokens.
    before = texts([10 * math.log(8)] * 20)
    after = texts([10 * math.log(4) + (1 if index % 2 else -1) for index in range(20)])
    result = verdict.judge(before, after)
    assert result["base"]["perplexity"] == pytest.approx(8)
    assert result["tuned"]["perplexity"] == pytest.approx(4)
    assert result["difference"] == pytest.approx(-math.log(2))
    assert result["difference_unit"] == "nats per token"
    # ±0.1 for each of 20 texts: a standard error of 0.1 / √20.
    error = 0.1 / math.sqrt(20)
    expected = [-math.log(2) - 1.96 * error, -math.log(2) + 1.96 * error]
    assert result["difference_interval"] == pytest.approx(expected, abs=0.006)
    assert result["rank_biserial"] == -1
    assert result["verdict"] == "better"
    low, high = (100 * math.expm1(end) for end in result["difference_interval"])
    assert result["sentence"] == (
        f"better: perplexity 8.00 → 4.00 on 20 texts (-50.0 %, 95 % interval {low:+.1f} to {high:+.1f}; Wilcoxon p < 0.001)"
    )
    assert json.loads(json.dumps(result)) == result
    assert kinds.table(result) == [
        ("perplexity", "8.00", "4.00"),
        ("nats per token", "2.0794", "1.3863"),
        ("texts / tokens", "20 / 200", "20 / 200"),
    ]


def test_a_higher_perplexity_is_worse():
    result = verdict.judge(texts([20 + index for index in range(12)]), texts([22 + 1.1 * index for index in range(12)]))
    assert result["verdict"] == "worse"
    assert result["sentence"].startswith("worse: perplexity 12.81 → ")


def test_what_changes_either_way_cannot_be_told_and_says_what_it_would_take():
    # Differences of +2 and -3 by turns, over 10 tokens: δ = -0.05, s = 0.25 √(20/19) = 0.2565;
    # (2.80159 · 0.2565 / 0.05)² = 206.5
    before = texts([30] * 20)
    after = texts([32 if index % 2 else 27 for index in range(20)])
    result = verdict.judge(before, after)
    assert result["verdict"] == "cannot tell"
    assert result["items_needed"] == 207
    assert result["sentence"].startswith("cannot tell at n=20: perplexity 20.09 → 19.11 (-4.9 %, 95 % interval -")
    assert result["sentence"].endswith(
        "; to tell a true difference of 4.9 %, about 207 texts would be needed (power 80 %)"
    )


def test_equal_models_cannot_be_told_apart():
    result = verdict.judge(texts([30] * 8), texts([30] * 8))
    assert result["sentence"] == (
        "cannot tell at n=8: perplexity 20.09 → 20.09 (+0.0 %, no text scored differently; Wilcoxon p = 1); both do equally well"
    )


def test_five_texts_are_too_few_whatever_they_say():
    result = verdict.judge(texts([30, 31, 32, 33, 34]), texts([3] * 5), alpha=0.1)
    assert result["p_value"] == pytest.approx(2 / 32)
    assert result["verdict"] == "cannot tell"
    assert "with fewer than 6 texts no test can tell" in result["caveats"]
    alone = verdict.judge(texts([30]), texts([3]))
    assert "one text shows no spread. Note: with fewer than 6 texts" in alone["sentence"]


def test_texts_that_go_one_way_and_tokens_that_go_the_other_decide_nothing():
    # Forty short texts got much worse, twenty long ones, which hold most tokens, better.
    sizes = [10] * 40 + [1200] * 20
    before = texts([2.0 * size for size in sizes], sizes)
    after = texts([(4.0 + index / 1e4 if size == 10 else 1.5) * size for index, size in enumerate(sizes)], sizes)
    result = verdict.judge(before, after)
    assert result["difference_interval"][1] < 0 < result["rank_biserial"]
    assert result["p_value"] < 0.05
    assert result["verdict"] == "cannot tell"
    assert "most texts changed in the other direction than the total" in result["caveats"]


def test_contaminated_texts_are_scored_apart():
    before = texts([10 * math.log(8)] * 10)
    after = texts([0.0] * 3 + [10 * math.log(8)] * 7)
    found = {
        "items": [{"id": f"t{index}", "kind": "exact"} for index in range(3)] + [{"id": "t5", "kind": "shared context"}]
    }
    result = verdict.judge(before, after, contamination=found)
    assert result["verdict"] == "contaminated"
    assert result["contamination"]["clean"] == {
        "n": 7,
        "base_perplexity": pytest.approx(8),
        "tuned_perplexity": pytest.approx(8),
        "p_value": 1.0,
    }
    assert result["contamination"]["contaminated"]["tuned_perplexity"] == pytest.approx(1)
    assert result["sentence"] == (
        "contaminated: 3 of 10 test texts are in the training data (3 exact); "
        "on the other 7: perplexity 8.00 → 8.00 (Wilcoxon p = 1). Note: 1 text shares its context with the training data"
    )


def test_replies_closer_to_their_references_are_better():
    before = replies([20 + index for index in range(12)])
    after = replies(
        [50 + 2 * index for index in range(12)], [f"第{index}条による。" for index in range(6)] + ["不明"] * 6
    )
    result = verdict.judge(before, after)
    # Means 25.5 and 61; differences 30 + index, whose mean is 35.5.
    assert (result["base"]["chrf"], result["tuned"]["chrf"], result["difference"]) == (25.5, 61, 35.5)
    assert result["difference_interval"] == pytest.approx([35.5 - 1.96 * 0.9965, 35.5 + 1.96 * 0.9965], abs=0.15)
    assert result["p_value"] == pytest.approx(2 / 2**12)
    assert result["mcnemar"] == {"lost": 0, "gained": 6, "p_value": pytest.approx(2 / 64)}
    assert result["flips"] == {"gained": [f"p{index}" for index in range(6)], "lost": []}
    assert result["verdict"] == "better"
    assert result["sentence"].startswith(
        "better: chrF 25.5 → 61.0 on 12 prompts (+35.5 chrF points, 95 % interval +33."
    )
    assert result["sentence"].endswith("; Wilcoxon p < 0.001; exact match 0.0 % → 50.0 %)")
    assert json.loads(json.dumps(result)) == result
    rows = {name: (base, tuned) for name, base, tuned in kinds.table(result)}
    assert rows["chrF, mean of the replies"] == ("25.5", "61.0")
    assert rows["exact / n"] == ("0 / 12", "6 / 12")
    assert rows["commonest reply"] == ("1 / 12", "6 / 12")
    assert verdict.judge(after, before)["verdict"] == "worse"


def test_one_reply_to_everything_is_a_collapse():
    before, after = (
        replies([20 + index for index in range(20)]),
        replies([60] * 20, ["はい、\nそうです。"] * 18 + ["a", "b"]),
    )
    result = verdict.judge(before, after)
    assert result["collapse"] == {
        "text": "はい、\nそうです。",
        "share": 0.9,
        "reference_share": 0.05,
        "base_share": 0.05,
        "collapsed": True,
    }
    assert result["verdict"] == "collapsed"
    assert result["sentence"].startswith(
        'collapsed: "はい、 そうです。" is the reply to 18 of 20 prompts; chrF 29.5 → 60.0'
    )
    both = verdict.judge(after, after)
    assert "the base model also gives one reply to 18 of 20" in both["caveats"]


def test_one_reply_is_right_where_there_is_one_reference():
    same = [{**row, "text": "はい。", "reference": "はい。", "exact": True} for row in replies([100.0] * 20)]
    assert verdict.judge(same, same)["verdict"] == "cannot tell"


@pytest.mark.parametrize(("cut", "expected"), [(9, "better"), (10, "format failure")])
def test_half_of_the_replies_cut_off_or_empty_are_a_format_failure(cut, expected):
    before, after = replies([20 + index for index in range(20)]), replies([60 + index for index in range(20)])
    after = [
        row if index >= cut else {**row, "text": ""} if index < 3 else {**row, "status": "truncated"}
        for index, row in enumerate(after)
    ]
    result = verdict.judge(before, after)
    assert result["verdict"] == expected
    unusable = f"{cut} of 20 replies are cut off, empty or failed ({cut - 3} cut off, 3 empty)"
    if expected == "format failure":
        assert result["sentence"].startswith(f"format failure: {unusable}; chrF 29.5 → 69.5")
    else:
        assert result["caveats"] == [unusable]


def test_what_is_wrong_with_the_model_comes_before_contamination():
    before = replies([20 + index for index in range(20)])
    found = {"items": [{"id": "p3", "kind": "normalised"}]}
    cut = verdict.judge(before, replies([60] * 20, status="truncated"), contamination=found)
    assert cut["verdict"] == "format failure"
    assert "1 of 20 test prompts is in the training data (1 normalised)" in cut["caveats"]
    clean = verdict.judge(before, replies([60 + index for index in range(20)]), contamination=found)
    assert clean["verdict"] == "contaminated"
    assert "on the other 19: chrF 29.8 → 69.8 (Wilcoxon p < 0.001)" in clean["sentence"]


@pytest.mark.parametrize(
    ("base", "tuned", "message"),
    [
        (texts([1, 2]), texts([1, 2], [10, 11]), "different numbers of tokens: t1"),
        (texts([1, 2]), texts([1, math.nan]), "nll is nan over 10 tokens"),
        (texts([1, 2]), texts([1, 2], [10, 0]), "nll is 2 over 0 tokens"),
        (texts([1, 2]), [{**texts([1])[0], "nll": None}, texts([1, 2])[1]], "1 of 2 answers lack nll"),
        (texts([1, 2]), replies([1, 2]), "different kinds: base is perplexity, tuned is generation"),
        (replies([1, 2]), replies([1, 2], reference="別の条"), "different references: p0, p1"),
        (texts([1, 2], prompt_sha256="1"), texts([1, 2], prompt_sha256="2"), "different prompts: t0, t1"),
        (texts([1]), [], "no answers"),
        ([{"id": 1, "kind": "poetry"}], [{"id": 1, "kind": "poetry"}], "unknown kind 'poetry'"),
    ],
)
def test_what_cannot_be_compared_is_an_error(base, tuned, message):
    with pytest.raises(SlimtuneError, match=message):
        verdict.judge(base, tuned)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(*[st.integers(1, 80)] * 2, st.integers(1, 30)), min_size=1, max_size=30), st.randoms())
def test_swapping_the_models_mirrors_the_verdict(rows, random):
    first, second, sizes = zip(*rows, strict=True)
    one, other = texts(first, sizes), texts(second, sizes)
    shuffled = other.copy()
    random.shuffle(shuffled)
    there, back = verdict.judge(one, shuffled, resamples=200), verdict.judge(other, one, resamples=200)
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["p_value"] == pytest.approx(back["p_value"])
    assert there["rank_biserial"] == pytest.approx(-back["rank_biserial"])
    assert there["base"] == back["tuned"]
    # Both intervals are drawn at random, so that one may just leave out 0 and the other not.
    assert (there["verdict"], back["verdict"]) not in (("better", "better"), ("worse", "worse"))
