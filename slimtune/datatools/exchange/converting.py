"""Conversations to the rows of a layout, refusing what it cannot hold and counting what it drops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from slimtune.core.errors import Problem
from slimtune.data.problems import bad_data
from slimtune.data.records import Conversation
from slimtune.datatools.exchange.layouts import Layout, holds, render


class Rows(NamedTuple):
    """losses: sentences, each with a count."""

    rows: list[dict[str, Any]]
    losses: list[str]


def to_rows(conversations: Sequence[Conversation], layout: Layout) -> Rows:
    """A row for each conversation. Raises SlimtuneError that lists all which the layout cannot hold."""
    problems: dict[str, list[Problem]] = {}
    for conversation in conversations:
        if not holds(layout, conversation):
            turns = sum(message.role == "user" for message in conversation.messages)
            what = f"the conversation has {turns} turns, and {layout} holds one"
            fix = "write it with --to messages or --to sharegpt, or leave it out"
            problems.setdefault(conversation.path, []).append(Problem(what, conversation.where, fix))
    if problems:
        raise bad_data(problems)
    dropped = sum(bool(conversation.meta) for conversation in conversations) if layout == "openai" else 0
    losses = [f"{dropped:,} row{'s' if dropped > 1 else ''}: 'meta' is dropped, since openai has none"]
    return Rows([render(conversation, layout) for conversation in conversations], losses if dropped else [])
