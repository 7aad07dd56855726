"""Rows that stand in the files twice, or that answer a prompt differently: what training refuses."""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from slimtune.core.errors import Problem
from slimtune.data.records import Conversation

_SEPARATOR = "\x1f"
_LINE_BITS = 40


class Repetition(NamedTuple):
    """A row that repeats an earlier one, or contradicts it. path: of its file."""

    kind: Literal["duplicate-row", "conflicting-answers"]
    path: str
    problem: Problem


@dataclass(slots=True)
class Repetitions:
    """Rows of one mode are compared. Keeps 24 bytes a row and no texts.

    Two different texts have the same key of 64 bits once in some hundred million files of 100,000 rows.
    """

    _paths: list[str] = field(default_factory=list)
    _places: array[int] = field(default_factory=lambda: array("Q"))
    _prompts: array[int] = field(default_factory=lambda: array("Q"))
    _rows: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, conversation: Conversation) -> None:
        if not self._paths or self._paths[-1] != conversation.path:
            self._paths.append(conversation.path)
        *prompt, answer = conversation.messages
        texts = [text for message in prompt for text in (message.role, *message.texts)]
        prompt_key = key(str(conversation.meta.get("mode")), *texts, *filter(None, [conversation.tools]))
        self._places.append((len(self._paths) - 1) << _LINE_BITS | conversation.line)
        self._prompts.append(prompt_key)
        self._rows.append(key(str(prompt_key), *answer.texts))

    def same_prompts(self) -> Iterator[list[int]]:
        """The numbers of the rows that share a prompt, in the order in which they were added."""
        return repeated(self._prompts)

    def find(self) -> Iterator[Repetition]:
        for rows in self.same_prompts():
            first_of: dict[int, int] = {}
            for row in rows:
                where, answer = self.where(row), self._rows[row]
                path = self._paths[self._places[row] >> _LINE_BITS]
                if answer in first_of:
                    what = f"duplicate rows: {self.where(first_of[answer])} and {where}"
                    yield Repetition("duplicate-row", path, Problem(what, where, "keep one of them"))
                elif first_of:
                    earlier = self.where(next(iter(first_of.values())))
                    what = f"the same input has two different answers: {earlier} and {where}"
                    yield Repetition("conflicting-answers", path, Problem(what, where, "keep the right one"))
                first_of.setdefault(answer, row)

    def where(self, row: int) -> str:
        """ "path:line" of the row with this number."""
        place = self._places[row]
        return f"{self._paths[place >> _LINE_BITS]}:{place & (1 << _LINE_BITS) - 1}"


def repeated(keys: array[int]) -> Iterator[list[int]]:
    """The places of each key that occurs more than once, in the order of the first of them."""
    import numpy as np

    if not keys:
        return
    values = np.frombuffer(keys, np.uint64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    groups: defaultdict[int, set[int]] = defaultdict(set)
    for place in same.tolist():
        groups[int(ordered[place])] |= {int(order[place]), int(order[place + 1])}
    yield from sorted((sorted(places) for places in groups.values()), key=lambda places: places[0])


def key(*parts: str) -> int:
    """64 bits, never 0, that are equal for equal parts."""
    text = "".join(f"{part}{_SEPARATOR}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1
