"""Is the tuned model better than the base model? Both answered the same held-out questions: a paired test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean
from typing import Any

from slimtune.errors import Problem, SlimtuneError

# A model has collapsed when one label makes up at least this share of its answers …
COLLAPSE_SHARE = 0.9
# … and at least this much more than its share of the gold answers (a test set that is 95 % "a" proves nothing).
COLLAPSE_EXCESS = 0.25
# Below the alarm, but worth a word: one label on at least half of the answers, with the same excess over gold.
LEANING_SHARE = 0.5
# With less than this of its probability on the labels, a model has not learned the form of an answer.
LOW_LABEL_MASS = 0.5
POWER = 0.8


def judge(
    base: Sequence[dict[str, Any]],
    tuned: Sequence[dict[str, Any]],
    *,
    labels: Sequence[str] | None = None,
    alpha: float = 0.05,
) -> dict[str, Any]:
    """Compare two models item by item; returns plain data for `eval/verdict.json`.

    base, tuned: one dict an item with `id`, `gold`, `predicted` (None: no answer, counted as wrong) and, where known,
        `label_mass` (probability on all labels together, 0 to 1), in any order. Ids and golds must be the same.
    labels: the possible answers in their order; by default all that occur in gold, predictions and `logprobs`.
    alpha: level of the two-sided test.

    `verdict` is one of
    - "collapsed": the tuned model gives one label to nearly all items. Its share of the answers is ≥ COLLAPSE_SHARE,
      exceeds its share of gold by ≥ COLLAPSE_EXCESS, and is more than chance explains (one-sided binomial test with
      the gold share, p < alpha). Whatever the accuracy is, such a model does not read the question.
    - "better", "worse": the exact McNemar test has p < alpha.
    - "cannot tell": otherwise; `items_needed` then says how many items would be needed, see `items_needed`.

    `sentence` says this for a person, with `caveats` that the verdict does not cover.
    Raises SlimtuneError if the items do not pair up, repeat an id, lack a field or contradict themselves.
    """
    problems = [*_row_problems("base", base), *_row_problems("tuned", tuned)]
    if not problems:
        problems = _pairing_problems(base, tuned)
    if not problems and labels is not None:
        problems = _label_problems(base, tuned, labels)
    if problems:
        raise SlimtuneError(problems, summary="the two evaluations cannot be compared")

    tuned_by_id = {item["id"]: item for item in tuned}
    tuned = [tuned_by_id[item["id"]] for item in base]
    order = list(labels) if labels is not None else _labels_in([*base, *tuned])
    n = len(base)
    golds = Counter(item["gold"] for item in base)
    majority = max(order, key=lambda label: golds[label])
    lost = sum(_correct(b) and not _correct(t) for b, t in zip(base, tuned, strict=True))
    gained = sum(_correct(t) and not _correct(b) for b, t in zip(base, tuned, strict=True))

    result: dict[str, Any] = {
        "n": n,
        "labels": order,
        "alpha": alpha,
        "base": _figures(base, order),
        "tuned": _figures(tuned, order),
        "gold": {label: golds[label] for label in order},
        "majority": {"label": majority, "share": golds[majority] / n},
        "mcnemar": {"lost": lost, "gained": gained, "p_value": mcnemar_exact(lost, gained)},
        "difference_points": 100 * (gained - lost) / n,
        "collapse": _collapse(tuned, golds, order, alpha),
        "items_needed": None,
    }
    if result["collapse"]["collapsed"]:
        result["verdict"] = "collapsed"
    elif result["mcnemar"]["p_value"] < alpha:
        result["verdict"] = "better" if gained > lost else "worse"
    else:
        result["verdict"] = "cannot tell"
        result["items_needed"] = items_needed(n, lost, gained, alpha=alpha)
    result["caveats"] = _caveats(result)
    result["sentence"] = _sentence(result)
    return result


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided p-value that `lost` and `gained` differ by chance alone; 1.0 when no item changed.

    lost: items only the base model has right; gained: items only the tuned model has right. Items on which both agree
    say nothing about the difference. If neither model is better, `gained` follows Binomial(lost + gained, 1/2).
    Source: Q. McNemar, Psychometrika 12 (1947) 153–157, in its exact (binomial) form.
    """
    from scipy.stats import binomtest

    return float(binomtest(gained, lost + gained, 0.5).pvalue) if lost + gained else 1.0


def items_needed(n: int, lost: int, gained: int, *, alpha: float = 0.05, power: float = POWER) -> int | None:
    """Roughly how many items would show the observed difference, were it real; None if no difference was observed.

    With ψ = (lost + gained) / n, the share of items that changed, and δ = (gained - lost) / n:

        N = (z(1 - α/2) √ψ + z(power) √(ψ - δ²))² / δ²

    Source: R. J. Connor, Biometrics 43 (1987) 207–211, for McNemar's test. It is an order of magnitude: ψ and δ are
    themselves estimated from the n items at hand. Never less than n + 1, since n items did not do.
    """
    changed, difference = (lost + gained) / n, (gained - lost) / n
    if difference == 0:
        return None
    z = NormalDist().inv_cdf
    root = z(1 - alpha / 2) * math.sqrt(changed) + z(power) * math.sqrt(max(0.0, changed - difference**2))
    return max(math.ceil((root / difference) ** 2), n + 1)


def summary_rows(verdict: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The before/after table of a verdict: (measure, base, tuned), ready to print."""
    order = verdict["labels"]
    gold = " / ".join(str(verdict["gold"][label]) for label in order)
    majority = f"{percent(verdict['majority']['share'])} (always {verdict['majority']['label']})"

    def row(name: str, show: Callable[[dict[str, Any]], str]) -> tuple[str, str, str]:
        return name, show(verdict["base"]), show(verdict["tuned"])

    rows = [
        row("accuracy", lambda side: percent(side["accuracy"])),
        row("correct / n", lambda side: f"{side['correct']} / {verdict['n']}"),
        row(
            f"answers {' / '.join(order)} (gold {gold})",
            lambda side: " / ".join(str(side["histogram"][label]) for label in order),
        ),
    ]
    if verdict["base"]["unanswered"] or verdict["tuned"]["unanswered"]:
        rows.append(row("no answer", lambda side: str(side["unanswered"])))
    rows.append(("majority baseline", majority, majority))
    rows.append(
        row("label mass", lambda side: "not recorded" if side["label_mass"] is None else percent(side["label_mass"]))
    )
    return rows


def percent(share: float) -> str:
    """0.9583 → "95.8 %"."""
    return f"{100 * share:.1f} %"


def _correct(item: dict[str, Any]) -> bool:
    return item["predicted"] == item["gold"]


def _figures(items: Sequence[dict[str, Any]], order: Sequence[str]) -> dict[str, Any]:
    predicted = Counter(item["predicted"] for item in items)
    correct = sum(_correct(item) for item in items)
    masses = [item["label_mass"] for item in items if item.get("label_mass") is not None]
    return {
        "accuracy": correct / len(items),
        "correct": correct,
        "histogram": {label: predicted[label] for label in order},
        "unanswered": predicted[None],
        "label_mass": fmean(masses) if masses else None,
    }


def _collapse(
    items: Sequence[dict[str, Any]], golds: Counter[str], order: Sequence[str], alpha: float
) -> dict[str, Any]:
    """The commonest answer of the tuned model, its share among answers and gold, and whether that is a collapse."""
    from scipy.stats import binomtest

    predicted = Counter(item["predicted"] for item in items)
    label = max(order, key=lambda one: predicted[one])
    share, gold_share = predicted[label] / len(items), golds[label] / len(items)
    collapsed = (
        share >= COLLAPSE_SHARE
        and share - gold_share >= COLLAPSE_EXCESS
        and float(binomtest(predicted[label], len(items), gold_share, alternative="greater").pvalue) < alpha
    )
    return {"label": label, "share": share, "gold_share": gold_share, "collapsed": collapsed}


def _caveats(result: dict[str, Any]) -> list[str]:
    n, tuned, collapse, majority = result["n"], result["tuned"], result["collapse"], result["majority"]
    caveats = []
    if collapse["collapsed"]:
        same = result["base"]["histogram"][collapse["label"]]
        if same / n >= COLLAPSE_SHARE:
            caveats.append(f'the base model answers "{collapse["label"]}" to {same} of {n} as well')
    elif result["verdict"] != "worse" and tuned["accuracy"] <= majority["share"]:
        caveats.append(f'no better than always answering "{majority["label"]}"')
    leaning = collapse["share"] >= LEANING_SHARE and collapse["share"] - collapse["gold_share"] >= COLLAPSE_EXCESS
    if leaning and not collapse["collapsed"]:
        caveats.append(
            f'it answers "{collapse["label"]}" to {percent(collapse["share"])} of the questions, '
            f"gold has {percent(collapse['gold_share'])}"
        )
    if tuned["label_mass"] is not None and tuned["label_mass"] < LOW_LABEL_MASS:
        caveats.append(f"only {percent(tuned['label_mass'])} of its probability is on the labels")
    if tuned["unanswered"]:
        caveats.append(f"{tuned['unanswered']} of {n} questions got no answer, counted as wrong")
    return caveats


def _sentence(result: dict[str, Any]) -> str:
    n, p = result["n"], result["mcnemar"]["p_value"]
    questions = f"{n} question" if n == 1 else f"{n} questions"
    change = f"{percent(result['base']['accuracy'])} → {percent(result['tuned']['accuracy'])}"
    majority = f"majority baseline {percent(result['majority']['share'])}"
    test = "exact McNemar p < 0.001" if p < 0.001 else f"exact McNemar p = {p:.3g}"
    sentence = f"{result['verdict']}: {change} on {questions} ({majority}, {test})"
    if result["verdict"] == "collapsed":
        label = result["collapse"]["label"]
        answers = f'"{label}" is the answer to {result["tuned"]["histogram"][label]} of {questions}'
        sentence = f"collapsed: {answers} (gold: {result['gold'][label]}); accuracy {change} ({majority}, {test})"
    elif result["items_needed"] is not None:
        sentence += (
            f"; to tell a true difference of {abs(result['difference_points']):.1f} points, "
            f"about {result['items_needed']} questions would be needed (power {100 * POWER:.0f} %)"
        )
    elif result["verdict"] == "cannot tell":
        sentence += f"; both models have {result['tuned']['correct']} right"
    return f"{sentence}. Note: {'; '.join(result['caveats'])}" if result["caveats"] else sentence


def _labels_in(items: Sequence[dict[str, Any]]) -> list[str]:
    seen = {item["gold"] for item in items} | {item["predicted"] for item in items}
    for item in items:
        seen.update(item.get("logprobs") or {})
    return sorted(seen - {None})


def _row_problems(side: str, items: Sequence[dict[str, Any]]) -> list[Problem]:
    if not items:
        return [Problem("no items to judge", side, "evaluate this model on the test questions first")]
    problems = []
    counts = Counter(item.get("id") for item in items)
    for number, item in enumerate(items, 1):
        where = f"{side} item {number}"
        missing = [key for key in ("id", "gold") if item.get(key) is None]
        missing += [] if "predicted" in item else ["predicted"]
        if missing:
            problems.append(Problem(f"without {', '.join(missing)}", where, "evaluate this model again"))
        elif "correct" in item and bool(item["correct"]) != _correct(item):
            what = f"marked correct={item['correct']}, but gold is {item['gold']} and predicted {item['predicted']}"
            problems.append(Problem(what, f"{where} ({item['id']})", "evaluate this model again"))
    repeated = [str(key) for key, count in counts.items() if count > 1 and key is not None]
    if repeated:
        problems.append(Problem(f"repeated ids: {_some(repeated)}", side, "give every question an id of its own"))
    return problems


def _pairing_problems(base: Sequence[dict[str, Any]], tuned: Sequence[dict[str, Any]]) -> list[Problem]:
    base_gold = {item["id"]: item["gold"] for item in base}
    tuned_gold = {item["id"]: item["gold"] for item in tuned}
    fix = "let both models answer the same, complete question file"
    problems = []
    if only_base := [str(key) for key in base_gold if key not in tuned_gold]:
        problems.append(Problem(f"answered by the base model only: {_some(only_base)}", "tuned", fix))
    if only_tuned := [str(key) for key in tuned_gold if key not in base_gold]:
        problems.append(Problem(f"answered by the tuned model only: {_some(only_tuned)}", "base", fix))
    differ = [str(key) for key, gold in base_gold.items() if key in tuned_gold and tuned_gold[key] != gold]
    if differ:
        problems.append(Problem(f"different gold answers: {_some(differ)}", "base and tuned", fix))
    return problems


def _label_problems(
    base: Sequence[dict[str, Any]], tuned: Sequence[dict[str, Any]], labels: Sequence[str]
) -> list[Problem]:
    used = set(_labels_in([{"gold": item["gold"], "predicted": item["predicted"]} for item in [*base, *tuned]]))
    unknown = sorted(used - set(labels))
    if not unknown:
        return []
    return [Problem(f"answers outside {', '.join(labels)}: {_some(unknown)}", "labels", "name every possible answer")]


def _some(names: list[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
