"""Two or more contenders on the same items: which is better, by how much, how sure, and on which items they differ."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.evaluate import kinds
from slimtune.evaluate.judge import difference
from slimtune.evaluate.judge.contenders import Contender, distinct, pair, question
from slimtune.evaluate.judge.text import excerpt, p_value
from slimtune.evaluate.kinds.kind import Answers, Kind

_TEXT_LENGTH = 1500


def compare(contenders: Sequence[Contender], *, alpha: float = 0.05) -> dict[str, Any]:
    """Compare contenders item by item on what all of them answered; returns plain data.

    contenders: two or more, of one kind; the first is the reference. Names that occur twice get their place added.
    alpha: level of the two-sided tests; the intervals of the differences cover 1 - alpha.

    kind, n, alpha, labels, gold and majority (multiple choice): of the items that are compared.
    contenders: name, place, mode, left_out (how many of its answers are not compared), and figures of `kinds.measure`.
    pairs: every two of them, those with the reference first: `reference` and `contender` (names), `sentence`, and what
        `difference.measure` returns. `adjusted_p_value` is Holm's over all pairs, and `verdict` the contender's by it.
        `items_needed` (at alpha / number of pairs) is there if the verdict is "cannot tell".
    adjustment: "holm", or None for a single pair.
    flips: the items that some have right and others wrong, or the `Kind.most_apart` items on which they differ most.
    notes: what a reader must know, e.g. that prompts or modes differ, or what was left out.

    Raises SlimtuneError for fewer than two contenders, and with what `contenders.problems` finds.
    Source of the adjustment: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65–70.
    """
    contenders = distinct(contenders)
    sides = pair(contenders, found=_too_few(contenders))
    kind, n = kinds.of(sides[0][0]), len(sides[0])
    frame = kind.frame(sides[0], kind.frame([answer for side in sides for answer in side], None).get("labels"))
    result: dict[str, Any] = {"kind": kind.name, "n": n, "alpha": alpha, **frame}
    result["contenders"] = [
        {
            "name": contender.name,
            "place": contender.place,
            "mode": _modes(answers),
            "left_out": len(contender.answers) - n,
            "figures": kinds.measure(answers, labels=frame.get("labels")),
        }
        for contender, answers in zip(contenders, sides, strict=True)
    ]
    result["pairs"] = _pairs(kind, result, sides)
    result["adjustment"] = "holm" if len(contenders) > 2 else None
    result["flips"] = _flips(kind, contenders, sides)
    result["notes"] = _notes(contenders, sides)
    return result


def require_several(contenders: Sequence[Contender]) -> None:
    """Raise SlimtuneError for fewer than two contenders, or the same one twice, before any of them is asked."""
    if problems := _too_few(contenders):
        raise SlimtuneError(problems)


def _too_few(contenders: Sequence[Contender]) -> list[Problem]:
    times = Counter(contender.name for contender in contenders)
    problems = [Problem("is given twice", name, "name each once") for name, number in times.items() if number > 1]
    if len(contenders) < 2:
        problems.append(Problem("a comparison needs two or more", "results", "name another run, folder or file"))
    return problems


def _pairs(kind: Kind, result: Mapping[str, Any], sides: Sequence[Answers]) -> list[dict[str, Any]]:
    from statsmodels.stats.multitest import multipletests

    n, alpha = result["n"], result["alpha"]
    both = list(combinations(zip(result["contenders"], sides, strict=True), 2))
    changes = [kind.change(one, other) for (_, one), (_, other) in both]
    found = [difference.measure(kind, change, alpha=alpha) for change in changes]
    adjusted = multipletests([one["p_value"] for one in found], method="holm")[1]
    pairs = []
    for ((first, _), (second, _)), change, measured, p in zip(both, changes, found, map(float, adjusted), strict=True):
        verdict = difference.decide(kind, measured, n, alpha, p)
        needed = difference.items_needed(kind, change, alpha / len(both)) if verdict == "cannot tell" else None
        entry = {"reference": first["name"], "contender": second["name"], **measured}
        entry |= {"adjusted_p_value": p, "verdict": verdict, "items_needed": needed}
        scores = [f"{one['name']} {kind.score_name}{kind.shown(one['figures'])}" for one in (first, second)]
        evidence = [difference.tested(kind, measured)]
        if measured["p_value"] != p:
            evidence.append(f"Holm-adjusted {p_value(p)}")
        told = {**entry, "n": n, "alpha": alpha, "caveats": []}
        entry["sentence"] = difference.sentence(kind, told, change=" → ".join(scores), evidence=evidence)
        pairs.append(entry)
    return pairs


def _flips(kind: Kind, contenders: Sequence[Contender], sides: Sequence[Answers]) -> list[dict[str, Any]]:
    apart = [answers for answers in zip(*sides, strict=True) if kind.spread(answers) > 0]
    apart = sorted(apart, key=kind.spread, reverse=True)[: kind.most_apart]
    asked = {key: item for contender in reversed(contenders) for key, item in contender.asked.items()}
    return [
        {
            "id": first["id"],
            "source": first.get("source") or "",
            "where": first.get("where") or "",
            "gold": first.get("gold"),
            "reference": excerpt(first.get("reference") or "", _TEXT_LENGTH) or None,
            "prompt": excerpt(question(asked[first["id"]]), _TEXT_LENGTH) if first["id"] in asked else None,
            "choices": dict(asked.get(first["id"], {}).get("choices") or {}),
            "answers": [kind.told(answer) for answer in (first, *others)],
        }
        for first, *others in apart
    ]


def _modes(answers: Answers) -> str:
    return ", ".join(sorted({str(answer.get("mode") or "direct") for answer in answers}))


def _notes(contenders: Sequence[Contender], sides: Sequence[Answers]) -> list[str]:
    notes = [note for contender in contenders for note in contender.notes]
    n = len(sides[0])
    notes += [
        f"{len(one.answers) - n} of the {len(one.answers)} items of {one.name} are left out, because not all contenders "
        "answered them"
        for one in contenders
        if len(one.answers) > n
    ]
    notes += _differing("modes", contenders, [_modes(answers) for answers in sides])
    orders = [max(len(answer.get("permutations") or [answer]) for answer in answers) for answers in sides]
    notes += _differing("numbers of orders of the choices", contenders, [str(number) for number in orders])
    for contender, answers in zip(contenders[1:], sides[1:], strict=True):
        hashes = zip(*([row.get("prompt_sha256") for row in side] for side in (sides[0], answers)), strict=True)
        if differ := sum(bool(one and other and one != other) for one, other in hashes):
            what = f"{contender.name} and {contenders[0].name} were asked {differ} of {n} items in different prompts"
            notes.append(f"{what}, so the difference is not of the models alone")
    return notes


def _differing(what: str, contenders: Sequence[Contender], values: Sequence[str]) -> list[str]:
    """ "different modes: direct for base, tuned; cot for cot"; nothing if all values are the same."""
    names: dict[str, list[str]] = {}
    for contender, value in zip(contenders, values, strict=True):
        names.setdefault(value, []).append(contender.name)
    if len(names) == 1:
        return []
    return [f"different {what}: " + "; ".join(f"{value} for {', '.join(who)}" for value, who in names.items())]
