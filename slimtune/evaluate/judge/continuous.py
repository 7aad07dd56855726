"""The verdict on what has no single right letter: texts that are read (perplexity) and replies that are written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from slimtune.evaluate.judge import figures, pairing, statistics
from slimtune.evaluate.judge.figures import Rows
from slimtune.evaluate.judge.thresholds import COLLAPSE_EXCESS, COLLAPSE_SHARE, FEWEST_PAIRS, LOW_ANSWERED
from slimtune.evaluate.judge.verdict_text import (
    compose,
    contamination_caveats,
    count,
    interval,
    p_value,
    percent,
    signed,
)

_NOUN = {"perplexity": "text", "generation": "prompt"}
_UNIT = {"perplexity": "nats per token", "generation": "chrF points"}
# A lower perplexity is better, a higher chrF.
_BETTER = {"perplexity": -1, "generation": 1}
_FIGURES = {"perplexity": figures.perplexity, "generation": figures.generation}
_SCORE = {"perplexity": "perplexity", "generation": "chrf"}
_EXCERPT = 40


def judge_continuous(
    base: Rows,
    tuned: Rows,
    *,
    kind: str,
    alpha: float = 0.05,
    contamination: dict[str, Any] | None = None,
    resamples: int = statistics.RESAMPLES,
) -> dict[str, Any]:
    """Compare two models text by text; returns plain data for `eval/verdict.json`.

    base, tuned: one dict a text, in any order, with what `figures.perplexity` or `figures.generation` reads.
    kind: "perplexity" or "generation". alpha, contamination, resamples: see `verdict.judge`.

    `difference`, tuned minus base, is in nats per token over all tokens (its exponential is the ratio of the
    perplexities), or in points of mean chrF; `difference_unit` says which. `verdict` is the first that holds of
    - "collapsed" (generation): one reply makes up ≥ COLLAPSE_SHARE of the tuned model's, ≥ COLLAPSE_EXCESS more than
      any text makes up of the references.
    - "format failure" (generation): half of the replies or more are cut off, empty or missing.
    - "contaminated": some of the texts are in the training data. `contamination` scores the others apart.
    - "better", "worse": the bootstrap interval of the difference leaves out 0, the signed-rank test of the differences
      text by text has p < alpha, and both point the same way.
    - "cannot tell": otherwise, and always with fewer than FEWEST_PAIRS texts.

    Raises SlimtuneError if the texts do not pair up, repeat an id, lack a field, or have another number of tokens.
    """
    base, tuned = pairing.pair(base, tuned, kind=kind)
    found = pairing.contaminated(contamination, base)
    result: dict[str, Any] = {
        "kind": kind,
        "n": len(base),
        "alpha": alpha,
        "base": _FIGURES[kind](base),
        "tuned": _FIGURES[kind](tuned),
        "difference_unit": _UNIT[kind],
        **_difference(base, tuned, kind, alpha, resamples),
        "contamination": found and {**found, **_scored_apart(base, tuned, kind, set(found["ids"]))},
        "items_needed": None,
    }
    if kind == "generation":
        result |= _exact_matches(base, tuned)
        result["collapse"] = _collapse(base, result)
    result["verdict"] = _verdict(result)
    if result["verdict"] == "cannot tell":
        result["items_needed"] = statistics.items_needed_for_mean(*_differences(base, tuned, kind), alpha=alpha)
    result["caveats"] = _caveats(result)
    result["sentence"] = _perplexity_sentence(result) if kind == "perplexity" else _generation_sentence(result)
    return result


def _verdict(result: dict[str, Any]) -> str:
    if result.get("collapse", {}).get("collapsed"):
        return "collapsed"
    if result["kind"] == "generation" and result["tuned"]["unusable"] >= LOW_ANSWERED * result["n"]:
        return "format failure"
    if result["contamination"] and result["contamination"]["items"]:
        return "contaminated"
    agree = result["difference"] * result["rank_biserial"] > 0
    if result["n"] >= FEWEST_PAIRS and _leaves_out_zero(result) and result["p_value"] < result["alpha"] and agree:
        return "better" if result["difference"] * _BETTER[result["kind"]] > 0 else "worse"
    return "cannot tell"


def _leaves_out_zero(result: dict[str, Any]) -> bool:
    low, high = result["difference_interval"]
    return bool(low > 0 or high < 0)


def _differences(base: Rows, tuned: Rows, kind: str) -> tuple[list[float], list[float] | None]:
    """Tuned minus base for each text, and the sizes that their sum is divided by (None: the number of texts)."""
    pairs = list(zip(base, tuned, strict=True))
    if kind == "generation":
        return [t["chrf"] - b["chrf"] for b, t in pairs], None
    return [t["nll"] - b["nll"] for b, t in pairs], [b["tokens"] for b, _ in pairs]


def _difference(base: Rows, tuned: Rows, kind: str, alpha: float, resamples: int) -> dict[str, Any]:
    differences, sizes = _differences(base, tuned, kind)
    p, correlation = _rank_test(differences, sizes)
    return {
        "difference": math.fsum(differences) / sum(sizes or [1.0] * len(differences)),
        "difference_interval": list(
            statistics.paired_bootstrap(differences, sizes, confidence=1 - alpha, resamples=resamples)
        ),
        "p_value": p,
        "rank_biserial": correlation,
    }


def _rank_test(differences: list[float], sizes: list[float] | None) -> tuple[float, float]:
    """`statistics.wilcoxon` of each text's own mean: it ranks texts, not tokens."""
    if sizes is None:
        return statistics.wilcoxon(differences)
    return statistics.wilcoxon([difference / size for difference, size in zip(differences, sizes, strict=True)])


def _scored_apart(base: Rows, tuned: Rows, kind: str, known: set[Any]) -> dict[str, Any]:
    return {
        "clean": _score(base, tuned, kind, lambda key: key not in known),
        "contaminated": _score(base, tuned, kind, lambda key: key in known),
    }


def _score(base: Rows, tuned: Rows, kind: str, keep: Callable[[Any], bool]) -> dict[str, Any] | None:
    """Both models' perplexity or mean chrF on the texts whose id `keep` chooses, and the signed-rank test on them."""
    kept = [(b, t) for b, t in zip(base, tuned, strict=True) if keep(b["id"])]
    if not kept:
        return None
    before, after = [b for b, _ in kept], [t for _, t in kept]
    differences, sizes = _differences(before, after, kind)
    p, _ = _rank_test(differences, sizes)
    name = _SCORE[kind]
    scores = (_FIGURES[kind](rows)[name] for rows in (before, after))
    return {"n": len(kept), **dict(zip((f"base_{name}", f"tuned_{name}"), scores, strict=True)), "p_value": p}


def _exact_matches(base: Rows, tuned: Rows) -> dict[str, Any]:
    pairs = [(b["id"], bool(b.get("exact")), bool(t.get("exact"))) for b, t in zip(base, tuned, strict=True)]
    gained = [key for key, before, after in pairs if after and not before]
    lost = [key for key, before, after in pairs if before and not after]
    p = statistics.mcnemar_exact(len(lost), len(gained))
    return {
        "mcnemar": {"lost": len(lost), "gained": len(gained), "p_value": p},
        "flips": {"gained": gained, "lost": lost},
    }


def _collapse(base: Rows, result: dict[str, Any]) -> dict[str, Any]:
    reply, before = result["tuned"]["commonest"], result["base"]["commonest"]
    reference = figures.commonest([row["reference"] for row in base])
    return {
        "text": reply["text"],
        "share": reply["share"],
        "reference_share": reference["share"],
        "base_share": before["share"],
        "collapsed": result["n"] >= FEWEST_PAIRS
        and reply["share"] >= COLLAPSE_SHARE
        and reply["share"] - reference["share"] >= COLLAPSE_EXCESS,
    }


def _caveats(result: dict[str, Any]) -> list[str]:
    kind, n, verdict = result["kind"], result["n"], result["verdict"]
    noun = _NOUN[kind]
    said = []
    if kind == "generation":
        if result["collapse"]["collapsed"] and result["base"]["commonest"]["share"] >= COLLAPSE_SHARE:
            said.append(f"the base model gives one reply to {result['base']['commonest']['count']} of {n} as well")
        if result["tuned"]["unusable"] and verdict != "format failure":
            said.append(f"{result['tuned']['unusable']} of {n} replies are {_unusable(result['tuned'])}")
        if result["base"]["unusable"]:
            said.append(f"{result['base']['unusable']} of the base model's are {_unusable(result['base'])}")
    if n < FEWEST_PAIRS:
        said.append(f"with fewer than {FEWEST_PAIRS} {noun}s no test can tell")
    elif verdict == "cannot tell" and _leaves_out_zero(result) and result["p_value"] < result["alpha"]:
        said.append(f"most {noun}s changed the other way than the whole")
    elif verdict == "cannot tell" and _leaves_out_zero(result) != (result["p_value"] < result["alpha"]):
        said.append("interval and test do not agree")
    return said + contamination_caveats(result, noun)


def _perplexity_sentence(result: dict[str, Any]) -> str:
    # A difference of logarithms is a ratio: told as a change in percent.
    change, low, high = (100 * math.expm1(value) for value in (result["difference"], *result["difference_interval"]))
    return compose(
        result,
        noun="text",
        change=_scores("perplexity", result["base"]["perplexity"], result["tuned"]["perplexity"]),
        evidence=f"{signed(change)} %, {interval(result, 'text', (low, high))}; {p_value('Wilcoxon', result['p_value'])}",
        observed=f"{abs(change):.1f} %",
        same=_alike(result),
        clean=_clean(result),
    )


def _generation_sentence(result: dict[str, Any]) -> str:
    base, tuned, n = result["base"], result["tuned"], result["n"]
    evidence = [
        f"{signed(result['difference'])} points, {interval(result, 'prompt')}",
        p_value("Wilcoxon", result["p_value"]),
        f"exact match {percent(base['exact'])} → {percent(tuned['exact'])}",
    ]
    failure = ""
    if result["verdict"] == "collapsed":
        reply = " ".join(tuned["commonest"]["text"].split())
        shown = reply if len(reply) <= _EXCERPT else f"{reply[:_EXCERPT]}…"
        failure = f'"{shown}" is the reply to {tuned["commonest"]["count"]} of {count(n, "prompt")};'
    elif result["verdict"] == "format failure":
        failure = f"{tuned['unusable']} of {n} replies are {_unusable(tuned)};"
    return compose(
        result,
        noun="prompt",
        change=_scores("generation", base["chrf"], tuned["chrf"]),
        evidence="; ".join(evidence),
        failure=failure,
        observed=f"{abs(result['difference']):.1f} points",
        same=_alike(result),
        clean=_clean(result),
    )


def _scores(kind: str, before: float, after: float) -> str:
    return f"perplexity {before:.2f} → {after:.2f}" if kind == "perplexity" else f"chrF {before:.1f} → {after:.1f}"


def _alike(result: dict[str, Any]) -> str:
    """Why nothing is said of how many texts it would take."""
    return f"one {_NOUN[result['kind']]} shows no spread" if result["difference"] else "both models are alike"


def _clean(result: dict[str, Any]) -> str:
    """The scores on the texts that are not in the training data; "" if there are none."""
    clean = (result["contamination"] or {}).get("clean")
    if not clean:
        return ""
    name = _SCORE[result["kind"]]
    scores = _scores(result["kind"], clean[f"base_{name}"], clean[f"tuned_{name}"])
    return f"{scores} ({p_value('Wilcoxon', clean['p_value'])})"


def _unusable(side: dict[str, Any]) -> str:
    """ "cut off, empty or failed (6 cut off, 4 empty)"."""
    numbers = {"cut off": side["statuses"]["truncated"], "empty": side["empty"], "failed": side["statuses"]["error"]}
    told = ", ".join(f"{number} {what}" for what, number in numbers.items() if number)
    return f"cut off, empty or failed ({told})"
