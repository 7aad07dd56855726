"""Two or more contenders on the same items: which is better, by how much, how sure, and on which items they differ.

Models, prompts and ways to combine answers can be compared: all that is needed is their answers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.evaluate import kinds
from slimtune.evaluate.judge import difference, figures, pair
from slimtune.evaluate.judge.contenders import Contender, distinct, question
from slimtune.evaluate.judge.text import excerpt, p_value
from slimtune.evaluate.kinds.kind import Answers, Kind

_PROMPT_LENGTH = _TEXT_LENGTH = 1500


def compare(contenders: Sequence[Contender], *, alpha: float = 0.05) -> dict[str, Any]:
    """Compare contenders item by item on what all of them answered; returns plain data.

    contenders: two or more, of one kind; the first is the reference. Contenders of one name are told apart by place.
    alpha: level of the two-sided tests; the intervals of the differences cover 1 - alpha.

    kind, n, alpha, labels, gold and majority (multiple choice): of the items that are compared.
    contenders: name, place, mode, left_out (how many of its answers are not compared) and figures, see `figures`.
    pairs: every two of them, those with the reference first: `reference`, `contender` (names), the difference as in
        `difference.measure`; `adjusted_p_value`, Holm's over all pairs; `verdict` of the contender by it, see
        `difference.decide`; if it is "cannot tell", `items_needed` (at alpha / number of pairs); `sentence`.
    adjustment: "holm", or None for a single pair.
    flips: id, gold, prompt (excerpt), choices, and each contender's answer. Multiple choice: the items that some have
        right and others wrong, in order. Otherwise the items on which they differ most, at most 50.
    notes: what a reader must know, e.g. that prompts or modes differ, or what was left out.

    Raises SlimtuneError with everything that makes a comparison impossible: fewer than two contenders, or what
    `pair.problems` finds.
    Source of the adjustment: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65–70.
    """
    contenders = distinct(contenders)
    times = Counter(contender.name for contender in contenders)
    problems = [Problem("is given twice", name, "name each once") for name, number in times.items() if number > 1]
    if len(contenders) < 2:
        problems.append(Problem("a comparison needs two or more", "results", "name another run, folder or file"))
    answered = [(contender.name, contender.answers) for contender in contenders]
    if problems := problems + pair.problems(answered):
        raise SlimtuneError(problems, summary="these results cannot be compared")
    sides = pair.pair(answered)
    kind, n = kinds.of(sides[0]), len(sides[0])
    frame = kind.frame(sides[0], kind.frame([answer for side in sides for answer in side], None).get("labels"))
    result: dict[str, Any] = {"kind": kind.name, "n": n, "alpha": alpha, **frame}
    result["contenders"] = [
        {
            "name": contender.name,
            "place": contender.place,
            "mode": _modes(answers),
            "left_out": len(contender.answers) - n,
            "figures": figures.measure(answers, labels=frame.get("labels")),
        }
        for contender, answers in zip(contenders, sides, strict=True)
    ]
    result["pairs"] = _pairs(kind, result, sides)
    result["adjustment"] = "holm" if len(contenders) > 2 else None
    result["flips"] = _flips(kind, contenders, sides)
    result["notes"] = _notes(contenders, sides)
    return result


def _pairs(kind: Kind, result: Mapping[str, Any], sides: Sequence[Answers]) -> list[dict[str, Any]]:
    from statsmodels.stats.multitest import multipletests

    n, alpha = result["n"], result["alpha"]
    both = list(combinations(range(len(sides)), 2))
    changes = [kind.change(sides[one], sides[other]) for one, other in both]
    found = [difference.measure(kind, change, alpha=alpha) for change in changes]
    adjusted = multipletests([one["p_value"] for one in found], method="holm")[1]
    pairs = []
    for (one, other), change, measured, p in zip(both, changes, found, map(float, adjusted), strict=True):
        reference, contender = result["contenders"][one], result["contenders"][other]
        verdict = difference.decide(kind, measured, n, alpha, p)
        needed = difference.items_needed(kind, change, alpha / len(both)) if verdict == "cannot tell" else None
        pairs.append(
            {
                "reference": reference["name"],
                "contender": contender["name"],
                **measured,
                "adjusted_p_value": p,
                "verdict": verdict,
                "items_needed": needed,
            }
        )
        scores = [f"{side['name']} {kind.score_name}{kind.shown(side['figures'])}" for side in (reference, contender)]
        evidence = [difference.tested(kind, measured)]
        if measured["p_value"] != p:
            evidence.append(p_value("Holm-adjusted", p))
        told = {**pairs[-1], "n": n, "alpha": alpha, "caveats": []}
        pairs[-1]["sentence"] = difference.sentence(kind, told, change=" → ".join(scores), evidence=evidence)
    return pairs


def _flips(kind: Kind, contenders: Sequence[Contender], sides: Sequence[Answers]) -> list[dict[str, Any]]:
    spreads = [(kind.spread(answers), answers) for answers in zip(*sides, strict=True)]
    apart = sorted((one for one in spreads if one[0] > 0), key=lambda one: -one[0])[: kind.most_apart]
    asked = {key: item for contender in reversed(contenders) for key, item in contender.asked.items()}
    return [_flip(kind, answers, asked.get(answers[0]["id"])) for _, answers in apart]


def _flip(kind: Kind, answers: Answers, item: Mapping[str, Any] | None) -> dict[str, Any]:
    first = answers[0]
    return {
        "id": first["id"],
        "source": first.get("source") or "",
        "where": first.get("where") or "",
        "gold": first.get("gold"),
        "reference": excerpt(first.get("reference") or "", _TEXT_LENGTH) or None,
        "prompt": excerpt(question(item), _PROMPT_LENGTH) if item else None,
        "choices": dict((item or {}).get("choices") or {}),
        "answers": [kind.told(answer) for answer in answers],
    }


def _modes(answers: Answers) -> str:
    return ", ".join(sorted({str(answer.get("mode") or "direct") for answer in answers}))


def _notes(contenders: Sequence[Contender], sides: Sequence[Answers]) -> list[str]:
    notes = [note for contender in contenders for note in contender.notes]
    n = len(sides[0])
    for contender in contenders:
        if left_out := len(contender.answers) - n:
            all_of_them = f"the {len(contender.answers)} items of {contender.name}"
            notes.append(f"{left_out} of {all_of_them} are left out, because not all contenders answered them")
    notes += _differing("modes", contenders, [_modes(answers) for answers in sides])
    orders = [max(len(answer.get("permutations") or [answer]) for answer in answers) for answers in sides]
    notes += _differing("numbers of orders of the choices", contenders, [str(number) for number in orders])
    for contender, answers in zip(contenders[1:], sides[1:], strict=True):
        both = zip(sides[0], answers, strict=True)
        hashes = [(one.get("prompt_sha256"), other.get("prompt_sha256")) for one, other in both]
        if differ := sum(bool(one and other and one != other) for one, other in hashes):
            notes.append(
                f"{contender.name} and {contenders[0].name} were asked {differ} of {n} items in different prompts, so "
                "the difference is not of the models alone"
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
