"""Rows that stand in the files twice, that answer a prompt differently, or that share an id."""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from slimtune.core.findings import Finding
from slimtune.data.duplicates import nfkc
from slimtune.data.records import Conversation, Message

_SEPARATOR = b"\x1f"


@dataclass(slots=True)
class Repetitions:
    """Keeps eight bytes a row for each thing that is compared, and where the row is: no texts.

    Two different texts have the same key of 64 bits once in some hundred million files of 100,000 rows.
    """

    _paths: list[str] = field(default_factory=list)
    _places: array[int] = field(default_factory=lambda: array("Q"))
    _prompts: array[int] = field(default_factory=lambda: array("Q"))
    _rows: array[int] = field(default_factory=lambda: array("Q"))
    _folded: array[int] = field(default_factory=lambda: array("Q"))
    _ids: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, conversation: Conversation) -> None:
        if not self._paths or self._paths[-1] != conversation.path:
            self._paths.append(conversation.path)
        *prompt, answer = conversation.messages
        mode = conversation.meta.get("mode")
        prompt_key = _key(str(mode), *_texts(prompt))
        self._places.append((len(self._paths) - 1) << 40 | conversation.line)
        self._prompts.append(prompt_key)
        self._rows.append(_key(str(prompt_key), answer.content))
        folded = [_folded(message.content) for message in conversation.messages]
        self._folded.append(_key(str(mode), *folded))
        identifier = conversation.meta.get("id")
        # 0 stands for a row without an id, which repeats nobody's.
        self._ids.append(0 if identifier is None else _key(conversation.path, str(mode), str(identifier)))

    def findings(self) -> list[Finding]:
        """Equal rows and contradicting ones as errors, since the loader refuses them; alike rows and ids as warnings."""
        found: list[Finding] = []
        rows_seen: set[int] = set()
        for places in _repeated(self._prompts):
            first_of: dict[int, int] = {}
            for place in places:
                row = self._rows[place]
                if row in first_of:
                    what = f"duplicate rows: {self._where(first_of[row])} and {self._where(place)}"
                    found.append(Finding("error", what, "keep one of them", self._where(place), "duplicate-row"))
                elif first_of:
                    earlier = self._where(next(iter(first_of.values())))
                    what = f"the same input has two different answers: {earlier} and {self._where(place)}"
                    fix = "keep the right one"
                    found.append(Finding("error", what, fix, self._where(place), "conflicting-answers"))
                first_of.setdefault(row, place)
                rows_seen.add(place)
        for places in _repeated(self._folded):
            alike = [place for place in places if place not in rows_seen]
            for place in alike[1:]:
                what = f"{self._where(alike[0])} and {self._where(place)} differ only in width, case or spacing"
                found.append(Finding("warning", what, "keep one of them", self._where(place), "alike-rows"))
        for places in _repeated(self._ids):
            for place in places[1:] if self._ids[places[0]] else ():
                what = f"the id is used twice: {self._where(places[0])} and {self._where(place)}"
                fix = "give each question an id of its own"
                found.append(Finding("warning", what, fix, self._where(place), "repeated-id"))
        return found

    def _where(self, place: int) -> str:
        packed = self._places[place]
        return f"{self._paths[packed >> 40]}:{packed & (1 << 40) - 1}"


def _repeated(keys: array[int]) -> Iterator[list[int]]:
    """The places of each key that occurs more than once, in the order of the rows."""
    import numpy as np

    if not keys:
        return
    values = np.frombuffer(keys, np.uint64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    groups: defaultdict[int, set[int]] = defaultdict(set)
    for place in same:
        groups[int(ordered[place])] |= {int(order[place]), int(order[place + 1])}
    yield from sorted((sorted(places) for places in groups.values()), key=lambda places: places[0])


def _texts(messages: list[Message]) -> Iterator[str]:
    for message in messages:
        yield message.role
        yield message.content


def _folded(text: str) -> str:
    return "".join(nfkc.normalised(text).casefold().split())


def _key(*parts: str) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part.encode())
        digest.update(_SEPARATOR)
    return int.from_bytes(digest.digest(), "little") or 1
