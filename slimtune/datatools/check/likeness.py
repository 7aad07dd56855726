"""Rows that repeat or contradict others, that nearly do, or that share an id."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from slimtune.core.findings import Finding, refused
from slimtune.data.duplicates.question_text import squeezed
from slimtune.data.duplicates.repetition import Repetitions, key, repeated
from slimtune.data.records import Conversation


@dataclass(slots=True)
class Likeness:
    """Keeps eight bytes a row for each thing that is compared, and no texts."""

    _repetitions: Repetitions = field(default_factory=Repetitions)
    _folded: array[int] = field(default_factory=lambda: array("Q"))
    _ids: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, conversation: Conversation) -> None:
        self._repetitions.add(conversation)
        mode, identifier = str(conversation.meta.get("mode")), conversation.meta.get("id")
        self._folded.append(key(mode, *(squeezed(text) for message in conversation.messages for text in message.texts)))
        # 0 stands for a row without an id, which repeats nobody's.
        self._ids.append(0 if identifier is None else key(conversation.path, mode, str(identifier)))

    def findings(self) -> list[Finding]:
        """Equal and contradicting rows are errors, as for the loader; alike rows and repeated ids are warnings."""
        found = [refused(one.problem, one.kind) for one in self._repetitions.find()]
        where = self._repetitions.where
        told = {row for rows in self._repetitions.same_prompts() for row in rows}
        for rows in repeated(self._folded):
            alike = [row for row in rows if row not in told]
            for row in alike[1:]:
                what = f"{where(alike[0])} and {where(row)} differ only in width, case or spacing"
                found.append(Finding("warning", what, "keep one of them", where(row), "alike-rows"))
        for rows in repeated(self._ids):
            for row in rows[1:] if self._ids[rows[0]] else ():
                what = f"the id is used twice: {where(rows[0])} and {where(row)}"
                found.append(Finding("warning", what, "give each question its own id", where(row), "repeated-id"))
        return found
