"""Chat logs in a table: a turn in each row, with a column that says who speaks and one that says in which conversation."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from slimtune.data.json_rows import Row
from slimtune.datatools.new import names
from slimtune.datatools.new.grid import Table
from slimtune.datatools.new.recognise import text_of

_ROLES = {
    **dict.fromkeys(
        ("user", "human", "customer", "client", "visitor", "ユーザー", "ユーザ", "利用者", "顧客", "お客様", "客"),
        "user",
    ),
    **dict.fromkeys(("assistant", "ai", "bot", "gpt", "agent", "support", "operator", "staff", "advisor"), "assistant"),
    **dict.fromkeys(
        ("アシスタント", "担当者", "担当", "オペレーター", "オペレータ", "サポート", "スタッフ"), "assistant"
    ),
    "system": "system",
    "システム": "system",
}


@dataclass(frozen=True, slots=True)
class Log:
    """rows: a conversation each, in the layout `messages`. columns: what is read from where. notes: what was changed."""

    rows: list[Row]
    columns: dict[str, str]
    notes: list[str]


def read(table: Table) -> Log | None:
    """The conversations of a chat log; None for another table.

    Turns of one speaker in a row become one turn. What stands before the user's first turn or after the assistant's last one
    has no answer, or no question, and is left out; both are told.
    """
    speaker, text, conversation = (
        _column(table, usual) for usual in (names.SPEAKERS, names.UTTERANCES, names.CONVERSATIONS)
    )
    if not (speaker and text and conversation):
        return None
    turns = [(row, text_of(row.value.get(text))) for row in table.rows]
    said = [(row, content) for row, content in turns if content]
    if not said or any(_role(row, speaker) is None for row, _ in said):
        return None
    grouped: dict[str, list[tuple[Row, str]]] = {}
    for row, content in said:
        grouped.setdefault(text_of(row.value.get(conversation)), []).append((row, content))
    rows: list[Row] = []
    joined = left_out = 0
    for id, own in grouped.items():
        messages = []
        for role, several in groupby(own, key=lambda one: _role(one[0], speaker)):
            contents = [content for _, content in several]
            joined += len(contents) - 1
            messages.append({"role": role, "content": "\n".join(contents)})
        kept = _answered(messages)
        left_out += len(messages) - len(kept)
        if kept:
            rows.append(Row(own[0][0].line, {"messages": kept, "meta": {"id": id or f"line-{own[0][0].line}"}}))
    notes = [f"left out: {len(turns) - len(said):,} empty turns"] if len(said) < len(turns) else []
    if joined:
        notes.append(f"turns of one speaker in a row are joined ({joined:,})")
    if left_out:
        notes.append(f"left out: {left_out:,} turns before a first question or after a last answer")
    return Log(rows, {"conversation": conversation, "speaker": speaker, "text": text}, notes)


def _column(table: Table, usual: Sequence[str]) -> str:
    plain = {names.plain(name): name for name in table.columns}
    return next((plain[name] for name in usual if name in plain), "")


def _role(row: Row, speaker: str) -> str | None:
    return _ROLES.get(names.plain(text_of(row.value.get(speaker))))


def _answered(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """System turn, then from the user's first turn to the assistant's last; [] where nobody asks or nobody answers."""
    system = messages[:1] if messages[0]["role"] == "system" else []
    spoken = messages[len(system) :]
    roles = [message["role"] for message in spoken]
    if "user" not in roles or "assistant" not in roles[roles.index("user") :]:
        return []
    return [*system, *spoken[roles.index("user") : len(roles) - roles[::-1].index("assistant")]]
