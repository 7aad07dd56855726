"""Rows that compare two answers, or rate one, as trainers write them: each becomes one checked record.

A row is written anew in a layout of `data/formats`, once with each of its answers, and read there: turns, reasoning, tool
calls, system prompts and every fault of a text are what they are in conversations.

    the prompt    `prompt` (text or turns), `instruction` with `input`, `question`, `query`, `problem` or `input`.
                  Or a list of turns in `messages`, `conversations` or `input.messages`. Or what two conversations share
    the answers   a text, one turn, a list of turns, or a whole conversation; texts as in HH-RLHF ("Human: … Assistant: …")
                  too. Without a key for the chosen answer it is `completion`, `output`, `response`, `answer`, or the end
                  of the turns
    the rating    true or false; in a table the texts true and false
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePath
from typing import Any, cast

from slimtune.core.errors import Problem
from slimtune.data import formats, loading
from slimtune.data.json_rows import Row, type_name
from slimtune.data.loading import Loaded
from slimtune.data.preference_keys import NAMES, Marks, RecordKind, marks
from slimtune.data.preference_rows import Answered, Taken
from slimtune.data.reading import DataFile
from slimtune.data.records import Conversation, Message, Preference, Unpaired

_TABLES = (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Compared:
    """A row and its record. The other fields are those of a row that becomes a conversation."""

    row: Row
    record: Preference | Unpaired
    nfc_changed: bool
    ignored: tuple[str, ...]
    excluded: int = 0
    empty_system: bool = False

    @property
    def conversation(self) -> Conversation:
        """The prompt with its chosen, or its only answer."""
        return self.record.conversation()

    @property
    def question(self) -> Conversation:
        return as_question(self.record)


@dataclass(slots=True)
class PreferenceFile(DataFile):
    """A file of preferences, or of rated answers; `layout` says which. wanted: report rows of the other kind.

    Without `wanted`, the first rows decide.
    """

    wanted: RecordKind | None = None

    def _usable(self, rows: list[Row]) -> list[Row]:
        self.rows += len(rows)
        return rows

    def _choose(self, rows: list[Row]) -> str | None:
        kind = self.wanted or kind_of(rows) or "preference"
        if self.format != "auto":
            option, value = self.setting or ("data.format", self.format)
            what = f"{option} is {value}, but {NAMES[kind]} are recognised by their keys"
            self.problems.append(Problem(what, self.path, f"set {option} to auto"))
        return kind

    def _convert(self, rows: list[Row], name: str) -> list[Any]:
        read = [
            convert(row, cast(RecordKind, name), path=self.path, system=self.system, problems=self.problems)
            for row in rows
        ]
        return [one for one in read if one]


@dataclass(slots=True)
class AnyFile(PreferenceFile):
    """A file of whichever records its first rows are. kind: of comparisons; None for conversations. refused: comparisons
    are problems, as for supervised training."""

    kind: RecordKind | None = None
    refused: bool = False
    _known: bool = False

    def _usable(self, rows: list[Row]) -> list[Row]:
        if rows and not self._known:
            self.kind, self._known = None if self.refused else kind_of(rows), True
        return PreferenceFile._usable(self, rows) if self.kind else DataFile._usable(self, rows)

    def _choose(self, rows: list[Row]) -> str | None:
        return PreferenceFile._choose(self, rows) if self.kind else DataFile._choose(self, rows)

    def _convert(self, rows: list[Row], name: str) -> list[Any]:
        return PreferenceFile._convert(self, rows, name) if self.kind else DataFile._convert(self, rows, name)


def kind_of(rows: Sequence[Row]) -> RecordKind | None:
    """What most of the first rows are; None where most are neither."""
    kinds = Counter(mark.kind if (mark := marks(row.value)) else None for row in rows[: formats.FIRST_ROWS])
    return kinds.most_common(1)[0][0] if kinds else None


def load_preferences(paths: Sequence[tuple[str, float]], **wish: Any) -> Loaded[Preference]:
    """The checked preferences of all files, in `conversations`. Takes what `loading.load_conversations` takes, and raises
    what it raises."""
    return loading.load(paths, partial(PreferenceFile, wanted="preference"), **wish)


def load_unpaired(paths: Sequence[tuple[str, float]], **wish: Any) -> Loaded[Unpaired]:
    """As `load_preferences`, the rated answers."""
    return loading.load(paths, partial(PreferenceFile, wanted="unpaired"), **wish)


def as_question(record: Preference | Unpaired) -> Conversation:
    """What is judged as the question, and the judgement as its answer: equal records repeat each other, and those that
    differ in the answer alone contradict each other. A prompt may have any number of answers."""
    if isinstance(record, Unpaired):
        asked, judged = record.answer, (Message("assistant", str(record.good)),)
    else:
        # In an order that does not tell which is the better.
        asked = (*sorted((*record.chosen, *record.rejected), key=repr),)
        judged = (Message("assistant", repr(record.chosen)),)
    return replace(record.conversation(), messages=(*record.prompt, *asked, *judged))


def sides(record: Preference | Unpaired) -> list[tuple[str, Conversation]]:
    """Each of its answers behind the prompt, with what it is: "chosen" and "rejected", or "good" or "bad"."""
    if isinstance(record, Unpaired):
        return [("good" if record.good else "bad", record.conversation())]
    return [("chosen", record.conversation("chosen")), ("rejected", record.conversation("rejected"))]


def convert(
    row: Row, kind: RecordKind, *, path: str, system: str | None = None, problems: list[Problem]
) -> Compared | None:
    """The row with `system` in front if it has no system prompt; None if something is added to `problems`."""
    taken = Taken(row, path, system)
    mark = marks(row.value)
    converted: list[Answered] = []
    if mark is None or mark.kind != kind:
        keys = ", ".join(map(repr, row.value)) or "(none)"
        need = "'chosen' and 'rejected'" if kind == "preference" else "'label', which is true or false"
        taken.report(f"the row is none of the {NAMES[kind]}: it has the keys {keys}", f"add {need}, or leave it out")
    else:
        good = _good(taken, mark) if kind == "unpaired" else False
        converted = taken.answers(mark)
    record: Preference | Unpaired | None = None
    if not taken.problems:
        record = _pair(taken, *converted) if kind == "preference" else _rated(taken, *converted, good=good)
    problems += dict.fromkeys(taken.problems)
    if record is None:
        return None
    ignored = dict.fromkeys([*taken.ignored, *(key for one in converted for key in one.converted.ignored)])
    return Compared(row, record, any(one.converted.nfc_changed for one in converted), tuple(ignored))


def _pair(taken: Taken, better: Answered, worse: Answered) -> Preference | None:
    """The preference; None with a report where the two do not answer one prompt, or do not differ."""
    conversation, first, second = better.conversation, better.conversation.messages, worse.conversation.messages
    if better.turns or worse.turns:
        start, other_start = _prompt_length(better), _prompt_length(worse)
    else:
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
        start = other_start = sum(1 for _ in same)
    chosen, rejected = first[start:], second[other_start:]
    if _said(chosen) == _said(rejected):
        taken.report("the chosen and the rejected answer are equal", "leave the row out: it teaches nothing")
    elif not (chosen and rejected):
        shorter = "chosen" if not chosen else "rejected"
        taken.report(f"the {shorter} answer is only the beginning of the other", "end both with an answer of their own")
    elif (
        first[:start] != second[:other_start]
        or {chosen[0].role, rejected[0].role} != {"assistant"}
        or _of_user(chosen) != _of_user(rejected)
    ):
        fix = "write the same turns before and between both answers"
        taken.report("the chosen and the rejected answer have different prompts", fix)
    elif _require_learned(taken, chosen) and _require_learned(taken, rejected):
        meta, tools = conversation.meta, conversation.tools
        return Preference(first[:start], chosen, rejected, meta, taken.path, taken.row.line, tools)
    return None


def _rated(taken: Taken, answered: Answered, *, good: bool) -> Unpaired | None:
    conversation, start = answered.conversation, _prompt_length(answered)
    prompt, answer = conversation.messages[:start], conversation.messages[start:]
    if not _require_learned(taken, answer):
        return None
    return Unpaired(prompt, answer, good, conversation.meta, taken.path, taken.row.line, conversation.tools)


def _prompt_length(answered: Answered) -> int:
    """How many messages stand before the answer, which is all that follows the user's last turn where nothing says it."""
    messages = answered.conversation.messages
    if answered.turns:
        return len(messages) - answered.turns
    return 1 + max(number for number, message in enumerate(messages) if message.role == "user")


def _said(answer: Sequence[Message]) -> list[tuple[object, ...]]:
    return [(message.role, message.content.strip(), message.tool_calls) for message in answer]


def _of_user(answer: Sequence[Message]) -> list[Message]:
    return [message for message in answer if message.role == "user"]


def _require_learned(taken: Taken, answer: Sequence[Message]) -> bool:
    """Report an answer whose every turn is excluded from the loss."""
    learned = any(message.role == "assistant" and not message.excluded for message in answer)
    if not learned:
        taken.report("an answer is excluded from the loss", "include it, or leave the row out")
    return learned


def _good(taken: Taken, mark: Marks) -> bool:
    """The rating; False with a report for none. A table cannot hold true and false, so there it may be text."""
    rating = taken.row.value[mark.label]
    if isinstance(rating, bool):
        return rating
    if isinstance(rating, str) and PurePath(taken.path).suffix.lower() in _TABLES:
        written = rating.strip().lower()
        if written in ("true", "false"):
            return written == "true"
    shown = repr(rating) if isinstance(rating, str | int | float) else type_name(rating)
    taken.report(
        f"'{mark.label}' is {shown}, neither true nor false", "write true for a good answer, false for a bad one"
    )
    return False
