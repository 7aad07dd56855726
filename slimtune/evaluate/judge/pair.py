"""Which answers of two or more models belong together, and which items are in the training data."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.evaluate import kinds
from slimtune.evaluate.judge.text import some
from slimtune.evaluate.kinds.choice_figures import labels_in
from slimtune.evaluate.kinds.kind import Answer, Answers

NamedAnswers = tuple[str, Answers]
"""A model's name and its answers."""

# Without an answer, `predicted` is there and null.
_NULLABLE = ("predicted",)
_SAME_FILE = "evaluate them on the same, complete file"
_AGAIN = "evaluate it again"
# In the order in which they are told. A shared context alone does not give an answer away.
DUPLICATES = ("exact", "normalised", "near duplicate")
SHARED_CONTEXT = "shared context"


def pair(
    sides: Sequence[NamedAnswers], *, whole: bool = False, alike: bool = False, labels: Sequence[str] | None = None
) -> list[list[Answer]]:
    """Each side's answers to the items that all sides answered, in the order of the first side.

    Raises SlimtuneError with all `problems`.
    """
    if found := problems(sides, whole=whole, alike=alike, labels=labels):
        raise SlimtuneError(found, summary="these results cannot be compared")
    return _common(sides)


def problems(
    sides: Sequence[NamedAnswers], *, whole: bool = False, alike: bool = False, labels: Sequence[str] | None = None
) -> list[Problem]:
    """Why these answers cannot be compared. What is wrong with one side alone comes first, and alone.

    One side: no answers, mixed or unknown kinds, missing fields, contradictions, repeated ids. All sides: different
    kinds, no item in common, different golds, references or numbers of tokens. whole: also items that not all sides
    answered. alike: also different prompts and orders of the choices. labels: also answers outside them.
    """
    found = [problem for name, answers in sides for problem in _own_problems(name, answers)]
    named = {name: kinds.name_of(answers[0]) for name, answers in sides if answers}
    if len(set(named.values())) > 1:
        told = ", ".join(f"{name} is {kind}" for name, kind in named.items())
        found.append(Problem(f"different kinds: {told}", "results", "compare evaluations of one kind"))
    if found:
        return found
    for other in sides[1:]:
        found += _differences(sides[0], other, whole=whole, alike=alike)
    if not whole and not _common(sides)[0]:
        found.append(Problem("no item was answered by all", "results", "evaluate them on the same file"))
    if not found and labels is not None:
        used = labels_in([{key: answer[key] for key in ("gold", "predicted")} for _, rows in sides for answer in rows])
        if unknown := [label for label in used if label not in labels]:
            what = f"answers outside {', '.join(labels)}: {some(unknown)}"
            found.append(Problem(what, "labels", "name every possible answer"))
    return found


def contaminated(contamination: dict[str, Any] | None, answers: Answers) -> dict[str, Any] | None:
    """What the contamination check says of these answers; None if there was no check.

    contamination: the content of `eval/contamination.json`. Returns items (how many are in the training data), by_kind,
    shared_context (how many only share their context with it) and ids, in the order of the answers.
    """
    if contamination is None:
        return None
    known = {str(item["id"]): item["kind"] for item in contamination["items"]}
    ids = [answer["id"] for answer in answers if known.get(str(answer["id"])) in DUPLICATES]
    counts = Counter(known.get(str(answer["id"])) for answer in answers)
    return {
        "items": len(ids),
        "by_kind": {kind: counts[kind] for kind in DUPLICATES if counts[kind]},
        "shared_context": counts[SHARED_CONTEXT],
        "ids": ids,
    }


def _common(sides: Sequence[NamedAnswers]) -> list[list[Answer]]:
    by_id = [{answer["id"]: answer for answer in answers} for _, answers in sides]
    shared = [answer["id"] for answer in sides[0][1] if all(answer["id"] in rows for rows in by_id)]
    return [[rows[key] for key in shared] for rows in by_id]


def _own_problems(name: str, answers: Answers) -> list[Problem]:
    if not answers:
        return [Problem("no answers", name, "run slimtune evaluate first")]
    found = []
    named = sorted({kinds.name_of(answer) for answer in answers})
    if len(named) > 1:
        found.append(Problem(f"its answers are of different kinds: {', '.join(named)}", name, _AGAIN))
    elif named[0] not in kinds.KINDS:
        found.append(Problem(f"unknown kind '{named[0]}'", name, f"known are {', '.join(kinds.KINDS)}"))
    else:
        kind, sound = kinds.KINDS[named[0]], True
        for key in ("id", *kind.needed):
            lacking = sum(key not in answer or (answer[key] is None and key not in _NULLABLE) for answer in answers)
            if lacking:
                sound = False
                found.append(Problem(f"{lacking} of {len(answers)} answers lack {key}", name, _AGAIN))
        if sound:
            faults = [(answer["id"], kind.fault(answer)) for answer in answers]
            found += [Problem(what, f"{name}, item {key}", _AGAIN) for key, what in faults if what]
    times = Counter(answer.get("id") for answer in answers)
    if repeated := [str(key) for key, number in times.items() if number > 1 and key is not None]:
        found.append(Problem(f"repeated ids: {some(repeated)}", name, "give every item its own id"))
    return found


def _differences(first: NamedAnswers, other: NamedAnswers, *, whole: bool, alike: bool) -> list[Problem]:
    (name, answers), (other_name, other_answers) = first, other
    both_names = f"{other_name} and {name}"
    ours, theirs = ({answer["id"]: answer for answer in rows} for rows in (answers, other_answers))
    found = []
    for missing, who in ((ours.keys() - theirs.keys(), name), (theirs.keys() - ours.keys(), other_name)):
        if whole and missing:
            ids = [str(key) for key in (*ours, *theirs) if key in missing]
            found.append(Problem(f"answered by {who} only: {some(ids)}", both_names, _SAME_FILE))
    both = [(key, ours[key], theirs[key]) for key in ours if key in theirs]
    checked = [kinds.of(answers).same]
    if alike:
        checked.append(("prompt_sha256", "different prompts", "use the same data, chat template and settings"))
    for field, what, fix in checked:
        # Servers that render the prompt themselves do not tell its hash.
        told = [(key, one.get(field), another.get(field)) for key, one, another in both]
        if ids := [str(key) for key, one, another in told if None not in (one, another) and one != another]:
            found.append(Problem(f"{what}: {some(ids)}", both_names, fix))
    # An ensemble has combined its members' orders already, and shows none.
    orders = [(key, _orders(one), _orders(another)) for key, one, another in both]
    if alike and (ids := [str(key) for key, one, another in orders if one and another and one != another]):
        fix = "evaluate them with the same permutations of the choices"
        found.append(Problem(f"choices asked in different orders: {some(ids)}", both_names, fix))
    return found


def _orders(answer: Answer) -> list[str]:
    return [order["order"] for order in answer.get("permutations") or ()]
