"""Is the tuned model better than the base model? Both answered the same held-out questions: a paired test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from slimtune.evaluate.judge import pairing, statistics
from slimtune.evaluate.judge.continuous import judge_continuous
from slimtune.evaluate.judge.figures import Rows, answer_key, is_correct, labels_in, multiple_choice, question_score
from slimtune.evaluate.judge.statistics import items_needed, mcnemar_exact
from slimtune.evaluate.judge.summary_table import summary_rows
from slimtune.evaluate.judge.thresholds import COLLAPSE_EXCESS, COLLAPSE_SHARE, LOW_ANSWERED, LOW_LABEL_MASS
from slimtune.evaluate.judge.verdict_text import caveats, percent, sentence

__all__ = ["items_needed", "judge", "mcnemar_exact", "percent", "summary_rows"]


def judge(
    base: Rows,
    tuned: Rows,
    *,
    labels: Sequence[str] | None = None,
    alpha: float = 0.05,
    contamination: dict[str, Any] | None = None,
    resamples: int = statistics.RESAMPLES,
) -> dict[str, Any]:
    """Compare two models item by item; returns plain data for `eval/verdict.json`.

    base, tuned: one dict an item, in any order; ids and golds must be the same. A multiple-choice row has `id`, `gold`,
        `predicted` (None: no answer, counted as wrong), and what `figures.multiple_choice` names where it is known.
        Rows whose `kind` is perplexity or generation are judged by `continuous.judge_continuous`.
    labels: the possible answers in their order; by default all that occur in the rows.
    alpha: level of the two-sided test; the interval of the difference covers 1 - alpha.
    contamination: the content of `eval/contamination.json`; None if it was not checked.
    resamples: of the bootstrap behind the interval.

    `verdict` is the first that holds of
    - "collapsed": the tuned model gives one label to nearly all questions. Its share of the answers is ≥ COLLAPSE_SHARE,
      exceeds its share of gold by ≥ COLLAPSE_EXCESS, and is more than chance explains (one-sided binomial test with
      the gold share, p < alpha). Whatever the accuracy is, such a model does not read the question.
    - "format failure": less than LOW_LABEL_MASS of its probability is on the labels, or less than LOW_ANSWERED of its
      replies hold an answer. Its accuracy is not what a person who uses it would see.
    - "contaminated": some of the questions are in the training data. `contamination` scores both parts.
    - "better", "worse": the exact McNemar test has p < alpha.
    - "cannot tell": otherwise; `items_needed` then says how many items would be needed, see `items_needed`.

    Where the choices were permuted, a question is right if its averaged prediction is, `difference_points` and its
    interval are of the mean over the orders (if both models' are known), and histograms, gold's as the tuned model saw
    it, count the labels of every order.
    `sentence` says this for a person, with `caveats` that the verdict does not cover.
    Raises SlimtuneError if the items do not pair up, repeat an id, lack a field or contradict themselves.
    """
    kind = pairing.kind_of(base or tuned)
    if kind != "multiple_choice":
        return judge_continuous(base, tuned, kind=kind, alpha=alpha, contamination=contamination, resamples=resamples)
    base, tuned = pairing.pair(base, tuned, kind=kind, labels=labels)
    order = list(labels) if labels is not None else labels_in([*base, *tuned])
    n = len(base)
    flips = _flips(base, tuned)
    lost, gained = len(flips["lost"]), len(flips["gained"])
    # Of an ensemble the orders are not known one by one: then its answer counts, and only the answer of the other.
    score = question_score if all(row.get("permutations") for row in [*base, *tuned]) else is_correct
    differences = [score(t) - score(b) for b, t in zip(base, tuned, strict=True)]
    interval = statistics.paired_bootstrap(differences, confidence=1 - alpha, resamples=resamples)

    result: dict[str, Any] = {
        "kind": kind,
        "mode": str(tuned[0].get("mode") or "direct"),
        "n": n,
        "alpha": alpha,
        **answer_key(tuned, order),
        "base": multiple_choice(base, order),
        "tuned": multiple_choice(tuned, order),
        "mcnemar": {"lost": lost, "gained": gained, "p_value": mcnemar_exact(lost, gained)},
        "difference_points": 100 * sum(differences) / n,
        "difference_interval": [100 * end for end in interval],
        "flips": flips,
        "both_answered": _where_both_answered(base, tuned),
        "contamination": _scored_apart(contamination, base, tuned),
        "items_needed": None,
    }
    result["collapse"] = _collapse(result)
    result["verdict"] = _verdict(result)
    if result["verdict"] == "cannot tell":
        result["items_needed"] = items_needed(n, lost, gained, alpha=alpha)
    result["caveats"] = caveats(result)
    result["sentence"] = sentence(result)
    return result


def _verdict(result: dict[str, Any]) -> str:
    tuned, contamination, test = result["tuned"], result["contamination"], result["mcnemar"]
    if result["collapse"]["collapsed"]:
        return "collapsed"
    if tuned["label_mass"] is not None and tuned["label_mass"] < LOW_LABEL_MASS:
        return "format failure"
    if tuned["statuses"]["answered"] < LOW_ANSWERED * result["n"]:
        return "format failure"
    if contamination and contamination["items"]:
        return "contaminated"
    if test["p_value"] < result["alpha"]:
        return "better" if test["gained"] > test["lost"] else "worse"
    return "cannot tell"


def _collapse(result: dict[str, Any]) -> dict[str, Any]:
    """The commonest answer of the tuned model, its shares, whether that is a collapse, and both distances from gold.

    Shares are of the answers that were given. One question's orders are not independent of each other, so that the
    test counts a question once. `base_distance` and `tuned_distance` are total variation between answers and gold.
    """
    base, tuned, gold = result["base"]["histogram"], result["tuned"]["histogram"], result["gold"]
    label = max(result["labels"], key=lambda one: tuned[one])
    share, base_share, gold_share = (_share(counts, label) for counts in (tuned, base, gold))
    answered = result["n"] - result["tuned"]["unanswered"]
    by_chance = statistics.exceeds_by_chance(round(share * answered), answered, gold_share) if answered else 1.0
    return {
        "label": label,
        "share": share,
        "gold_share": gold_share,
        "base_share": base_share,
        "base_distance": statistics.total_variation(base, gold),
        "tuned_distance": statistics.total_variation(tuned, gold),
        "p_value": by_chance,
        "collapsed": share >= COLLAPSE_SHARE
        and share - gold_share >= COLLAPSE_EXCESS
        and answered >= LOW_ANSWERED * result["n"]
        and by_chance < result["alpha"],
    }


def _share(counts: dict[str, int], label: str) -> float:
    return counts[label] / (sum(counts.values()) or 1)


def _flips(base: Rows, tuned: Rows) -> dict[str, list[Any]]:
    pairs = [(b["id"], is_correct(b), is_correct(t)) for b, t in zip(base, tuned, strict=True)]
    return {
        "gained": [key for key, before, after in pairs if after and not before],
        "lost": [key for key, before, after in pairs if before and not after],
    }


def _where_both_answered(base: Rows, tuned: Rows) -> dict[str, Any] | None:
    """The score without the questions that either model left open; None if there are none of these."""
    part = _score(base, tuned, lambda b, t: None not in (b["predicted"], t["predicted"]))
    return part if part["n"] < len(base) else None


def _scored_apart(contamination: dict[str, Any] | None, base: Rows, tuned: Rows) -> dict[str, Any] | None:
    """What the contamination check found, with the scores of the clean and of the contaminated questions."""
    found = pairing.contaminated(contamination, base)
    if found is None:
        return None
    known = set(found["ids"])
    clean = _score(base, tuned, lambda b, _: b["id"] not in known)
    return {
        **found,
        "clean": clean if clean["n"] else None,
        "contaminated": _score(base, tuned, lambda b, _: b["id"] in known),
    }


def _score(base: Rows, tuned: Rows, keep: Callable[[dict[str, Any], dict[str, Any]], bool]) -> dict[str, Any]:
    """Both models' right answers among the pairs that `keep` chooses, and the exact McNemar test on them."""
    pairs = [(is_correct(b), is_correct(t)) for b, t in zip(base, tuned, strict=True) if keep(b, t)]
    return {
        "n": len(pairs),
        "base_correct": sum(before for before, _ in pairs),
        "tuned_correct": sum(after for _, after in pairs),
        "p_value": mcnemar_exact(pairs.count((True, False)), pairs.count((False, True))),
    }
