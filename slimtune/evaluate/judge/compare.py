"""Two or more contenders on the same items: which is better, by how much, how sure, and on which items they part.

What is compared may be models, prompts or ways to combine answers: whatever left result rows behind.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.evaluate.judge import figures, pairing, statistics
from slimtune.evaluate.judge.comparison_text import NOUNS, TESTS, UNITS, as_markdown, as_rows, readable
from slimtune.evaluate.judge.contenders import Contender, Row, distinct, excerpt, question, read, some
from slimtune.evaluate.judge.figures import is_correct, labels_in, question_score
from slimtune.evaluate.judge.thresholds import FEWEST_PAIRS
from slimtune.evaluate.judge.verdict_text import compose, count, interval, p_value, percent, signed
from slimtune.run.report.comparison import as_html

__all__ = ["Contender", "as_html", "as_markdown", "as_rows", "compare", "distinct", "read"]

# What a row cannot do without, and what must be equal for all contenders, by kind.
_NEEDED = {
    "multiple_choice": ("gold",),
    "perplexity": ("nll", "tokens"),
    "generation": ("text", "reference", "chrf"),
}
_EQUAL = {
    "multiple_choice": ("gold", "gold answers"),
    "perplexity": ("tokens", "numbers of tokens: a perplexity compares models of one tokenizer only"),
    "generation": ("reference", "references"),
}
_FURTHEST = 50
_PROMPT_LENGTH = 1500
_TEXT_LENGTH = 1500


def compare(contenders: Sequence[Contender], *, alpha: float = 0.05) -> dict[str, Any]:
    """Compare contenders item by item on what all of them answered; returns plain data.

    contenders: two or more, of one kind; the first is the reference. Contenders of one name are told apart by place.
    alpha: level of the two-sided tests; the intervals of the differences cover 1 - alpha.

    kind, n, alpha, labels, gold and majority (multiple choice): of the items that are compared.
    contenders: name, place, mode, left_out (how many of its rows are not compared) and figures, see `figures`.
    pairs: every two of them, those with the reference first: `reference`, `contender` (names), `difference`
        (contender minus reference) in `difference_unit` with its paired bootstrap interval; `p_value` (exact McNemar,
        or Wilcoxon's signed ranks for perplexity and chrF) and `adjusted_p_value`, Holm's over all pairs; `verdict`
        of the contender: "better", "worse" (adjusted p < alpha; for perplexity and chrF the interval must leave out 0
        on the same side, too) or "cannot tell", then with `items_needed` (at alpha / number of pairs); `sentence`.
        `mcnemar` counts the items lost and gained, for generation those of exact matches.
    adjustment: "holm", or None for a single pair.
    flips: id, gold, prompt (excerpt), choices, and each contender's answer. Multiple choice: the items that some have
        right and others wrong, in order. Otherwise the items on which they are furthest apart, at most 50.
    notes: what a reader must know, e.g. that prompts or modes differ, or what was left out.

    Raises SlimtuneError with everything that makes a comparison impossible: fewer than two contenders, no rows, rows of
    different kinds or without what is needed, repeated ids, no item in common, different golds or references.
    Source of the adjustment: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65–70.
    """
    contenders = distinct(contenders)
    problems = _problems(contenders)
    if problems:
        raise SlimtuneError(problems, summary="these results cannot be compared")
    kind = pairing.kind_of(contenders[0].rows)
    sides = _common(contenders)
    if problems := _disagreements(contenders, sides, kind):
        raise SlimtuneError(problems, summary="these results cannot be compared")

    n = len(sides[0])
    result: dict[str, Any] = {"kind": kind, "n": n, "alpha": alpha}
    if kind == "multiple_choice":
        result |= figures.answer_key(sides[0], labels_in([row for rows in sides for row in rows]))
    result["contenders"] = [
        {
            "name": contender.name,
            "place": contender.place,
            "mode": _modes(rows),
            "left_out": len(contender.rows) - n,
            "figures": figures.measure(rows, labels=result.get("labels")),
        }
        for contender, rows in zip(contenders, sides, strict=True)
    ]
    result["pairs"] = _pairs(result, sides)
    result["adjustment"] = "holm" if len(contenders) > 2 else None
    result["flips"] = _flips(contenders, sides, kind)
    result["notes"] = _notes(contenders, sides)
    return result


# What can be compared -------------------------------------------------------------------------------------------------


def _problems(contenders: Sequence[Contender]) -> list[Problem]:
    problems = []
    if len(contenders) < 2:
        problems.append(Problem("a comparison needs two or more", "contenders", "name another run, folder or file"))
    names = Counter(contender.name for contender in contenders)
    problems += [Problem("is given twice", name, "name each once") for name, times in names.items() if times > 1]
    for contender in contenders:
        problems += _row_problems(contender)
    kinds = {contender.name: pairing.kind_of(contender.rows) for contender in contenders if contender.rows}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{name} is {kind}" for name, kind in kinds.items())
        problems.append(Problem(f"different kinds: {told}", "contenders", "compare evaluations of one kind"))
    if not problems and not _common(contenders)[0]:
        problems.append(Problem("no item was answered by all", "contenders", "evaluate them on the same file"))
    return problems


def _row_problems(contender: Contender) -> list[Problem]:
    name, again = contender.name, "evaluate it again"
    if not contender.rows:
        return [Problem("no result rows", name, "slimtune evaluate … writes them")]
    problems = []
    kinds = sorted({str(row.get("kind", "multiple_choice")) for row in contender.rows})
    needed = _NEEDED.get(kinds[0])
    if len(kinds) > 1:
        problems.append(Problem(f"its rows are of different kinds: {', '.join(kinds)}", name, again))
    elif needed is None:
        problems.append(Problem(f"unknown kind '{kinds[0]}'", name, f"known are {', '.join(_NEEDED)}"))
    else:
        for key in ("id", *needed):
            if lacking := sum(row.get(key) is None for row in contender.rows):
                problems.append(Problem(f"{lacking} of {count(len(contender.rows), 'row')} lack {key}", name, again))
        if kinds == ["multiple_choice"] and (lacking := sum("predicted" not in row for row in contender.rows)):
            problems.append(Problem(f"{lacking} of {count(len(contender.rows), 'row')} lack predicted", name, again))
    times = Counter(row.get("id") for row in contender.rows)
    if repeated := [str(key) for key, number in times.items() if number > 1 and key is not None]:
        problems.append(Problem(f"repeated ids: {some(repeated)}", name, "give every item an id of its own"))
    return problems


def _disagreements(contenders: Sequence[Contender], sides: Sequence[Sequence[Row]], kind: str) -> list[Problem]:
    field, what = _EQUAL[kind]
    reference = contenders[0].name
    return [
        Problem(f"other {what}: {some(differ)}", f"{contender.name} and {reference}", "evaluate them on the same file")
        for contender, rows in zip(contenders[1:], sides[1:], strict=True)
        if (differ := [str(one["id"]) for one, row in zip(sides[0], rows, strict=True) if one[field] != row[field]])
    ]


def _common(contenders: Sequence[Contender]) -> list[list[Row]]:
    """Each contender's rows of the items that all have, in the order of the first."""
    by_id = [{row["id"]: row for row in contender.rows} for contender in contenders]
    shared = [row["id"] for row in contenders[0].rows if all(row["id"] in rows for rows in by_id)]
    return [[rows[key] for key in shared] for rows in by_id]


def _modes(rows: Sequence[Row]) -> str:
    return ", ".join(sorted({str(row.get("mode") or "direct") for row in rows}))


# Two at a time --------------------------------------------------------------------------------------------------------


def _pairs(result: Mapping[str, Any], sides: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    kind, n, alpha = result["kind"], result["n"], result["alpha"]
    found = [
        (result["contenders"][one], result["contenders"][other], *_difference(sides[one], sides[other], kind, alpha))
        for one, other in combinations(range(len(sides)), 2)
    ]
    adjusted = _holm([pair["p_value"] for _, _, pair, _ in found])
    pairs = []
    for (reference, contender, pair, needed_at), p in zip(found, adjusted, strict=True):
        pair = {"reference": reference["name"], "contender": contender["name"], **pair, "adjusted_p_value": p}
        pair["verdict"] = _verdict(pair, kind, n, alpha)
        pair["items_needed"] = needed_at(alpha / len(found)) if pair["verdict"] == "cannot tell" else None
        pair["sentence"] = _sentence({**pair, "n": n, "alpha": alpha, "caveats": []}, reference, contender, kind)
        pairs.append(pair)
    return pairs


def _difference(
    reference: Sequence[Row], contender: Sequence[Row], kind: str, alpha: float
) -> tuple[dict[str, Any], Callable[[float], int | None]]:
    """What two contenders differ by, and a function of the level that says how many items would be needed to tell."""
    both = list(zip(reference, contender, strict=True))
    sizes = None
    if kind == "multiple_choice":
        differences = [100 * (question_score(other) - question_score(one)) for one, other in both]
        right = [(is_correct(one), is_correct(other)) for one, other in both]
    elif kind == "generation":
        differences = [other["chrf"] - one["chrf"] for one, other in both]
        right = [(bool(one.get("exact")), bool(other.get("exact"))) for one, other in both]
    else:
        differences = [other["nll"] - one["nll"] for one, other in both]
        sizes, right = [one["tokens"] for one, _ in both], []
    found: dict[str, Any] = {
        "difference": math.fsum(differences) / (sum(sizes) if sizes else len(both)),
        "difference_interval": list(statistics.paired_bootstrap(differences, sizes, confidence=1 - alpha)),
        "difference_unit": UNITS[kind],
    }
    lost, gained = right.count((True, False)), right.count((False, True))
    if right:
        found["mcnemar"] = {"lost": lost, "gained": gained, "p_value": statistics.mcnemar_exact(lost, gained)}
    if kind == "multiple_choice":
        found["p_value"] = found["mcnemar"]["p_value"]
        return found, lambda level: statistics.items_needed(len(both), lost, gained, alpha=level)
    # The test ranks items, each by its own mean, not tokens.
    ranked = [difference / size for difference, size in zip(differences, sizes, strict=True)] if sizes else differences
    found["p_value"], found["rank_biserial"] = statistics.wilcoxon(ranked)
    return found, lambda level: statistics.items_needed_for_mean(differences, sizes, alpha=level)


def _holm(p_values: Sequence[float]) -> list[float]:
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def _verdict(pair: Mapping[str, Any], kind: str, n: int, alpha: float) -> str:
    if pair["adjusted_p_value"] >= alpha:
        return "cannot tell"
    if kind == "multiple_choice":
        return "better" if pair["mcnemar"]["gained"] > pair["mcnemar"]["lost"] else "worse"
    low, high = pair["difference_interval"]
    agree = (low > 0 or high < 0) and pair["difference"] * pair["rank_biserial"] > 0
    if n < FEWEST_PAIRS or not agree:
        return "cannot tell"
    # A lower perplexity is better, a higher chrF.
    return "better" if (pair["difference"] > 0) == (kind == "generation") else "worse"


def _sentence(pair: dict[str, Any], reference: dict[str, Any], contender: dict[str, Any], kind: str) -> str:
    size, ends, unit = readable(pair)
    evidence = [f"{signed(size)} {unit}, {interval(pair, NOUNS[kind], ends)}", p_value(TESTS[kind], pair["p_value"])]
    if pair["adjusted_p_value"] != pair["p_value"]:
        evidence.append(p_value("Holm-adjusted", pair["adjusted_p_value"]))
    if kind == "multiple_choice":
        # What the test counts is questions, permuted or not.
        size = 100 * (pair["mcnemar"]["gained"] - pair["mcnemar"]["lost"]) / pair["n"]
    return compose(
        pair,
        noun=NOUNS[kind],
        change=f"{reference['name']} {_score(reference, kind)} → {contender['name']} {_score(contender, kind)}",
        evidence="; ".join(evidence),
        observed=f"{abs(size):.1f} {unit}",
        same="both do equally well",
    )


def _score(contender: Mapping[str, Any], kind: str) -> str:
    """The one figure of a contender that is compared: "95.8 %", "perplexity 3.20", "chrF 61.0"."""
    side = contender["figures"]
    if kind == "multiple_choice":
        return percent(side["accuracy"])
    return f"perplexity {side['perplexity']:.2f}" if kind == "perplexity" else f"chrF {side['chrf']:.1f}"


# Where they part ------------------------------------------------------------------------------------------------------


def _flips(contenders: Sequence[Contender], sides: Sequence[Sequence[Row]], kind: str) -> list[dict[str, Any]]:
    items = list(zip(*sides, strict=True))
    if kind == "multiple_choice":
        apart = [rows for rows in items if len({is_correct(row) for row in rows}) > 1]
    else:
        apart = sorted((rows for rows in items if _spread(rows, kind) > 0), key=lambda rows: -_spread(rows, kind))
        apart = apart[:_FURTHEST]
    asked = {key: item for contender in reversed(contenders) for key, item in contender.asked.items()}
    return [_flip(rows, asked.get(rows[0]["id"]), kind) for rows in apart]


def _flip(rows: Sequence[Row], item: Mapping[str, Any] | None, kind: str) -> dict[str, Any]:
    first = rows[0]
    return {
        "id": first["id"],
        "source": first.get("source") or "",
        "where": first.get("where") or "",
        "gold": first["gold"] if kind == "multiple_choice" else None,
        "reference": excerpt(first.get("reference") or "", _TEXT_LENGTH) or None,
        "prompt": excerpt(question(item), _PROMPT_LENGTH) if item else None,
        "choices": dict((item or {}).get("choices") or {}),
        "answers": [_answer(row, kind) for row in rows],
    }


def _answer(row: Row, kind: str) -> dict[str, Any]:
    if kind == "perplexity":
        return {"nats_per_token": _nats_per_token(row)}
    answer: dict[str, Any] = {"text": excerpt(row["text"], _TEXT_LENGTH)} if row.get("text") else {}
    if kind == "generation":
        return {**answer, "chrf": row["chrf"], "exact": bool(row.get("exact"))}
    shares = statistics.probabilities(row.get("logprobs")) or {}
    return {
        **answer,
        "predicted": row["predicted"],
        "correct": is_correct(row),
        "status": figures.status(row),
        "probability": shares.get(row["predicted"]),
    }


def _spread(rows: Sequence[Row], kind: str) -> float:
    """How far the contenders are apart on an item, in chrF points or nats per token."""
    scores = [float(row["chrf"]) if kind == "generation" else _nats_per_token(row) for row in rows]
    return max(scores) - min(scores)


def _nats_per_token(row: Row) -> float:
    return float(row["nll"] / row["tokens"])


# What a reader must know ----------------------------------------------------------------------------------------------


def _notes(contenders: Sequence[Contender], sides: Sequence[Sequence[Row]]) -> list[str]:
    notes = [note for contender in contenders for note in contender.notes]
    n = len(sides[0])
    for contender in contenders:
        if left_out := len(contender.rows) - n:
            notes.append(
                f"{left_out} of the {len(contender.rows)} items of {contender.name} are left out: not all have them"
            )
    notes += _differing("modes", contenders, [_modes(rows) for rows in sides])
    orders = [max(len(row.get("permutations") or [row]) for row in rows) for rows in sides]
    notes += _differing("numbers of orders of the choices", contenders, [str(number) for number in orders])
    for contender, rows in zip(contenders[1:], sides[1:], strict=True):
        hashes = [(one.get("prompt_sha256"), row.get("prompt_sha256")) for one, row in zip(sides[0], rows, strict=True)]
        if differ := sum(bool(one and other and one != other) for one, other in hashes):
            notes.append(
                f"{contender.name} and {contenders[0].name} were asked {differ} of {n} items in different prompts: "
                "the difference is of prompts, not of models alone"
            )
    return notes


def _differing(what: str, contenders: Sequence[Contender], values: Sequence[str]) -> list[str]:
    """ "different modes: direct for base, tuned; cot for cot"; nothing if all values are the same."""
    names: dict[str, list[str]] = {}
    for contender, value in zip(contenders, values, strict=True):
        names.setdefault(value, []).append(contender.name)
    if len(names) == 1:
        return []
    return [f"different {what}: " + "; ".join(f"{value} for {', '.join(who)}" for value, who in names.items())]
