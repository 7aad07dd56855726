"""By how much two models differ on the same items, how sure that is, and what it means."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.core.units import plural
from slimtune.evaluate.judge import statistics
from slimtune.evaluate.judge.text import p_value, signed
from slimtune.evaluate.kinds.kind import Change, Kind


def measure(kind: Kind, change: Change, *, alpha: float, resamples: int = statistics.RESAMPLES) -> dict[str, Any]:
    """The difference as it is recorded, contender minus reference, with what `test` returns.

    difference: Σ values / Σ sizes, in `difference_unit`. difference_interval: its paired bootstrap interval, which covers
    1 - alpha.
    """
    total = sum(change.sizes) if change.sizes else len(change.values)
    interval = statistics.paired_bootstrap(change.values, change.sizes, confidence=1 - alpha, resamples=resamples)
    return {
        "difference": math.fsum(change.values) / total,
        "difference_interval": list(interval),
        "difference_unit": kind.unit,
        **test(kind, change),
    }


def test(kind: Kind, change: Change) -> dict[str, Any]:
    """p_value of the kind's test, two-sided; mcnemar of `Change.right`, rank_biserial of Wilcoxon's test."""
    found: dict[str, Any] = {}
    if change.right:
        lost, gained = change.right.count((True, False)), change.right.count((False, True))
        found["mcnemar"] = {"lost": lost, "gained": gained, "p_value": statistics.mcnemar_exact(lost, gained)}
    if kind.test == "exact McNemar":
        return found | {"p_value": found["mcnemar"]["p_value"]}
    # The test ranks items, each by its own mean, not tokens.
    sizes = change.sizes or [1.0] * len(change.values)
    p, correlation = statistics.wilcoxon([value / size for value, size in zip(change.values, sizes, strict=True)])
    return found | {"p_value": p, "rank_biserial": correlation}


def decide(kind: Kind, found: Mapping[str, Any], n: int, alpha: float, p: float) -> str:
    """ "better", "worse" or "cannot tell", of the contender. p: adjusted for several comparisons where there are any.

    "exact McNemar" decides by p < alpha. With "Wilcoxon" there must also be FEWEST_PAIRS items, and the interval must
    leave out 0 and point the same way.
    """
    if p >= alpha:
        return "cannot tell"
    if kind.test == "exact McNemar":
        return "better" if found["mcnemar"]["gained"] > found["mcnemar"]["lost"] else "worse"
    same_way = found["difference"] * found["rank_biserial"] > 0
    if n < statistics.FEWEST_PAIRS or not _leaves_out_zero(found) or not same_way:
        return "cannot tell"
    return "better" if (found["difference"] > 0) == kind.higher_is_better else "worse"


def items_needed(kind: Kind, change: Change, alpha: float) -> int | None:
    """How many items could confirm the observed difference, if it is real; None where there is no difference."""
    if kind.test != "exact McNemar":
        return statistics.items_needed_for_mean(change.values, change.sizes, alpha=alpha)
    lost, gained = change.right.count((True, False)), change.right.count((False, True))
    return statistics.items_needed(len(change.right), lost, gained, alpha=alpha)


def readable(found: Mapping[str, Any]) -> tuple[float, list[float], str]:
    """The difference, its interval and their unit for a person: a perplexity's as its change in percent."""
    size, ends, unit = found["difference"], found["difference_interval"], found["difference_unit"]
    if unit != "nats per token":
        return size, list(ends), unit
    # A difference of logarithms is a ratio.
    return 100 * math.expm1(size), [100 * math.expm1(end) for end in ends], "%"


def caveats(kind: Kind, result: Mapping[str, Any]) -> list[str]:
    """Where the interval and the test disagree, so that nothing can be told."""
    if kind.test == "Wilcoxon" and result["n"] < statistics.FEWEST_PAIRS:
        return [f"with fewer than {statistics.FEWEST_PAIRS} {kind.noun}s no test can tell"]
    if result["verdict"] != "cannot tell":
        return []
    significant = result["p_value"] < result["alpha"]
    if significant and _leaves_out_zero(result):
        return [f"most {kind.noun}s changed in the other direction than the total"]
    if _leaves_out_zero(result):
        return ["the interval leaves out 0, but the test does not confirm it"]
    return ["the test finds a difference, but the interval includes 0"] if significant else []


def sentence(
    kind: Kind,
    result: Mapping[str, Any],
    *,
    change: str,
    evidence: Sequence[str],
    failure: str = "",
    clean: str = "",
    spread: str = "",
) -> str:
    """A verdict or a pair of a comparison in a sentence, with its caveats as a note.

    result: n, alpha, verdict, items_needed, caveats and the difference. change: "26.7 % → 95.8 %". evidence: beside the
    difference and its interval. failure: how the tuned model failed, up to `change`. clean: the result without
    contaminated items, with what is wrong with the others. spread: how sure the contender's own figure is.
    """
    verdict, n = result["verdict"], result["n"]
    size, ends, unit = readable(result)
    told = "; ".join([f"{signed(size)} {unit}, {_interval(result, ends, kind.noun)}", *evidence])
    if clean:
        text = f"{verdict}: {clean}"
    elif failure:
        text = f"{verdict}: {failure} {change} ({told})"
    elif verdict != "cannot tell":
        text = f"{verdict}: {change}{spread} on {plural(n, kind.noun)} ({told})"
    elif result["items_needed"] is None:
        same = f"one {kind.noun} shows no spread" if n == 1 and result["difference"] else "both do equally well"
        text = f"cannot tell at n={n}: {change} ({told}); {same}"
    else:
        if kind.test == "exact McNemar":
            # What the test counts is questions, permuted or not.
            size = 100 * (result["mcnemar"]["gained"] - result["mcnemar"]["lost"]) / n
        text = (
            f"cannot tell at n={n}: {change} ({told}); to tell a true difference of {abs(size):.1f} {unit}, "
            f"about {result['items_needed']} {kind.noun}s would be needed (power {100 * statistics.POWER:.0f} %)"
        )
    return f"{text}. Note: {'; '.join(result['caveats'])}" if result["caveats"] else text


def tested(kind: Kind, result: Mapping[str, Any]) -> str:
    """ "exact McNemar p < 0.001"."""
    return f"{kind.test} {p_value(result['p_value'])}"


def _leaves_out_zero(found: Mapping[str, Any]) -> bool:
    low, high = found["difference_interval"]
    return bool(low > 0 or high < 0)


def _interval(result: Mapping[str, Any], ends: Sequence[float], noun: str) -> str:
    low, high = ends
    if low == high:
        # Resampling cannot tell what items that were not asked might have done.
        return f"the same change on every {noun}, so there is no interval" if low else f"no {noun} scored differently"
    return f"{100 * (1 - result['alpha']):g} % interval {signed(low)} to {signed(high)}"
