"""What a verdict says to a person: one sentence, and the caveats that belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slimtune.evaluate.judge.statistics import POWER
from slimtune.evaluate.judge.thresholds import (
    COLLAPSE_EXCESS,
    COLLAPSE_SHARE,
    LEANING_DISTANCE,
    LEANING_SHARE,
    LOW_LABEL_MASS,
)


def sentence(result: dict[str, Any]) -> str:
    """The verdict of a multiple-choice comparison, with its caveats as a note."""
    base, tuned, test = result["base"], result["tuned"], result["mcnemar"]
    points = f"{signed(result['difference_points'])} points"
    if base["permutations"] and tuned["permutations"]:
        points += f" in the mean over {tuned['permutations']['count']} orders of the choices"
    evidence = [
        f"{points}, {interval(result, 'question')}",
        p_value("exact McNemar", test["p_value"]),
        f"majority baseline {percent(result['majority']['share'])}",
    ]
    clean = (result["contamination"] or {}).get("clean")
    return compose(
        result,
        noun="question",
        change=f"{percent(base['accuracy'])} → {percent(tuned['accuracy'])}",
        spread=f" ({bounds(tuned['interval'])})",
        evidence="; ".join(evidence),
        failure=_failure(result),
        observed=f"{abs(100 * (test['gained'] - test['lost']) / result['n']):.1f} points",
        same=f"both models have {tuned['correct']} right",
        clean=part(clean) if clean else "",
    )


def compose(
    result: dict[str, Any],
    *,
    noun: str,
    change: str,
    evidence: str,
    observed: str,
    same: str,
    spread: str = "",
    failure: str = "",
    clean: str = "",
) -> str:
    """The sentence of any verdict, from its parts.

    noun: what was asked, in the singular. change: "26.7 % → 95.8 %". evidence: difference, interval and test. observed:
    the difference that `items_needed` items would tell. same: said where there is no difference to tell. spread: how
    sure the tuned model's own figure is. failure: how it collapsed or failed. clean: the result without contamination.
    """
    verdict, n = result["verdict"], result["n"]
    if verdict == "contaminated":
        others = (
            f"on the other {result['contamination']['clean']['n']}: {clean}" if clean else "none is left to judge by"
        )
        text = f"contaminated: {in_training_data(result, noun)}; {others}"
    elif failure:
        text = f"{verdict}: {failure} {change} ({evidence})"
    elif verdict != "cannot tell":
        text = f"{verdict}: {change}{spread} on {count(n, noun)} ({evidence})"
    elif result["items_needed"] is None:
        text = f"cannot tell at n={n}: {change} ({evidence}); {same}"
    else:
        text = (
            f"cannot tell at n={n}: {change} ({evidence}); to tell a true difference of {observed}, "
            f"about {result['items_needed']} {noun}s would be needed (power {100 * POWER:.0f} %)"
        )
    return f"{text}. Note: {'; '.join(result['caveats'])}" if result["caveats"] else text


def caveats(result: dict[str, Any]) -> list[str]:
    """What a reader of a multiple-choice verdict should know beside it."""
    n, base, tuned, majority = result["n"], result["base"], result["tuned"], result["majority"]
    said = []
    if result["collapse"]["collapsed"]:
        if result["collapse"]["base_share"] >= COLLAPSE_SHARE:
            label = result["collapse"]["label"]
            said.append(f'the base model answers "{label}" to {_answers(base, label, n)} as well')
    elif result["verdict"] != "worse" and tuned["accuracy"] <= majority["share"]:
        said.append(f'no better than always answering "{majority["label"]}"')
    said += _leaning(result)
    if tuned["unanswered"] and result["verdict"] != "format failure":
        said.append(f"{tuned['unanswered']} of {n} questions got no answer ({statuses(tuned)}), counted as wrong")
    if base["unanswered"]:
        said.append(f"the base model left {base['unanswered']} of {n} open ({statuses(base)})")
    if (answered := result["both_answered"]) and answered["n"] and result["verdict"] in ("better", "worse"):
        said.append(f"on the {answered['n']} that both answered: {part(answered)}")
    if base["label_mass"] is not None and base["label_mass"] < LOW_LABEL_MASS and result["verdict"] == "better":
        said.append(
            f"only {percent(base['label_mass'])} of the base model's probability is on the labels, so that part of the "
            "difference may be the form of the answer"
        )
    low, high = result["difference_interval"]
    if result["verdict"] == "cannot tell" and (low > 0 or high < 0):
        said.append("the interval leaves out 0, but the verdict rests on the exact test")
    return said + contamination_caveats(result, "question")


def contamination_caveats(result: dict[str, Any], noun: str) -> list[str]:
    """What the contamination check found and the verdict does not say."""
    found = result["contamination"]
    if not found:
        return []
    said = [in_training_data(result, noun)] if found["items"] and result["verdict"] != "contaminated" else []
    if found["shared_context"]:
        their = f"{noun} shares its" if found["shared_context"] == 1 else f"{noun}s share their"
        said.append(f"{found['shared_context']} {their} context with the training data")
    return said


def in_training_data(result: dict[str, Any], noun: str) -> str:
    """ "12 of 120 test questions are in the training data (9 exact, 3 near duplicates)"."""
    found, n = result["contamination"], result["n"]
    kinds = [
        f"{number} {kind}s" if kind == "near duplicate" and number > 1 else f"{number} {kind}"
        for kind, number in found["by_kind"].items()
    ]
    verb = "is" if found["items"] == 1 else "are"
    return f"{found['items']} of {n} test {noun}s {verb} in the training data ({', '.join(kinds)})"


def part(score: dict[str, Any]) -> str:
    """The score on a part of the questions: "24.1 % → 95.4 % (exact McNemar p < 0.001)"."""
    before, after = score["base_correct"] / score["n"], score["tuned_correct"] / score["n"]
    return f"{percent(before)} → {percent(after)} ({p_value('exact McNemar', score['p_value'])})"


def statuses(side: dict[str, Any]) -> str:
    """How replies without an answer ended: "3 unknown, 2 truncated"; "" if all were answered."""
    return ", ".join(f"{number} {name}" for name, number in side["statuses"].items() if number and name != "answered")


def interval(result: dict[str, Any], noun: str, ends: Sequence[float] | None = None) -> str:
    """ "95 % interval +62.5 to +79.2" of the difference, or of `ends` that show it in another unit."""
    low, high = ends or result["difference_interval"]
    if low == high:
        # Resampling cannot tell what questions might have done that were not asked.
        return f"every {noun} alike, so that there is no interval" if low else f"no {noun} changed"
    return f"{100 * (1 - result['alpha']):g} % interval {signed(low)} to {signed(high)}"


def bounds(shares: Sequence[float]) -> str:
    """[0.906, 0.982] → "90.6 to 98.2"."""
    low, high = shares
    return f"{100 * low:.1f} to {100 * high:.1f}"


def p_value(test: str, p: float) -> str:
    return f"{test} p < 0.001" if p < 0.001 else f"{test} p = {p:.3g}"


def percent(share: float) -> str:
    """0.9583 → "95.8 %"."""
    return f"{100 * share:.1f} %"


def signed(value: float) -> str:
    # Adding 0.0 turns the -0.0 that rounding leaves into 0.0.
    return f"{round(value, 1) + 0.0:+.1f}"


def count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _failure(result: dict[str, Any]) -> str:
    """How the tuned model collapsed or missed the form, up to its accuracy; "" if it did neither."""
    tuned, n = result["tuned"], result["n"]
    if result["verdict"] == "collapsed":
        label = result["collapse"]["label"]
        asked = "permuted questions" if tuned["permutations"] else "questions"
        gold = result["gold"][label]
        return f'"{label}" is the answer to {_answers(tuned, label, n)} {asked} (gold: {gold}); accuracy'
    if result["verdict"] != "format failure":
        return ""
    mass = tuned["label_mass"]
    if mass is not None and mass < LOW_LABEL_MASS:
        return f"only {percent(mass)} of the tuned model's probability is on the labels; by the letters alone"
    unanswered = f"{n - tuned['statuses']['answered']} of {n} questions got no answer ({statuses(tuned)})"
    return f"{unanswered}; with these counted as wrong, accuracy"


def _answers(side: dict[str, Any], label: str, n: int) -> str:
    """ "115 of 120": how often a label was given, of all times that it could have been."""
    orders = side["permutations"]["count"] if side["permutations"] else 1
    return f"{side['histogram'][label]} of {n * orders}"


def _leaning(result: dict[str, Any]) -> list[str]:
    """Labels that the tuned model prefers more than gold and base do, short of a collapse."""
    found = result["collapse"]
    if found["collapsed"] or found["p_value"] >= result["alpha"]:
        return []
    if found["share"] >= LEANING_SHARE and found["share"] - found["gold_share"] >= COLLAPSE_EXCESS:
        return [
            f'it answers "{found["label"]}" to {percent(found["share"])} of the questions; gold has '
            f"{percent(found['gold_share'])}, the base model {percent(found['base_share'])}"
        ]
    if found["tuned_distance"] - found["base_distance"] >= LEANING_DISTANCE:
        return [
            f"to be spread over the labels as gold is, {percent(found['tuned_distance'])} of its answers would have to "
            f"change, and {percent(found['base_distance'])} of the base model's"
        ]
    return []
