"""What an evaluation asks: the items of a held-out file, independent of the model that will answer. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.data.records import Conversation, Message, as_dicts

Kind = Literal["multiple_choice", "perplexity", "generation"]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to ask.

    prompt: the messages up to the assistant's turn. reference: the assistant's text in the file. choices: label to text
    in the order of the question, empty where it is no multiple-choice question. gold: the right label, or "".
    context: the excerpt that decides the question, or "".
    """

    id: str
    prompt: tuple[Message, ...]
    reference: str
    choices: dict[str, str] = field(default_factory=dict, compare=False)
    gold: str = ""
    source: str = ""
    context: str = ""
    where: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.choices)

    def as_json(self) -> dict[str, Any]:
        """The item as a line of items.jsonl: what was asked, for whoever shows the answers later."""
        return {
            "id": self.id,
            "where": self.where,
            "messages": as_dicts(self.prompt),
            "choices": self.choices,
            "gold": self.gold,
            "reference": self.reference,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Item:
        """The item of a line of items.jsonl."""
        return cls(
            id=row["id"],
            prompt=tuple(Message(**message) for message in row["messages"]),
            reference=row["reference"],
            choices=row["choices"],
            gold=row["gold"],
            where=row.get("where", ""),
        )


def first(conversations: Sequence[Conversation], count: int | None, path: str) -> Sequence[Conversation]:
    """The first `count` of a file; None takes all. Raises SlimtuneError where there are fewer: n would be another one."""
    if count is not None and len(conversations) < count:
        raise fail(
            f"{count} items are asked for, and there are {len(conversations)}",
            where=path,
            fix=f"ask for at most {len(conversations)}",
        )
    return conversations[:count]


def read(conversations: Sequence[Conversation], kind: Kind) -> list[Item]:
    """The items of a held-out file; the last turn of each conversation is what is asked for.

    Raises SlimtuneError with every repeated id and, for multiple choice, every row without `meta.choices` and
    `meta.correct`.
    """
    problems: list[Problem] = []
    items: list[Item] = []
    seen: dict[str, str] = {}
    for conversation in conversations:
        meta, where = conversation.meta, conversation.where
        choices, correct = meta.get("choices"), meta.get("correct")
        usable = isinstance(choices, dict) and len(choices) >= 2 and isinstance(correct, str) and correct in choices
        if kind == "multiple_choice" and not usable:
            problems.append(
                Problem(
                    "a multiple-choice question needs meta.choices and a meta.correct among them",
                    where,
                    '{"input": …, "output": "c", "meta": {"choices": {"a": …, "b": …}, "correct": "c"}}',
                )
            )
            continue
        identifier = str(meta.get("id") or where)
        if identifier in seen:
            problems.append(Problem(f"id '{identifier}' is used twice", where, f"first in {seen[identifier]}"))
        seen.setdefault(identifier, where)
        items.append(
            Item(
                id=identifier,
                prompt=conversation.messages[:-1],
                reference=conversation.messages[-1].content,
                choices={str(label): str(text) for label, text in choices.items()} if usable and choices else {},
                gold=str(correct) if usable else "",
                source=str(meta.get("source") or ""),
                context=str(meta.get("context") or ""),
                where=where,
            )
        )
    if problems:
        raise SlimtuneError(problems, summary="The evaluation set cannot be used")
    return items
