"""The sides of a comparison: where their answers are read, which of them belong together, and which items were trained on.

No torch.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.run_folder import as_dict, required
from slimtune.evaluate import answer_file, kinds
from slimtune.evaluate.judge.text import some
from slimtune.evaluate.kinds.choice_figures import labels_in
from slimtune.evaluate.kinds.kind import Answer, Answers

# The kinds of matches with the training data, strongest first. A shared context alone does not give an answer away.
DUPLICATES = ("exact", "normalised", "near duplicate")
SHARED_CONTEXT = "shared context"

# Names that say nothing without their folder's.
_GENERIC = ("tuned", "base", "answers")
_AGAIN = "evaluate it again"


@dataclass(frozen=True, slots=True)
class Contender:
    """name: how a person knows it. answers: of its model. asked: the line of `items.jsonl` by id, where there is one.

    place: where the answers are from. notes: what a reader must know, e.g. that the evaluation is not complete.
    """

    name: str
    answers: Answers
    asked: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    place: str = ""
    notes: tuple[str, ...] = ()


def read(place: Path) -> Contender:
    """The contender at a place on the disk.

    place: a run's folder (its tuned model; `RUN:base` is its base model), a result folder of `slimtune evaluate`, or a
    JSONL file of answers. Raises SlimtuneError where there are no results, or unreadable ones.
    """
    path, side = place, ""
    if not inputs.exists(place) and (named := re.fullmatch("(.+):(tuned|base)", str(place))):
        path, side = Path(named[1]), named[2]
    if inputs.exists(path) and not inputs.is_folder(path):
        name = f"{path.parent.name} {path.stem}" if path.stem in _GENERIC else path.stem
        return _contender(name, path, str(place))
    if not inputs.is_folder(path):
        fix = "name one, or RUN:base for a run's base model"
        raise fail("there is no such run, result folder or file", where=str(place), fix=fix)
    folder = path / "eval" if inputs.is_folder(path / "eval") else path
    name, single = _name(path, folder), folder / "answers.jsonl"
    if not inputs.exists(single):
        return _contender(f"{name} base" if side == "base" else name, folder / f"{side or 'tuned'}.jsonl", str(place))
    if side:
        what = f"the folder has only one model's answers, not those of {side}"
        raise fail(what, where=str(place), fix=f"leave out ':{side}'")
    return _contender(name, single, str(place))


def distinct(contenders: Sequence[Contender]) -> list[Contender]:
    """The contenders under distinct names: a name that occurs twice gets its place added."""
    names = Counter(contender.name for contender in contenders)
    return [
        replace(contender, name=f"{contender.name} ({contender.place})")
        if names[contender.name] > 1 and contender.place
        else contender
        for contender in contenders
    ]


def question(item: Mapping[str, Any]) -> str:
    """What an item asked, as text: the message, or every message with its role where there are several."""
    messages = item.get("messages") or []
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _contender(name: str, file: Path, place: str) -> Contender:
    answers = answer_file.read(file)
    questions = file.with_name("items.jsonl")
    asked = {item["id"]: item for item in answer_file.read(questions)} if inputs.exists(questions) else {}
    evaluation = required(file.parent, "evaluation.json")
    notes = []
    if evaluation.get("complete") is False:
        items = as_dict(evaluation.get("data")).get("items")
        notes.append(f"the evaluation of {name} is not complete: {len(answers)} of {items or 'unknown'} items")
    known = contaminated(required(file.parent, "contamination.json"), answers)
    # The base model was not trained on what was looked through.
    if known["items"] and file.stem != "base":
        notes.append(f"{known['items']} of {len(answers)} items are in the training data of {name}")
    return Contender(name, answers, asked, place, tuple(notes))


def _name(path: Path, folder: Path) -> str:
    """A run is known by its recipe and time, an evaluated model by its own name."""
    manifest = required(path, "manifest.json")
    if manifest:
        return f"{manifest.get('name') or path.resolve().parent.name} {manifest.get('run_id') or path.resolve().name}"
    target = as_dict(required(folder, "evaluation.json").get("target"))
    return str(target.get("name") or path.resolve().name)


# Which answers belong together ----------------------------------------------------------------------------------------


def pair(
    sides: Sequence[Contender],
    *,
    found: Sequence[Problem] = (),
    whole: bool = False,
    alike: bool = False,
    labels: Sequence[str] | None = None,
) -> list[list[Answer]]:
    """What `common` returns. Raises SlimtuneError with the problems that the caller `found`, and all `problems`."""
    if told := [*found, *problems(sides, whole=whole, alike=alike, labels=labels)]:
        raise SlimtuneError(told, summary="these results cannot be compared")
    return common(sides)


def problems(
    sides: Sequence[Contender], *, whole: bool = False, alike: bool = False, labels: Sequence[str] | None = None
) -> list[Problem]:
    """Why these answers cannot be compared. What is wrong with one side alone comes first, and alone.

    whole: also tell of items that not all sides answered. alike: also of different prompts and orders of the choices.
    labels: also of answers outside them.
    """
    found = [problem for side in sides for problem in _own_problems(side.name, side.answers)]
    named = {side.name: kinds.name_of(side.answers[0]) for side in sides if side.answers}
    if len(set(named.values())) > 1:
        told = ", ".join(f"{name} is {kind}" for name, kind in named.items())
        found.append(Problem(f"different kinds: {told}", "results", "compare evaluations of one kind"))
    if found:
        return found
    for other in sides[1:]:
        found += _differences(sides[0], other, whole=whole, alike=alike)
    if not whole and not common(sides)[0]:
        found.append(Problem("no item was answered by all", "results", "evaluate them on the same file"))
    if not found and labels is not None:
        answers = [answer for side in sides for answer in side.answers]
        used = labels_in([{key: answer[key] for key in ("gold", "predicted")} for answer in answers])
        if unknown := [label for label in used if label not in labels]:
            what = f"answers outside {', '.join(labels)}: {some(unknown)}"
            found.append(Problem(what, "labels", "name every possible answer"))
    return found


def contaminated(contamination: Mapping[str, Any], answers: Answers) -> dict[str, Any]:
    """What the contamination check says of these answers.

    contamination: of `contamination.json`, or empty. Returns items (how many are in the training data), by_kind,
    shared_context (how many only share their context with it) and ids, in the order of the answers.
    """
    known = {item["id"]: item["kind"] for item in contamination.get("items") or ()}
    ids = [answer["id"] for answer in answers if known.get(str(answer["id"])) in DUPLICATES]
    counts = Counter(known.get(str(answer["id"])) for answer in answers)
    return {
        "items": len(ids),
        "by_kind": {kind: counts[kind] for kind in DUPLICATES if counts[kind]},
        "shared_context": counts[SHARED_CONTEXT],
        "ids": ids,
    }


def common(sides: Sequence[Contender]) -> list[list[Answer]]:
    """Each side's answers to the items that all sides answered, in the order of the first side."""
    by_id = [{answer["id"]: answer for answer in side.answers} for side in sides]
    shared = [key for key in by_id[0] if all(key in rows for rows in by_id)]
    return [[rows[key] for key in shared] for rows in by_id]


def _own_problems(name: str, answers: Answers) -> list[Problem]:
    if not answers:
        return [Problem("no answers", name, "run slimtune evaluate first")]
    found = []
    named = sorted({kinds.name_of(answer) for answer in answers})
    if len(named) > 1:
        found.append(Problem(f"its answers are of different kinds: {', '.join(named)}", name, _AGAIN))
    elif named[0] not in kinds.KINDS:
        found.append(Problem(f"unknown kind '{named[0]}'", name, f"use one of {', '.join(kinds.KINDS)}"))
    else:
        kind = kinds.KINDS[named[0]]
        for key in ("id", *kind.needed):
            # Without an answer, `predicted` is there and null.
            if lacking := sum(key not in one or (one[key] is None and key != "predicted") for one in answers):
                found.append(Problem(f"{lacking} of {len(answers)} answers lack {key}", name, _AGAIN))
        if not found:
            faults = [(answer["id"], kind.fault(answer)) for answer in answers]
            found += [Problem(what, f"{name}, item {key}", _AGAIN) for key, what in faults if what]
    times = Counter(answer.get("id") for answer in answers)
    if repeated := [str(key) for key, number in times.items() if number > 1 and key is not None]:
        found.append(Problem(f"repeated ids: {some(repeated)}", name, "give every item its own id"))
    return found


def _differences(first: Contender, other: Contender, *, whole: bool, alike: bool) -> list[Problem]:
    both_names = f"{other.name} and {first.name}"
    ours, theirs = ({answer["id"]: answer for answer in side.answers} for side in (first, other))
    found = []
    for side, rows, others in ((first, ours, theirs), (other, theirs, ours)):
        if whole and (ids := [str(key) for key in rows if key not in others]):
            fix = "evaluate them on the same, complete file"
            found.append(Problem(f"answered by {side.name} only: {some(ids)}", both_names, fix))
    checked = [kinds.of(first.answers[0]).same]
    if alike:
        fix = "evaluate them with the same permutations of the choices"
        checked.append(("prompt_sha256", "different prompts", "use the same data, chat template and settings"))
        checked.append(("permutations", "choices asked in different orders", fix))
    for key, what, fix in checked:
        told = [(name, _told(ours[name], key), _told(theirs[name], key)) for name in ours if name in theirs]
        if ids := [str(name) for name, one, another in told if None not in (one, another) and one != another]:
            found.append(Problem(f"{what}: {some(ids)}", both_names, fix))
    return found


def _told(answer: Answer, key: str) -> Any:
    """None where it is not known: a server that renders the prompt tells no hash, and an ensemble no orders."""
    if key == "permutations":
        return [order["order"] for order in answer.get(key) or ()] or None
    return answer.get(key)
