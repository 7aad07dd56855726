"""The keys by which a row shows that it compares or rates answers: `chosen` and `rejected`, `kto_tag`, `label`.

Such a row is no example for supervised fine-tuning, whatever other layout its keys would fit: one of its answers may be
a bad one. `data/preferences.py` reads it.
"""

import functools
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from slimtune.core.errors import Problem

RecordKind = Literal["preference", "unpaired"]
"""preference: two answers to a prompt, a chosen and a rejected one. unpaired: one answer, rated good or bad."""
NAMES: Mapping[str, str] = {"preference": "preference pairs", "unpaired": "rated answers"}
"""What people call rows of each kind."""

ANSWERS = ("completion", "output", "response", "answer")
"""Keys of a prompt's answer, in the order in which they are looked for."""
LISTS = ("messages", "conversations", "conversation")
"""Keys of a list of turns."""

# Words that say which of two answers is meant, alone or around a noun: "rejected", "rejected_response", "answer_chosen".
_REJECTED = ("rejected", "reject", "non preferred", "nonpreferred", "dispreferred")
# These say so only beside a rejected answer: `accepted_answer` alone is an answer like any other.
_CHOSEN = ("chosen", "accepted", "preferred")
# These say so only together, and around a noun.
_PAIRS = (("good", "bad"), ("better", "worse"), ("best", "worst"), ("positive", "negative"), ("winning", "losing"))
_RANKED = ("response j", "response k")
_NOUNS = {
    *("answer", "chat", "code", "completion", "content", "conversation", "dialog", "dialogue", "generation", "message"),
    *("output", "reply", "replie", "response", "solution", "summary", "text", "translation", "turn"),
}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_MOST_LAYOUTS, _LONGEST_KEY = 256, 60


@dataclass(frozen=True, slots=True)
class Marks:
    """What a row's keys say. chosen, rejected: the key of that answer, "" for none. label: the key of the rating."""

    kind: RecordKind
    chosen: str = ""
    rejected: str = ""
    label: str = ""

    @property
    def what(self) -> str:
        """ "preference pairs ('chosen', 'rejected')"."""
        return f"{NAMES[self.kind]} ({', '.join(map(repr, self.keys))})"

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for key in (self.chosen, self.rejected, self.label) if key)


def refusal(mark: Marks, path: str, line: int, what: str) -> Problem:
    """The problem where one right answer to each prompt is needed: for supervised fine-tuning and for an evaluation."""
    return Problem(what, f"{path}:{line}", advice(mark.kind, path))


def advice(kind: RecordKind, path: str) -> str:
    """What to do with a file of this kind where one right answer to each prompt is needed."""
    name = f"{PurePath(path).stem or 'answers'}.chosen.jsonl"
    these = "these are preferences" if kind == "preference" else "these are ratings"
    good = "the chosen answers" if kind == "preference" else "the good ones"
    command = shlex.join(["slimtune", "data", "import", path, "--chosen", "--output", name])
    return f"{these}; train.method sft and evaluations need one right answer to each prompt. Keep {good}: {command}"


def marks(value: Mapping[str, Any]) -> Marks | None:
    """How the row compares or rates answers; None where it does not. Keys without a value (null, "", []) do not count.

    A `label` rates an answer if it is true or false. Numbers and texts may be the name of a class: they count as a rating
    only where trainers expect one, 0 and 1 beside `completion`, the texts "true" and "false" also beside a list of turns.
    """
    every = _marking_keys(tuple(value))
    if not every:
        return None
    found = {word: key for word, key in every.items() if value[key] not in (None, "", [], {})}
    if not found:
        return None
    if "chosen" in found or any(word in found for word in _REJECTED):
        return Marks("preference", _first(_CHOSEN, found, every), _first(_REJECTED, found, every))
    for better, worse in (*_PAIRS, _RANKED):
        if better in found and worse in found:
            return Marks("preference", found[better], found[worse])
    label = found.get("label", "")
    return Marks("unpaired", label=label) if label and _rates(label, value) else None


def is_mark(key: str) -> bool:
    """Whether the key may say how an answer compares, whatever its value."""
    word = _marking(key)
    return bool(word) and not any(word in pair for pair in _PAIRS)


def _first(words: Iterable[str], found: Mapping[str, str], every: Mapping[str, str]) -> str:
    """The key of the first of these words, rather one that has a value; "" for none."""
    words = tuple(words)
    return next((known[word] for known in (found, every) for word in words if word in known), "")


def _rates(label: str, value: Mapping[str, Any]) -> bool:
    rating = value[label]
    if "kto" in label.lower():
        return True
    if isinstance(rating, bool):
        return any(key in value for key in (*ANSWERS, *LISTS))
    written = str(rating).lower() if isinstance(rating, int | str) else ""
    if written in ("true", "false"):
        return any(key in value for key in ("completion", *LISTS))
    return written in ("0", "1") and "completion" in value


@functools.lru_cache(_MOST_LAYOUTS)
def _marking_keys(keys: tuple[str, ...]) -> Mapping[str, str]:
    """The words of the keys that may say how an answer compares, each with its first key. Rows of a file are alike."""
    found: dict[str, str] = {}
    for key in keys:
        if word := _marking(key):
            found.setdefault(word, key)
    return found


def _marking(key: str) -> str:
    """The words of a key that may say how its answer compares ("chosen", "label", …); "" for none."""
    words = [word.lower() for word in _WORD.findall(key)] if len(key) <= _LONGEST_KEY else []
    text = " ".join(words)
    if text in ("label", "kto tag", "kto label"):
        return "label"
    if text in _RANKED:
        return text
    side = " ".join(word for word in words if word.removesuffix("s") not in _NOUNS)
    paired = any(side in pair for pair in _PAIRS) and side != text
    return side if paired or side in _CHOSEN or side in _REJECTED else ""
