"""What a data file holds, one type a kind of record. So far there is one kind: conversations."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Mode = Literal["direct", "cot"]
"""How a question is answered: by the label alone, or with the reasoning before it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; `content` is non-empty NFC text without control tokens."""

    role: Role
    content: str


def as_dicts(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Messages as chat templates, servers and JSONL files have them: {"role", "content"} each."""
    return [{"role": message.role, "content": message.content} for message in messages]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A training example: an optional system message, then user and assistant in turn, ending with the assistant.

    meta: the row's `meta` as it stood (for multiple choice: id, mode, choices, correct, context, source).
    path, line: where it came from, for messages. `line` is 1-based; for Parquet and the hub, the row's number.
    """

    messages: tuple[Message, ...]
    meta: dict[str, Any] = field(default_factory=dict, compare=False)
    path: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"
