"""Each statistic on figures worked by hand, and against scipy or numpy where these reach it by another way."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from slimtune.evaluate.judge import statistics


def test_wilson_by_hand():
    # p = 0.5, n = 4, z² = 3.841459: centre (0.5 + z²/8) / (1 + z²/4) = 0.5, half (z / (1 + z²/4)) √(1/16 + z²/64) = 0.349969
    assert statistics.wilson(2, 4) == pytest.approx((0.150039, 0.849961), abs=5e-5)
    # 0 of n: from 0 to z² / (n + z²).
    z = stats.norm.ppf(0.975)
    assert statistics.wilson(0, 10) == pytest.approx((0, z**2 / (10 + z**2)))
    assert statistics.wilson(10, 10) == pytest.approx((10 / (10 + z**2), 1))


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(deadline=None, max_examples=40)
def test_wilson_is_scipys(count):
    ours = statistics.wilson(*count)
    theirs = stats.binomtest(*count).proportion_ci(method="wilson")
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert -1e-9 <= ours[0] <= count[0] / count[1] + 1e-9 <= ours[1] + 2e-9 <= 1 + 3e-9


def test_mcnemar_by_hand():
    # 10 items changed: P(X <= 1) = (1 + 10) / 1024 under Binomial(10, 1/2), twice that for two sides.
    assert statistics.mcnemar_exact(1, 9) == pytest.approx(22 / 1024)
    assert statistics.mcnemar_exact(9, 1) == pytest.approx(22 / 1024)
    assert statistics.mcnemar_exact(0, 5) == pytest.approx(2 / 32)
    assert statistics.mcnemar_exact(7, 7) == 1.0
    assert statistics.mcnemar_exact(0, 0) == 1.0


@given(st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None, max_examples=40)
def test_mcnemar_is_the_binomial_test(lost, gained):
    expected = stats.binomtest(gained, lost + gained).pvalue if lost + gained else 1.0
    assert statistics.mcnemar_exact(lost, gained) == pytest.approx(expected)


def test_exceeding_a_share_by_chance_by_hand():
    assert statistics.exceeds_by_chance(2, 2, 0.5) == pytest.approx(0.25)
    assert statistics.exceeds_by_chance(3, 4, 0.5) == pytest.approx(5 / 16)


def test_the_bootstrap_interval_is_that_of_the_multinomial():
    # How often each of -1, 0 and 1 is drawn is multinomial: the same distribution, drawn another way.
    differences = [1] * 30 + [-1] * 10 + [0] * 60
    draws = np.random.default_rng(7).multinomial(100, [0.3, 0.1, 0.6], size=200_000) @ [1, -1, 0] / 100
    expected = np.percentile(draws, [2.5, 97.5])
    assert statistics.paired_bootstrap(differences) == pytest.approx(tuple(expected), abs=0.011)
    narrower = statistics.paired_bootstrap(differences, confidence=0.9)
    assert narrower == pytest.approx(tuple(np.percentile(draws, [5, 95])), abs=0.011)


def test_the_bootstrap_is_the_same_every_time_in_any_order():
    differences = np.random.default_rng(3).normal(0.2, 1, 50)
    first = statistics.paired_bootstrap(differences)
    assert statistics.paired_bootstrap(differences[::-1]) == first
    assert statistics.paired_bootstrap(differences, seed=1) != first
    assert statistics.paired_bootstrap(differences, seed=1) == pytest.approx(first, abs=0.05)


def test_the_bootstrap_weighs_by_size():
    rng = np.random.default_rng(5)
    sizes = rng.integers(10, 500, 200)
    per_token = rng.normal(-0.3, 0.2, 200)
    totals = per_token * sizes
    ratio = totals.sum() / sizes.sum()
    # The linearised standard error of a ratio.
    error = math.sqrt(((totals - ratio * sizes) ** 2).sum()) / sizes.sum()
    low, high = statistics.paired_bootstrap(totals, sizes)
    assert (low, high) == pytest.approx((ratio - 1.96 * error, ratio + 1.96 * error), abs=0.2 * error)
    assert statistics.paired_bootstrap(totals, np.full(200, 4)) == pytest.approx(
        tuple(end / 4 for end in statistics.paired_bootstrap(totals))
    )


@pytest.mark.parametrize("differences", [[0.5], [0.5] * 20])
def test_differences_that_are_all_alike_have_an_interval_of_no_width(differences):
    assert statistics.paired_bootstrap(differences) == (0.5, 0.5)


def test_the_bootstrap_of_a_large_set_fits_into_memory():
    low, high = statistics.paired_bootstrap([0.0, 1.0] * 10_000, resamples=500)
    assert (low, high) == pytest.approx((0.493, 0.507), abs=0.002)


def test_wilcoxon_by_hand():
    # Ranks 1 to 6, of which the first is negative: R⁻ = 1. P(R <= 1) = 2 / 2⁶ for one side.
    p, correlation = statistics.wilcoxon([-0.5, 1, 2, 3, 4, 5])
    assert p == pytest.approx(4 / 64)
    assert correlation == pytest.approx((20 - 1) / 21)
    assert statistics.wilcoxon([0.5, -1, -2, -3, -4, -5])[1] == pytest.approx(-19 / 21)
    assert statistics.wilcoxon([1, 2, 3, 4, 5, 6]) == pytest.approx((2 / 64, 1.0))


def test_wilcoxon_of_what_did_not_change():
    assert statistics.wilcoxon([0, 0, 0]) == (1.0, 0.0)
    assert statistics.wilcoxon([0, 0, 2]) == (1.0, 1.0)


def test_items_needed_by_hand():
    # ψ = 0.15, δ = 0.05: (1.95996 * √0.15 + 0.84162 * √0.1475)² / 0.05² = 1.08232² / 0.0025 = 468.6
    assert statistics.items_needed(100, 5, 10) == 469
    assert statistics.items_needed(100, 10, 5) == 469
    assert statistics.items_needed(100, 5, 5) is None
    # The formula alone gives 4; but five of five have just not been enough.
    assert statistics.items_needed(5, 0, 5) == 6


def test_items_needed_for_a_mean_by_hand():
    # δ = 1, s² = (2² + 2²) / (2 - 1) = 8: ((1.95996 + 0.84162) √8 / 1)² = 62.8
    assert statistics.items_needed_for_mean([-1, 3]) == 63
    assert statistics.items_needed_for_mean([-1, 1]) is None
    assert statistics.items_needed_for_mean([3]) is None
    # Totals over 10 tokens each are the same comparison.
    assert statistics.items_needed_for_mean([-10, 30], [10, 10]) == 63
    # δ = 2 / 4 = 0.5, residuals 1 - 0.5 and 1 - 1.5, s = √0.5 / 2: (2.80158 * 0.353553 / 0.5)² = 3.9
    assert statistics.items_needed_for_mean([1, 1], [1, 3]) == 4


def test_probabilities_are_renormalised_over_the_labels():
    assert statistics.probabilities({"a": math.log(0.3), "b": math.log(0.1)}) == pytest.approx({"a": 0.75, "b": 0.25})
    assert statistics.probabilities({"a": -2000.0, "b": -2000.0}) == pytest.approx({"a": 0.5, "b": 0.5})
    assert statistics.probabilities({"a": -math.inf, "b": -3.0}) == {"a": 0.0, "b": 1.0}
    assert statistics.probabilities({"a": -math.inf}) is None
    assert statistics.probabilities({}) is None
    assert statistics.probabilities(None) is None


def test_brier_by_hand():
    assert statistics.brier({"a": 0.7, "b": 0.2, "c": 0.1}, "a") == pytest.approx(0.09 + 0.04 + 0.01)
    assert statistics.brier({"a": 0.7, "b": 0.2, "c": 0.1}, "c") == pytest.approx(0.49 + 0.04 + 0.81)
    assert statistics.brier({"a": 1.0, "b": 0.0}, "a") == 0
    assert statistics.brier({"a": 1.0, "b": 0.0}, "b") == 2


def test_calibration_by_hand():
    # (0.8, 0.9]: 0.85 and 0.9, one right; (0.9, 1]: 1.0 and 0.95, both right; (0.2, 0.3]: 0.25, wrong.
    error, table = statistics.calibration([0.85, 0.9, 1.0, 0.95, 0.25], [True, False, True, True, False])
    assert error == pytest.approx((2 * abs(0.5 - 0.875) + 2 * abs(1 - 0.975) + 1 * abs(0 - 0.25)) / 5)
    assert [(row["low"], row["high"], row["n"], row["accuracy"]) for row in table] == [
        (0.2, 0.3, 1, 0.0),
        (0.8, 0.9, 2, 0.5),
        (0.9, 1.0, 2, 1.0),
    ]
    assert [row["confidence"] for row in table] == pytest.approx([0.25, 0.875, 0.975])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_a_calibration_table_holds_every_answer_in_its_bin(answers):
    error, table = statistics.calibration(*zip(*answers, strict=True))
    assert 0 <= error <= 1
    assert sum(row["n"] for row in table) == len(answers)
    assert all(row["low"] - 1e-9 <= row["confidence"] <= row["high"] + 1e-9 for row in table)


def test_recall_and_position_bias_by_hand():
    answers = [("a", "a"), ("a", "a"), ("b", "a"), ("b", "b"), ("c", None)]
    recalls = statistics.recall(answers, "abcd")
    assert recalls == {"a": 1.0, "b": 0.5, "c": 0.0, "d": None}
    # Mean 0.5, squared deviations 0.25, 0, 0.25.
    assert statistics.position_bias(recalls) == pytest.approx(math.sqrt(0.5 / 3))
    assert statistics.position_bias({"a": 1.0, "b": None}) is None


def test_total_variation_by_hand():
    assert statistics.total_variation({"a": 3, "b": 1}, {"a": 10, "b": 10}) == pytest.approx(0.25)
    assert statistics.total_variation({"a": 5}, {"b": 2}) == 1
    assert statistics.total_variation({"a": 0}, {"a": 0}) == 0
