"""What a data file holds, one type a kind of record. So far there is one kind: conversations."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
Mode = Literal["direct", "cot"]
"""How a question is answered: by the label alone, or with the reasoning before it."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the assistant calls. arguments: a JSON object, as text."""

    name: str
    arguments: str

    def as_dict(self) -> dict[str, Any]:
        """As OpenAI's API and chat templates have it, the arguments as an object."""
        return {"type": "function", "function": {"name": self.name, "arguments": json.loads(self.arguments)}}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; `content` is NFC text without control tokens, and empty only where an assistant's turn calls tools.

    excluded: of an assistant's turn that stands in the history of later ones and carries no loss.
    """

    role: Role
    content: str
    excluded: bool = False
    tool_calls: tuple[ToolCall, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        turn: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            turn["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        return turn


def as_dicts(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Messages as chat templates, servers and JSONL files have them: {"role", "content"} each, and any tool calls."""
    return [message.as_dict() for message in messages]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A training example: an optional system message, then user and assistant in turn, ending with the assistant.

    Behind an assistant's turn that calls tools stand their answers, then the assistant again.
    tools: the functions that may be called, a JSON array as in OpenAI's API; "" for none.
    meta: the row's `meta` as it stood (for multiple choice: id, mode, choices, correct, context, source).
    path, line: where it came from, for messages. `line` is 1-based; for Parquet and the hub, the row's number.
    """

    messages: tuple[Message, ...]
    meta: dict[str, Any] = field(default_factory=dict, compare=False)
    path: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
    tools: str = ""

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"
