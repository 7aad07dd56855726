"""The statistics of an evaluation, on plain numbers: intervals, paired tests, calibration, and how many items it takes.

scipy and statsmodels take seconds to import, so each function imports what it needs. The report needs neither.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean, pstdev
from typing import Any

POWER = 0.8
RESAMPLES = 10_000
BINS = 10
# Of fewer pairs no signed-rank test can have p < 0.05: all five of five changed the same way is 2 / 2⁵.
FEWEST_PAIRS = 6
# A model has collapsed when one answer makes up at least this share of all, and this much more than its share of gold:
# a test set that is 95 % "a" proves nothing.
COLLAPSE_SHARE, COLLAPSE_EXCESS = 0.9, 0.25
# With answers to less than this share of the questions, or less of its probability on the labels, a model has not
# learned the form of an answer.
LOW_ANSWERED = LOW_LABEL_MASS = 0.5
# Worth a word though no collapse: one label on at least this share of the answers, with a collapse's excess over gold …
LEANING_SHARE = 0.5
# … or answers that are further from gold's distribution than the base model's, by this share of them.
LEANING_DISTANCE = 0.25
# Resampled values held at once by the bootstrap: 32 MB.
_BATCH_VALUES = 4_000_000

Interval = tuple[float, float]


def wilson(correct: int, n: int) -> Interval:
    """95 % interval of a share. Unlike the normal one it stays within 0 and 1, also for 0 or n of n. n is at least 1.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(correct, n, method="wilson")
    return float(low), float(high)


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided p-value that `lost` and `gained` differ by chance alone; 1.0 when no item changed.

    If neither model is better, `gained` follows Binomial(lost + gained, 1/2).
    Source: Q. McNemar, Psychometrika 12 (1947) 153–157, in its exact (binomial) form.
    """
    from statsmodels.stats.contingency_tables import mcnemar

    return float(mcnemar([[0, lost], [gained, 0]], exact=True).pvalue)


def exceeds_by_chance(count: int, n: int, share: float) -> float:
    """One-sided p-value of `count` or more out of n where each has the probability `share` (binomial test)."""
    from scipy.stats import binomtest

    return float(binomtest(count, n, share, alternative="greater").pvalue)


def paired_bootstrap(
    differences: Sequence[float],
    sizes: Sequence[float] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile interval of Σ differences / Σ sizes, items drawn with replacement, whatever their order.

    sizes: what each difference is a total over, such as tokens; by default 1, which gives the mean.
    Source: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    import numpy as np
    from scipy.stats import bootstrap

    pairs = np.array([differences, sizes if sizes is not None else np.ones(len(differences))], dtype=float)
    totals, over = pairs[:, np.lexsort(pairs)]
    if len(totals) == 1:  # it can only be drawn itself
        return float(totals[0] / over[0]), float(totals[0] / over[0])
    interval = bootstrap(
        (totals, over),
        lambda total, size, axis: total.sum(axis) / size.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=confidence,
        n_resamples=resamples,
        batch=max(1, _BATCH_VALUES // len(totals)),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def wilcoxon(differences: Sequence[float]) -> tuple[float, float]:
    """Signed-rank test of paired differences: the two-sided p-value and the rank-biserial correlation, -1 to 1.

    The correlation is (R⁺ - R⁻) / (R⁺ + R⁻) of the rank sums: 1 when all differences are positive. Zeros are left out.
    Sources: F. Wilcoxon, Biometrics Bulletin 1 (1945) 80-83; D. S. Kerby, Comprehensive Psychology 3 (2014) 1.
    """
    from scipy import stats

    changed = [difference for difference in differences if difference != 0]
    if not changed:
        return 1.0, 0.0
    p_value = float(stats.wilcoxon(changed).pvalue)
    positive = float(stats.wilcoxon(changed, alternative="greater").statistic)
    return p_value, 4 * positive / (len(changed) * (len(changed) + 1)) - 1


def items_needed(n: int, lost: int, gained: int, *, alpha: float = 0.05) -> int | None:
    """Roughly how many items would show the observed difference, were it real; None if no difference was observed.

    With ψ = (lost + gained) / n, the share of items that changed, and δ = (gained - lost) / n:

        N = (z(1 - α/2) √ψ + z(POWER) √(ψ - δ²))² / δ²

    It is an order of magnitude, since ψ and δ are estimated. Never less than n + 1, since n items did not do.
    Source: R. J. Connor, Biometrics 43 (1987) 207–211, for McNemar's test.
    """
    changed, difference = (lost + gained) / n, (gained - lost) / n
    if difference == 0:
        return None
    z = NormalDist().inv_cdf
    root = z(1 - alpha / 2) * math.sqrt(changed) + z(POWER) * math.sqrt(max(0.0, changed - difference**2))
    return max(math.ceil((root / difference) ** 2), n + 1)


def items_needed_for_mean(
    differences: Sequence[float], sizes: Sequence[float] | None = None, *, alpha: float = 0.05
) -> int | None:
    """The same for δ = Σ differences / Σ sizes (see `paired_bootstrap`); None if δ is 0 or there is but one item.

        N = ((z(1 - α/2) + z(POWER)) s / δ)²,   s² = Σ (differenceᵢ - δ sizeᵢ)² / (n - 1) / (mean size)²

    Source: the normal approximation of a paired comparison, with the linearised variance of a ratio (W. G. Cochran,
    Sampling Techniques (1977), section 2.11).
    """
    n = len(differences)
    over = [1.0] * n if sizes is None else [float(size) for size in sizes]
    ratio = sum(differences) / sum(over)
    if ratio == 0 or n == 1:
        return None
    residuals = sum((difference - ratio * size) ** 2 for difference, size in zip(differences, over, strict=True))
    spread = math.sqrt(residuals / (n - 1)) / fmean(over)
    z = NormalDist().inv_cdf
    return max(math.ceil(((z(1 - alpha / 2) + z(POWER)) * spread / ratio) ** 2), n + 1)


def probabilities(logprobs: Mapping[str, float] | None) -> dict[str, float] | None:
    """Natural logs of probabilities → probabilities that add up to 1; None if there are none or all are zero."""
    highest = max((logprobs or {}).values(), default=-math.inf)
    if logprobs is None or highest == -math.inf:
        return None
    # Relative to the highest: a model that puts e⁻⁸⁰⁰ on the labels still ranks them.
    shares = {label: math.exp(value - highest) for label, value in logprobs.items()}
    total = sum(shares.values())
    return {label: share / total for label, share in shares.items()}


def brier(shares: Mapping[str, float], gold: str) -> float:
    """Σ over the labels of (p - 1 for gold, p - 0 for others)²: from 0, sure and right, to 2, sure and wrong.

    Source: G. W. Brier, Monthly Weather Review 78 (1950) 1–3, for several classes.
    """
    return sum((share - (label == gold)) ** 2 for label, share in shares.items())


def calibration(confidences: Sequence[float], correct: Sequence[bool]) -> tuple[float, list[dict[str, Any]]]:
    """Expected calibration error, and the table it comes from: {"low", "high", "n", "confidence", "accuracy"} a bin.

    A bin holds the answers with low < confidence <= high; empty bins are left out. The error is the mean of
    |accuracy - confidence| over the bins, weighted by n.
    Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
    """
    members: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in zip(confidences, correct, strict=True):
        members.setdefault(max(0, math.ceil(confidence * BINS) - 1), []).append((confidence, right))
    table = [
        {
            "low": number / BINS,
            "high": (number + 1) / BINS,
            "n": len(answers),
            "confidence": fmean(confidence for confidence, _ in answers),
            "accuracy": fmean(right for _, right in answers),
        }
        for number, answers in sorted(members.items())
    ]
    error = sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in table) / len(confidences)
    return error, table


def recall(answers: Sequence[tuple[str, str | None]], labels: Sequence[str]) -> dict[str, float | None]:
    """For each label the share of its questions that are answered right; None where it has none.

    answers: (gold, predicted) pairs.
    """
    golds = Counter(gold for gold, _ in answers)
    right = Counter(gold for gold, predicted in answers if gold == predicted)
    return {label: right[label] / golds[label] if golds[label] else None for label in labels}


def position_bias(recalls: Mapping[str, float | None]) -> float | None:
    """Standard deviation of the labels' recalls, 0 to 0.5: 0 when the right answer is found wherever it stands.

    None with fewer than two labels. Source: C. Zheng et al., Large Language Models Are Not Robust Multiple Choice
    Selectors, ICLR 2024 ("RStd").
    """
    known = [value for value in recalls.values() if value is not None]
    return pstdev(known) if len(known) > 1 else None


def total_variation(counts: Mapping[str, int], other: Mapping[str, int]) -> float:
    """How far two label distributions are apart: the share of answers that would have to change, 0 to 1."""
    total, other_total = sum(counts.values()) or 1, sum(other.values()) or 1
    return sum(abs(counts.get(key, 0) / total - other.get(key, 0) / other_total) for key in {*counts, *other}) / 2
