"""Is the tuned model better than the base model? Both answered the same held-out items: a paired test."""

from collections.abc import Sequence
from typing import Any

from slimtune.evaluate import kinds
from slimtune.evaluate.judge import difference, figures, pair, statistics
from slimtune.evaluate.judge.text import bounds
from slimtune.evaluate.kinds.kind import Answer, Answers, Kind


def judge(
    base: Answers,
    tuned: Answers,
    *,
    labels: Sequence[str] | None = None,
    alpha: float = 0.05,
    contamination: dict[str, Any] | None = None,
    resamples: int = statistics.RESAMPLES,
) -> dict[str, Any]:
    """Compare two models item by item; returns plain data for `eval/verdict.json`.

    base, tuned: one answer an item, in any order; ids, and golds or references, must be the same.
    labels: the possible answers of multiple choice in their order; by default all that occur.
    alpha: level of the two-sided tests; the interval of the difference covers 1 - alpha.
    contamination: the content of `eval/contamination.json`; None if it was not checked.
    resamples: of the bootstrap for the interval.

    The difference is as in `difference.measure`, tuned minus base. `verdict` is the first that holds of
    - "collapsed": the tuned model gives one answer to nearly everything. Its share is ≥ COLLAPSE_SHARE and exceeds what
      gold or the references have by ≥ COLLAPSE_EXCESS; of labels it is also more than chance explains (one-sided
      binomial test with the gold share, p < alpha). Whatever the score is, such a model does not read the question.
    - "format failure": less than LOW_LABEL_MASS of its probability is on the labels, or less than LOW_ANSWERED of its
      replies are usable. Its score is not what a person who uses it would see.
    - "contaminated": some of the items are in the training data. `contamination` scores both parts.
    - "better", "worse", "cannot tell": see `difference.decide`; `items_needed` says how many items could tell.

    Where the choices were permuted, a question is right if its averaged prediction is, the difference is of the mean
    over the orders (if both models' are known), and histograms, gold's as the tuned model saw it, count every order.
    `sentence` says this for a person, with `caveats` that the verdict does not cover.
    Raises SlimtuneError if the items do not pair up, repeat an id, lack a field or contradict themselves.
    """
    base, tuned = pair.pair([("base", base), ("tuned", tuned)], whole=True, alike=True, labels=labels)
    kind, n = kinds.of(base), len(base)
    change = kind.change(base, tuned)
    result: dict[str, Any] = {
        "kind": kind.name,
        "mode": str(tuned[0].get("mode") or "direct"),
        "n": n,
        "alpha": alpha,
        **kind.frame(tuned, labels or kind.frame([*base, *tuned], None).get("labels")),
    }
    shown = result.get("labels", [])
    result |= {"base": figures.of_model(base, shown), "tuned": figures.of_model(tuned, shown)}
    result |= difference.measure(kind, change, alpha=alpha, resamples=resamples)
    if kind.unit == "points":
        result["difference_points"] = result["difference"]  # the name in verdicts of older versions
    if change.right:
        ids = [answer["id"] for answer in base]
        result["flips"] = {
            "gained": [key for key, right in zip(ids, change.right, strict=True) if right == (False, True)],
            "lost": [key for key, right in zip(ids, change.right, strict=True) if right == (True, False)],
        }
    if kind.has_choices:
        result["both_answered"] = _where_both_answered(kind, base, tuned)
    result |= kind.judged(base, tuned, result)
    result["contamination"] = _scored_apart(kind, contamination, base, tuned)
    word, failure = kind.failure(result)
    known = result["contamination"] or {"items": 0}
    result["verdict"] = (
        word
        or ("contaminated" if known["items"] else "")
        or difference.decide(kind, result, n, alpha, result["p_value"])
    )
    told = result["verdict"] == "cannot tell"
    result["items_needed"] = difference.items_needed(kind, change, alpha) if told else None
    result["caveats"] = [*kind.caveats(result), *difference.caveats(kind, result), *_known_caveats(kind, result)]
    result["sentence"] = _sentence(kind, result, failure)
    return result


def _where_both_answered(kind: Kind, base: Answers, tuned: Answers) -> dict[str, Any] | None:
    """The score without the questions that either model left unanswered; None if there are no such questions."""
    pairs = list(zip(base, tuned, strict=True))
    both = [pair for pair in pairs if all(answer["predicted"] is not None for answer in pair)]
    return _score(kind, both) if len(both) < len(pairs) else None


def _scored_apart(
    kind: Kind, contamination: dict[str, Any] | None, base: Answers, tuned: Answers
) -> dict[str, Any] | None:
    """What the contamination check found, with the scores of the clean and of the contaminated items."""
    found = pair.contaminated(contamination, base)
    if found is None:
        return None
    known, pairs = set(found["ids"]), list(zip(base, tuned, strict=True))
    return {
        **found,
        "clean": _score(kind, [both for both in pairs if both[0]["id"] not in known]),
        "contaminated": _score(kind, [both for both in pairs if both[0]["id"] in known]),
    }


def _score(kind: Kind, pairs: Sequence[tuple[Answer, Answer]]) -> dict[str, Any] | None:
    """Both models' scores on a part of the items, and the test on them; None for no items."""
    if not pairs:
        return None
    base, tuned = [before for before, _ in pairs], [after for _, after in pairs]
    scores = {
        f"{side}_{kind.score}": figures.measure(part)[kind.score] for side, part in (("base", base), ("tuned", tuned))
    }
    return {"n": len(pairs), **scores, "p_value": difference.test(kind, kind.change(base, tuned))["p_value"]}


def _sentence(kind: Kind, result: dict[str, Any], failure: str) -> str:
    clean = ""
    if result["verdict"] == "contaminated":
        part = result["contamination"]["clean"]
        rest = "no other item is left to judge"
        if part:
            change = f"{kind.score_name}{kind.shown(part, 'base')} → {kind.shown(part, 'tuned')}"
            rest = f"on the other {part['n']}: {change} ({difference.tested(kind, part)})"
        clean = f"{_in_training_data(kind, result)}; {rest}"
    share = kind.share(result["tuned"])
    return difference.sentence(
        kind,
        result,
        change=f"{kind.score_name}{kind.shown(result['base'])} → {kind.shown(result['tuned'])}",
        evidence=[difference.tested(kind, result), *kind.evidence(result)],
        failure=failure,
        clean=clean,
        spread=f" ({bounds(share[2])})" if share and kind.score == "correct" else "",
    )


def _known_caveats(kind: Kind, result: dict[str, Any]) -> list[str]:
    """What the contamination check found and the verdict does not say."""
    found = result["contamination"]
    if not found:
        return []
    said = [_in_training_data(kind, result)] if found["items"] and result["verdict"] != "contaminated" else []
    if found["shared_context"]:
        their = "shares its" if found["shared_context"] == 1 else "share their"
        plural = "" if found["shared_context"] == 1 else "s"
        said.append(f"{found['shared_context']} {kind.noun}{plural} {their} context with the training data")
    return said


def _in_training_data(kind: Kind, result: dict[str, Any]) -> str:
    """ "12 of 120 test questions are in the training data (9 exact, 3 near duplicates)"."""
    found = result["contamination"]
    how = [
        f"{number} {name}s" if name == "near duplicate" and number > 1 else f"{number} {name}"
        for name, number in found["by_kind"].items()
    ]
    verb = "is" if found["items"] == 1 else "are"
    return f"{found['items']} of {result['n']} test {kind.noun}s {verb} in the training data ({', '.join(how)})"
