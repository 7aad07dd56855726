"""The report's sections on single answers: the items that flipped, and the samples before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.core.run_folder import as_dict, as_list
from slimtune.evaluate.judge import statistics
from slimtune.evaluate.judge.text import percent
from slimtune.run.report.values import number

MOST_SHOWN = 50
_MOST_OPEN = 10
# Name, meaning, whether base is right, whether tuned is right.
_GROUPS = (
    ("lost", "right before, wrong after", True, False),
    ("gained", "wrong before, right after", False, True),
)

Row = dict[str, Any]


def flipped(base: Sequence[Row], tuned: Sequence[Row], items: Sequence[Row], most: int = MOST_SHOWN) -> dict[str, Any]:
    """The items of which only one of the two answers is right: `lost` before `gained`, at most so many in all.

    base, tuned: the rows of eval/base.jsonl and eval/tuned.jsonl; perplexities are neither right nor wrong.
    items: the rows of eval/items.jsonl, which hold the prompts; older runs have none.
    """
    before, prompts = ({row["id"]: row for row in rows if "id" in row} for rows in (base, items))
    pairs = [(before[row["id"]], row) for row in tuned if row.get("id") in before]
    pairs = [(b, t) for b, t in pairs if _right(b) is not None and _right(t) is not None]
    groups, room = [], most
    for name, meaning, was, now in _GROUPS:
        members = [(b, t) for b, t in pairs if _right(b) is was and _right(t) is now]
        shown = [_item(b, t, as_dict(prompts.get(t["id"]))) for b, t in members[:room]]
        groups.append(
            {
                "name": name,
                "meaning": meaning,
                "count": len(members),
                "entries": shown,
                "more": len(members) - len(shown),
                "open": len(members) <= _MOST_OPEN,
            }
        )
        room -= len(shown)
    return {"answered": bool(pairs), "prompts": bool(prompts), "groups": groups}


def samples(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The fixed prompts of eval/samples.jsonl with the reference and what was generated before and after."""
    return [
        {
            "where": str(row.get("where", "")),
            "messages": _messages(row),
            "texts": [(name, str(row.get(name) or "")) for name in ("reference", "base", "tuned")],
        }
        for row in rows
    ]


def _item(base: Row, tuned: Row, item: Row) -> dict[str, Any]:
    free = tuned.get("kind") == "generation"  # a free reply, even where the file has choices
    gold = "" if free else str(tuned.get("gold") or item.get("gold") or "")
    choices = {} if free else {str(label): str(text) for label, text in as_dict(item.get("choices")).items()}
    shares = [_shares(base), _shares(tuned)]
    labels = list(choices) or sorted({*shares[0], *shares[1]})
    return {
        "id": str(tuned["id"]),
        "source": str(tuned.get("source") or ""),
        "where": str(item.get("where") or tuned.get("where") or ""),
        "gold": gold,
        "reference": str(tuned.get("reference") or item.get("reference") or ""),
        "messages": _messages(item),
        "answers": [
            (name, _answer(row), _text(row), bool(_right(row))) for name, row in (("base", base), ("tuned", tuned))
        ],
        "written": bool(_text(base) or _text(tuned)),
        "choices": [
            {
                "label": label,
                "text": choices.get(label, ""),
                "gold": label == gold,
                "cells": [
                    (_percent(share.get(label)), row.get("predicted") == label)
                    for row, share in zip((base, tuned), shares, strict=True)
                ],
            }
            for label in labels
        ],
        "probabilities": any(shares),
    }


def _right(row: Row) -> bool | None:
    """Whether the answer is right: the letter, or a free reply that equals its reference."""
    value = row.get("exact") if row.get("kind") == "generation" else row.get("correct")
    return value if isinstance(value, bool) else None


def _answer(row: Row) -> str:
    """In a word or two: the letter with its probability, or how close a free reply comes."""
    if row.get("kind") == "generation":
        chrf = number(row.get("chrf"))
        return "reply" if chrf is None else f"chrF {chrf:.0f}"
    predicted = row.get("predicted")
    if predicted is None:
        return str(row.get("status") or "no answer")
    share = _shares(row).get(str(predicted))
    return f"{predicted}" if share is None else f"{predicted} {_percent(share)}"


def _shares(row: Row) -> dict[str, float]:
    """The probabilities of the labels, which add up to 1; empty for an answer without any."""
    logprobs = {str(label): value for label, value in as_dict(row.get("logprobs")).items() if number(value) is not None}
    return statistics.probabilities(logprobs) or {}


def _text(row: Row) -> str:
    """What the model wrote; an answer by letters is not written."""
    return str(row.get("text") or "")


def _percent(share: float | None) -> str:
    return "" if share is None else percent(share)


def _messages(item: Mapping[str, Any]) -> list[dict[str, str]]:
    """The prompt as role and content; a plain text is a user's."""
    told = [
        {"role": str(message.get("role", "")), "content": str(message.get("content", ""))}
        for message in map(as_dict, as_list(item.get("messages") or item.get("prompt")))
    ]
    text = item.get("prompt")
    return told or ([{"role": "user", "content": text}] if isinstance(text, str) and text else [])
