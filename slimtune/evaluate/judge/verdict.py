"""Is the tuned model better than the base model? Both answered the same held-out items: a paired test."""

from collections.abc import Sequence
from typing import Any

from slimtune.core.units import plural
from slimtune.evaluate import kinds
from slimtune.evaluate.judge import difference, statistics
from slimtune.evaluate.judge.contenders import Contender, contaminated, pair
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

    The difference is tuned minus base. `verdict` is the first that holds of
    - "collapsed": the tuned model gives one answer to nearly everything. Its share is ≥ COLLAPSE_SHARE and exceeds what
      gold or the references have by ≥ COLLAPSE_EXCESS; of labels it is also more than chance explains (one-sided
      binomial test with the gold share, p < alpha). Whatever the score is, such a model does not read the question.
    - "format failure": less than LOW_LABEL_MASS of its probability is on the labels, or less than LOW_ANSWERED of its
      replies are usable. Its score is not what a person who uses it would see.
    - "contaminated": some of the items are in the training data. `contamination` scores both parts.
    - "better", "worse", "cannot tell": see `difference.decide`; `items_needed` says how many items could tell.

    Where the choices were permuted, a question is right if its averaged prediction is. The difference is then of the
    mean over the orders if both models' are known. Histograms, also gold's, count every order.
    Raises SlimtuneError with what `contenders.problems` finds.
    """
    base, tuned = pair([Contender("base", base), Contender("tuned", tuned)], whole=True, alike=True, labels=labels)
    kind, n, pairs = kinds.of(base[0]), len(base), list(zip(base, tuned, strict=True))
    change = kind.change(base, tuned)
    result: dict[str, Any] = {
        "kind": kind.name,
        "mode": str(tuned[0].get("mode") or "direct"),
        "n": n,
        "alpha": alpha,
        **kind.frame(tuned, labels or kind.frame([*base, *tuned], None).get("labels")),
    }
    shown = result.get("labels", [])
    result |= {"base": kinds.figures(base, shown), "tuned": kinds.figures(tuned, shown)}
    result |= difference.measure(kind, change, alpha=alpha, resamples=resamples)
    if kind.unit == "points":
        result["difference_points"] = result["difference"]  # the name in verdicts of older versions
    if change.right:
        rights = list(zip(base, change.right, strict=True))
        result["flips"] = {
            name: [answer["id"] for answer, right in rights if right == flip]
            for name, flip in (("gained", (False, True)), ("lost", (True, False)))
        }
    if kind.has_choices:
        both = [pair for pair in pairs if None not in (one["predicted"] for one in pair)]
        result["both_answered"] = _score(kind, both) if len(both) < n else None
    result |= kind.judged(base, tuned, result)
    found = contaminated(contamination or {}, base)
    result["contamination"] = None if contamination is None else _scored_apart(kind, found, pairs)
    word, failure = kind.failure(result)
    if not word and found["items"]:
        word = "contaminated"
    result["verdict"] = word or difference.decide(kind, result, n, alpha, result["p_value"])
    unsure = result["verdict"] == "cannot tell"
    result["items_needed"] = difference.items_needed(kind, change, alpha) if unsure else None
    result["caveats"] = [*kind.caveats(result), *difference.caveats(kind, result), *_known_caveats(kind, result)]
    result["sentence"] = _sentence(kind, result, failure)
    return result


def _scored_apart(kind: Kind, found: dict[str, Any], pairs: Sequence[tuple[Answer, Answer]]) -> dict[str, Any]:
    """What the contamination check found, with the scores of the clean and of the contaminated items."""
    known = set(found["ids"])
    return {
        **found,
        "clean": _score(kind, [both for both in pairs if both[0]["id"] not in known]),
        "contaminated": _score(kind, [both for both in pairs if both[0]["id"] in known]),
    }


def _score(kind: Kind, pairs: Sequence[tuple[Answer, Answer]]) -> dict[str, Any] | None:
    """Both models' scores on a part of the items, and the test on them; None for no items."""
    if not pairs:
        return None
    base, tuned = map(list, zip(*pairs, strict=True))
    return {
        "n": len(pairs),
        f"base_{kind.score}": kinds.measure(base)[kind.score],
        f"tuned_{kind.score}": kinds.measure(tuned)[kind.score],
        "p_value": difference.test(kind, kind.change(base, tuned))["p_value"],
    }


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
        said.append(f"{plural(found['shared_context'], kind.noun)} {their} context with the training data")
    return said


def _in_training_data(kind: Kind, result: dict[str, Any]) -> str:
    """ "12 of 120 test questions are in the training data (9 exact, 3 near duplicates)"."""
    found = result["contamination"]
    by_kind = found["by_kind"].items()
    how = [plural(number, name) if name == "near duplicate" else f"{number} {name}" for name, number in by_kind]
    verb = "is" if found["items"] == 1 else "are"
    return f"{found['items']} of {result['n']} test {kind.noun}s {verb} in the training data ({', '.join(how)})"
