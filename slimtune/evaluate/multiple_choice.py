"""Four-choice questions answered by letter log-probabilities: nothing is generated, nothing is parsed.

After the rendered generation prompt the next token's distribution is read. A letter's probability is the sum over
the tokens that spell it (`a`, ` a`, `A`, ` A`, full width: different tokens in Qwen's vocabulary), so a model that
answers "A" is not marked wrong for its capital.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from slimtune.data.chat import ChatTokenizer
from slimtune.data.types import Conversation
from slimtune.errors import Problem, SlimtuneError


@dataclass(frozen=True)
class Question:
    """One item: the rendered prompt's ids, the labels to choose from and the right one."""

    id: str
    prompt_ids: tuple[int, ...]
    labels: tuple[str, ...]
    gold: str
    mode: str
    source: str

    @property
    def prompt_sha256(self) -> str:
        """Of the rendered prompt's ids."""
        return hashlib.sha256(repr(self.prompt_ids).encode()).hexdigest()


def questions(conversations: Sequence[Conversation], tokenizer: ChatTokenizer, *, max_length: int) -> list[Question]:
    """The questions of a multiple-choice file.

    Raises SlimtuneError for rows without `meta.choices` and `meta.correct`, repeated ids and prompts that leave no
    room for an answer in max_length tokens.
    """
    problems: list[Problem] = []
    items: list[Question] = []
    seen: dict[str, str] = {}
    for conversation in conversations:
        meta, where = conversation.meta, conversation.where
        choices, correct = meta.get("choices"), meta.get("correct")
        if not (isinstance(choices, dict) and len(choices) >= 2 and isinstance(correct, str) and correct in choices):
            problems.append(
                Problem(
                    "a multiple-choice question needs meta.choices and a meta.correct among them",
                    where,
                    '{"input": …, "output": "c", "meta": {"choices": {"a": …, "b": …}, "correct": "c"}}',
                )
            )
            continue
        identifier = str(meta.get("id") or where)
        if identifier in seen:
            problems.append(Problem(f"id '{identifier}' is used twice", where, f"first in {seen[identifier]}"))
        seen[identifier] = where
        ids = tokenizer.prompt_ids(conversation.messages[:-1])
        if len(ids) >= max_length:
            problems.append(
                Problem(
                    f"the prompt has {len(ids)} tokens, max_seq_length is {max_length}", where, "raise max_seq_length"
                )
            )
        items.append(
            Question(
                identifier, tuple(ids), tuple(choices), correct, meta.get("mode", "direct"), meta.get("source", "")
            )
        )
    if problems:
        raise SlimtuneError(problems, summary="The evaluation set cannot be used")
    return items


def letter_variants(letter: str, tokenizer: ChatTokenizer) -> list[int]:
    """Ids of the single tokens that spell a letter: half and full width, either case, with a leading space."""
    wide = "".join(chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character for character in letter)
    spellings = {form for text in (letter, wide) for form in (text.lower(), text.upper())}
    encoded = [tokenizer.encode(prefix + spelling) for spelling in sorted(spellings) for prefix in ("", " ")]
    return sorted({ids[0] for ids in encoded if len(ids) == 1})


def score(
    model: Any,
    tokenizer: ChatTokenizer,
    items: Sequence[Question],
    *,
    batch_size: int,
    precision: torch.dtype,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """One result per question, in the order of `items`.

    Each result: id, gold, predicted, correct, logprobs (natural log of the summed probability per letter), label_mass
    (their sum; low means that the model does not answer in the asked form), greedy_token (the likeliest id of all),
    mode, source, prompt_sha256.
    Prompts of similar length share a batch. Ties go to the first label.
    """
    variants = {letter: letter_variants(letter, tokenizer) for item in items for letter in item.labels}
    impossible = sorted(letter for letter, ids in variants.items() if not ids)
    if impossible:
        raise SlimtuneError(Problem(f"no single token spells {', '.join(impossible)}", fix="use letters as labels"))
    order = sorted(range(len(items)), key=lambda index: len(items[index].prompt_ids), reverse=True)
    results: dict[int, dict[str, Any]] = {}
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            prompts = [items[index].prompt_ids for index in chosen]
            for index, logprobs in zip(chosen, next_token_logprobs(model, prompts, precision), strict=True):
                results[index] = _result(items[index], logprobs, variants)
            if on_progress:
                on_progress(min(start + batch_size, len(order)), len(order))
    finally:
        model.train(was_training)
    return [results[index] for index in range(len(items))]


@torch.no_grad()
def next_token_logprobs(model: Any, prompts: Sequence[Sequence[int]], precision: torch.dtype) -> torch.Tensor:
    """Log-probabilities of the token after each prompt: shape (prompts, vocabulary), fp32, on the CPU.

    Prompts are padded on the right and read at their own last token: under causal attention the padding cannot reach
    it, whatever an attention backend does with masks. The head sees only those positions, so that a batch never
    holds (prompts × length × vocabulary) logits.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    # Not the embedding's: that one may live in the computer's memory.
    device = inner.lm_head.weight.device
    longest = max(len(prompt) for prompt in prompts)
    input_ids = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        input_ids[row, : len(prompt)] = torch.tensor(prompt)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
    with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
        hidden = inner.model(input_ids=input_ids.to(device), use_cache=False).last_hidden_state
        logits = inner.lm_head(hidden[torch.arange(len(prompts), device=device), last])
    return torch.log_softmax(logits.float(), dim=-1).cpu()


def _result(item: Question, logprobs: torch.Tensor, variants: dict[str, list[int]]) -> dict[str, Any]:
    by_letter = {letter: float(torch.logsumexp(logprobs[variants[letter]], dim=0)) for letter in item.labels}
    predicted = max(item.labels, key=lambda letter: by_letter[letter])
    return {
        "id": item.id,
        "gold": item.gold,
        "predicted": predicted,
        "correct": predicted == item.gold,
        "logprobs": {letter: round(value, 6) for letter, value in by_letter.items()},
        "greedy_token": int(logprobs.argmax()),
        "label_mass": round(sum(math.exp(value) for value in by_letter.values()), 6),
        "mode": item.mode,
        "source": item.source,
        "prompt_sha256": item.prompt_sha256,
    }
