"""Golden prompts: what the export must answer as the tuned model did when it was judged. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import as_dicts
from slimtune.evaluate.items import Item
from slimtune.evaluate.targets.target import Prompt
from slimtune.export.proof.conversations import generated

if TYPE_CHECKING:
    from slimtune.evaluate.targets.local_target import LocalTarget

PARITY_ITEMS = 20


@dataclass(frozen=True)
class Golden:
    """A prompt as rendered for the model, and what the adapter that was judged makes of it.

    greedy_token: with which it begins its answer. letters: label to natural log-probability as the first token; empty
    where no letter is asked for. reference_ids: the file's own answer up to and including the end of turn, and
    reference_nll its negative log-likelihood under the adapter, summed; None in runs that did not record it.
    messages: {"role", "content"} that `prompt` was rendered from; empty in runs that did not record them.
    """

    id: str
    prompt: str
    prompt_ids: tuple[int, ...]
    greedy_token: int
    messages: tuple[Mapping[str, str], ...] = ()
    letters: Mapping[str, float] = field(default_factory=dict)
    reference_ids: tuple[int, ...] = ()
    reference_nll: float | None = None


def ask(target: LocalTarget, items: Sequence[Item]) -> list[dict[str, Any]]:
    """A row of eval/golden.jsonl for each of the first items: letters where they have choices, else their reference."""
    chosen = items[:PARITY_ITEMS]
    rows: list[dict[str, Any]] = []
    for start in range(0, len(chosen), target.batch_size):
        part = chosen[start : start + target.batch_size]
        prompts = [Prompt(item.prompt, item.labels) for item in part]
        for item, letters in zip(part, target.score(prompts), strict=True):
            ids = target.tokenizer.prompt_ids(item.prompt)
            rows.append(
                {
                    "id": item.id,
                    "messages": as_dicts(item.prompt),
                    "prompt": target.tokenizer.decode(ids),
                    "prompt_ids": ids,
                    "greedy_token": letters.greedy_token,
                    "letters": {label: round(value, 6) for label, value in letters.logprobs.items()},
                }
            )
        if not any(item.labels for item in part) and all(item.reference for item in part):
            found = target.likelihood(prompts, [item.reference for item in part])
            for row, item, one in zip(rows[start:], part, found, strict=True):
                _, reference_ids = target.tokenizer.prompt_and_response_ids(item.prompt, item.reference)
                row |= {"reference_ids": reference_ids, "reference_nll": round(one.nll, 6)}
    return rows


def made_up(tokenizer: ChatTokenizer, max_length: int) -> list[Item]:
    """Items for a model that was judged on none: made-up conversations that leave room for a token in max_length."""
    items = [
        Item(f"made-up-{number}", conversation, reference="")
        for number, conversation in enumerate(generated(10 * PARITY_ITEMS), 1)
    ]
    return [item for item in items if len(tokenizer.prompt_ids(item.prompt)) < max_length][:PARITY_ITEMS]


def read(rows: Sequence[Mapping[str, Any]]) -> list[Golden]:
    """The rows that `ask` made, also those of runs from before letters and references were recorded."""
    return [
        Golden(
            id=row["id"],
            prompt=row["prompt"],
            prompt_ids=tuple(row["prompt_ids"]),
            greedy_token=row["greedy_token"],
            messages=tuple(row.get("messages", ())),
            letters=row.get("letters", {}),
            reference_ids=tuple(row.get("reference_ids", ())),
            reference_nll=row.get("reference_nll"),
        )
        for row in rows
    ]
