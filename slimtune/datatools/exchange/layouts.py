"""A conversation as a row of each layout that other tools read. The way back is `slimtune.data.formats`.

openai is the layout messages without `meta`, which that service does not take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from slimtune.data.records import Conversation, Message, as_dicts

Layout = Literal["openai", "messages", "alpaca", "sharegpt", "input_output"]
_SINGLE_TURN_ONLY = ("alpaca", "input_output")
_SHAREGPT_NAMES = {"user": "human", "assistant": "gpt"}


def is_single_turn(conversation: Conversation) -> bool:
    """One question and its answer, with or without a system prompt."""
    return sum(message.role == "user" for message in conversation.messages) == 1


def holds(layout: Layout, conversation: Conversation) -> bool:
    """Whether the layout can hold the conversation: alpaca and input_output have room for a single turn."""
    return layout not in _SINGLE_TURN_ONLY or is_single_turn(conversation)


def own_layout(conversations: Sequence[Conversation]) -> Layout:
    """The project's own form for a file of these: a file has one layout, so one long conversation decides for all."""
    return "input_output" if all(map(is_single_turn, conversations)) else "messages"


def render(conversation: Conversation, layout: Layout) -> dict[str, Any]:
    """The row. An empty `meta` is left out. The layout must hold the conversation (`holds`)."""
    system, turns = _parted(conversation)
    if layout in ("openai", "messages"):
        row: dict[str, Any] = {"messages": as_dicts(conversation.messages)}
        return row if layout == "openai" else row | _meta(conversation)
    prompt = {"system": system.content} if system else {}
    if layout == "sharegpt":
        listed = [{"from": _SHAREGPT_NAMES[turn.role], "value": turn.content} for turn in turns]
        return prompt | {"conversations": listed} | _meta(conversation)
    user, assistant = turns
    if layout == "alpaca":
        row = {"instruction": user.content, "input": "", "output": assistant.content}
    else:
        row = {"input": user.content, "output": assistant.content}
    return prompt | row | _meta(conversation)


def _parted(conversation: Conversation) -> tuple[Message | None, tuple[Message, ...]]:
    first, *rest = conversation.messages
    return (first, tuple(rest)) if first.role == "system" else (None, conversation.messages)


def _meta(conversation: Conversation) -> dict[str, Any]:
    return {"meta": conversation.meta} if conversation.meta else {}
