"""One side of a comparison: the answers of a run, of an evaluated model or of a file, with what was asked. No torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from slimtune.core.errors import fail
from slimtune.core.run_folder import as_dict, mapping
from slimtune.evaluate import answer_file
from slimtune.evaluate.judge import pair
from slimtune.evaluate.kinds.kind import Answers

_SIDES = ("tuned", "base")
# Names that say nothing without their folder's.
_GENERIC = (*_SIDES, "answers")


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
    path, side = _side(place)
    if path.is_file():
        name = f"{path.parent.name} {path.stem}" if path.stem in _GENERIC else path.stem
        return _contender(name, path, str(place))
    if not path.is_dir():
        raise fail(
            "there is no such run, result folder or file",
            where=str(place),
            fix="name one, or RUN:base for a run's base model",
        )
    folder = path / "eval" if (path / "eval").is_dir() else path
    single = folder / "answers.jsonl"
    if single.is_file():
        if side:
            raise fail(
                f"the folder has only one model's answers, not those of {side}",
                where=str(place),
                fix=f"leave out ':{side}'",
            )
        return _contender(_name(path, folder), single, str(place))
    side = side or _SIDES[0]
    name = _name(path, folder) if side == "tuned" else f"{_name(path, folder)} {side}"
    return _contender(name, folder / f"{side}.jsonl", str(place))


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
    messages = item["messages"]
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _side(place: Path) -> tuple[Path, str]:
    """`RUN:base` → (RUN, "base"); a place that exists as it is written is taken as it is."""
    if not place.exists():
        text, _, side = str(place).rpartition(":")
        if side in _SIDES:
            return Path(text), side
    return place, ""


def _contender(name: str, file: Path, place: str) -> Contender:
    answers = answer_file.read(file)
    questions = file.with_name("items.jsonl")
    asked = {item["id"]: item for item in answer_file.read(questions)} if questions.is_file() else {}
    evaluation = _facts(file.parent, "evaluation.json")
    notes = []
    if evaluation.get("complete") is False:
        items = as_dict(evaluation.get("data")).get("items")
        notes.append(f"the evaluation of {name} is not complete: {len(answers)} of {items or 'unknown'} items")
    # The base model was not trained on what was looked through.
    if (
        file.stem != "base"
        and (found := pair.contaminated(_facts(file.parent, "contamination.json") or None, answers))
        and found["items"]
    ):
        notes.append(f"{found['items']} of {len(answers)} items are in the training data of {name}")
    return Contender(name, answers, asked, place, tuple(notes))


def _name(path: Path, folder: Path) -> str:
    """A run is known by its recipe and time, an evaluated model by its own name."""
    manifest = _facts(path, "manifest.json")
    if manifest:
        return f"{manifest.get('name') or path.resolve().parent.name} {manifest.get('run_id') or path.resolve().name}"
    target = as_dict(_facts(folder, "evaluation.json").get("target"))
    return str(target.get("name") or path.resolve().name)


def _facts(folder: Path, name: str) -> dict[str, Any]:
    unreadable: list[str] = []
    facts = mapping(folder, name, unreadable)
    if unreadable:
        raise fail(f"cannot be read: {unreadable[0]}", where=str(folder), fix="evaluate again")
    return facts
