"""The report's sections on single items: those that flipped, and those that are in the training data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.core.run_folder import as_dict, as_list, at
from slimtune.evaluate.judge import statistics
from slimtune.evaluate.judge.contenders import SHARED_CONTEXT
from slimtune.evaluate.judge.text import percent
from slimtune.run.report.values import known, number

MOST_SHOWN = 50
_MOST_OPEN = 10
# Name, meaning, whether base is right, whether tuned is right.
_GROUPS = (("lost", "right before, wrong after", True, False), ("gained", "wrong before, right after", False, True))

StoredRow = dict[str, Any]


def flipped(
    base: Sequence[StoredRow], tuned: Sequence[StoredRow], items: Sequence[StoredRow], most: int = MOST_SHOWN
) -> dict[str, Any]:
    """The items of which only one of the two answers is right: `lost` before `gained`, at most `most` in all.

    base, tuned: the rows of eval/base.jsonl and eval/tuned.jsonl; perplexities are neither right nor wrong.
    items: the rows of eval/items.jsonl, which hold the prompts; older runs have none.
    """
    before, prompts = ({row["id"]: row for row in rows if "id" in row} for rows in (base, items))
    pairs = [(before[row["id"]], row) for row in tuned if row.get("id") in before]
    rights = [(_right(b), _right(t)) for b, t in pairs]
    groups, room = [], most
    for name, meaning, was, now in _GROUPS:
        members = [pair for pair, right in zip(pairs, rights, strict=True) if right == (was, now)]
        shown = [_item(b, t, as_dict(prompts.get(t["id"]))) for b, t in members[:room]]
        more, room = len(members) - len(shown), room - len(shown)
        group = {"name": name, "meaning": meaning, "count": len(members), "entries": shown, "more": more}
        groups.append({**group, "open": len(members) <= _MOST_OPEN})
    return {"answered": any(None not in right for right in rights), "prompts": bool(prompts), "groups": groups}


def _item(base: StoredRow, tuned: StoredRow, item: StoredRow) -> dict[str, Any]:
    free = tuned.get("kind") == "generation"  # a free reply, even where the file has choices
    gold = "" if free else str(tuned.get("gold") or item.get("gold") or "")
    choices = {} if free else as_dict(item.get("choices"))
    shares = [_shares(base), _shares(tuned)]
    return {
        "id": tuned["id"],
        "source": tuned.get("source") or "",
        "where": item.get("where") or tuned.get("where") or "",
        "gold": gold,
        "reference": tuned.get("reference") or item.get("reference") or "",
        "messages": messages(item),
        # A model's text is "" where it answered by letters.
        "answers": [
            (name, _answer(row), row.get("text") or "", _right(row)) for name, row in (("base", base), ("tuned", tuned))
        ],
        "written": bool(base.get("text") or tuned.get("text")),
        "choices": [
            {
                "label": label,
                "text": choices.get(label, ""),
                "gold": label == gold,
                "cells": [
                    (known(share.get(label), percent, ""), row.get("predicted") == label)
                    for row, share in zip((base, tuned), shares, strict=True)
                ],
            }
            for label in list(choices) or sorted({*shares[0], *shares[1]})
        ],
        "probabilities": any(shares),
    }


def _right(row: StoredRow) -> bool | None:
    """Whether the answer is right: the letter, or a free reply that equals its reference."""
    value = row.get("exact") if row.get("kind") == "generation" else row.get("correct")
    return value if isinstance(value, bool) else None


def _answer(row: StoredRow) -> str:
    """In a word or two: the letter with its probability, or how close a free reply comes."""
    if row.get("kind") == "generation":
        return known(row.get("chrf"), "chrF {:.0f}".format, "reply")
    predicted = row.get("predicted")
    if predicted is None:
        return str(row.get("status") or "no answer")
    return f"{predicted} {known(_shares(row).get(str(predicted)), percent, '')}".rstrip()


def _shares(row: StoredRow) -> dict[str, float]:
    """The probabilities of the labels, which add up to 1; empty for an answer without any."""
    logprobs = {str(label): value for label, value in as_dict(row.get("logprobs")).items() if number(value) is not None}
    return statistics.probabilities(logprobs) or {}


def messages(item: Mapping[str, Any]) -> list[dict[str, str]]:
    """The prompt as role and content; a plain text is a user's."""
    text = item.get("prompt")
    if isinstance(text, str) and text and not item.get("messages"):
        return [{"role": "user", "content": text}]
    told = map(as_dict, as_list(item.get("messages") or text))
    return [{"role": str(message.get("role", "")), "content": str(message.get("content", ""))} for message in told]


def contamination(verdict: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Counts, every pair with both lines, and the figures with and without the contaminated items.

    verdict: eval/verdict.json. found: eval/contamination.json. `checked` is false where neither tells of a check.
    """
    told, pairs = as_dict(verdict.get("contamination")), list(map(as_dict, as_list(found.get("items"))))
    by_kind = Counter(str(pair.get("kind", "")) for pair in pairs)
    shared = by_kind.pop(SHARED_CONTEXT, 0)
    counts = as_dict(told.get("by_kind")) if told else by_kind
    return {
        "checked": bool(told or found),
        "train": [as_dict(file) for file in as_list(at(found, "checked.train"))],
        "test_rows": at(found, "checked.test"),
        "threshold": found.get("threshold"),
        "contaminated": told.get("items", by_kind.total()),
        "counts": [(kind, count) for kind, count in counts.items() if count],
        "shared": told.get("shared_context", shared),
        "pairs": [pair for pair in pairs if pair.get("kind") != SHARED_CONTEXT],
        "shared_pairs": [pair for pair in pairs if pair.get("kind") == SHARED_CONTEXT],
        "apart": [
            (name, part["n"], _score(part, "base"), _score(part, "tuned"), part.get("p_value"))
            for name in ("clean", "contaminated")
            if (part := as_dict(told.get(name))).get("n")
        ],
    }


def _score(part: dict[str, Any], side: str) -> str:
    """How many are right; of texts, the perplexity or the mean chrF."""
    correct, perplexity = (part.get(f"{side}_{name}") for name in ("correct", "perplexity"))
    if number(correct) is not None:
        return f"{correct} right ({percent(correct / part['n'])})"
    if number(perplexity) is not None:
        return f"perplexity {perplexity:.2f}"
    return known(part.get(f"{side}_chrf"), "chrF {:.2f}".format)
