"""A conversation as a row of each layout that other tools read. The way back is `slimtune.data.formats`.

openai is the layout messages without `meta`, which that service does not take.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from slimtune.core.errors import Problem
from slimtune.core.units import plural
from slimtune.data.problems import bad_data
from slimtune.data.records import Conversation, as_dicts

Layout = Literal["openai", "messages", "alpaca", "sharegpt", "input_output"]
_SINGLE_TURN_ONLY = ("alpaca", "input_output")
_SHAREGPT_NAMES = {"user": "human", "assistant": "gpt"}


def is_single_turn(conversation: Conversation) -> bool:
    """One question and its answer, with or without a system prompt."""
    return sum(message.role == "user" for message in conversation.messages) == 1


def own_layout(conversations: Sequence[Conversation]) -> Layout:
    """The project's own form for a file of these: a file has one layout, so one long conversation decides for all."""
    return "input_output" if all(map(is_single_turn, conversations)) else "messages"


class Rendered(NamedTuple):
    """rows: one for each conversation. losses: sentences on what the layout cannot hold, each with a count."""

    rows: list[dict[str, Any]]
    losses: list[str]


def to_rows(conversations: Sequence[Conversation], layout: Layout) -> Rendered:
    """Raises SlimtuneError with every conversation of several turns where the layout has room for one."""
    problems: dict[str, list[Problem]] = {}
    for conversation in conversations:
        if layout in _SINGLE_TURN_ONLY and not is_single_turn(conversation):
            turns = sum(message.role == "user" for message in conversation.messages)
            what = f"the conversation has {turns} turns, and {layout} holds one"
            fix = "write it with --to messages or --to sharegpt, or leave it out"
            problems.setdefault(conversation.path, []).append(Problem(what, conversation.where, fix))
    if problems:
        raise bad_data(problems)
    dropped = sum(bool(conversation.meta) for conversation in conversations) if layout == "openai" else 0
    losses = [f"{plural(dropped, 'row')}: 'meta' is dropped, since openai has none"] if dropped else []
    return Rendered([render(conversation, layout) for conversation in conversations], losses)


def render(conversation: Conversation, layout: Layout) -> dict[str, Any]:
    """The row. An empty `meta` is left out. alpaca and input_output hold a single turn only."""
    turns = [message for message in conversation.messages if message.role != "system"]
    first = conversation.messages[0]
    prompt = {"system": first.content} if first.role == "system" else {}
    meta = {"meta": conversation.meta} if conversation.meta else {}
    if layout in ("openai", "messages"):
        row: dict[str, Any] = {"messages": as_dicts(conversation.messages)}
        return row if layout == "openai" else row | meta
    if layout == "sharegpt":
        listed = [{"from": _SHAREGPT_NAMES[turn.role], "value": turn.content} for turn in turns]
        return prompt | {"conversations": listed} | meta
    user, assistant = turns
    if layout == "alpaca":
        row = {"instruction": user.content, "input": "", "output": assistant.content}
    else:
        row = {"input": user.content, "output": assistant.content}
    return prompt | row | meta
