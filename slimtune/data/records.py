"""What a data file holds, one type a kind of record: conversations, preferences, rated answers."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
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

    @property
    def texts(self) -> list[str]:
        """Its content, then name and arguments of each call: all that tells it from another turn of its role."""
        return [self.content, *(text for call in self.tool_calls for text in (call.name, call.arguments))]

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


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one prompt, of which the first is the better.

    prompt: as a conversation begins, up to a turn of the user or a tool. chosen, rejected: what follows it, from a turn of
    the assistant to the last one. tools, meta, path, line: as of a conversation.
    """

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    meta: dict[str, Any] = field(default_factory=dict, compare=False)
    path: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
    tools: str = ""

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    def conversation(self, answer: Literal["chosen", "rejected"] = "chosen") -> Conversation:
        """The prompt with one of its answers, which alone carries loss."""
        return _answered(self, self.chosen if answer == "chosen" else self.rejected)


@dataclass(frozen=True, slots=True)
class Unpaired:
    """An answer to a prompt, and whether it is a good one. The other fields are those of a preference."""

    prompt: tuple[Message, ...]
    answer: tuple[Message, ...]
    good: bool
    meta: dict[str, Any] = field(default_factory=dict, compare=False)
    path: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
    tools: str = ""

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    def conversation(self) -> Conversation:
        """The prompt with its answer, which alone carries loss."""
        return _answered(self, self.answer)


def _answered(record: Preference | Unpaired, answer: tuple[Message, ...]) -> Conversation:
    prompt = (replace(turn, excluded=True) if turn.role == "assistant" else turn for turn in record.prompt)
    return Conversation((*prompt, *answer), record.meta, record.path, record.line, record.tools)
