"""Asking a target every item, batch by batch: one result row an item, the same whatever runs the model. No torch.

A batch is what the target wants at once, of items of similar length. Rows are handed on as they come, so that an
evaluation that is killed goes on where it was; the batches are always the same ones, whatever is done already.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from slimtune.core.progress import Advance, OnProgress, ignore
from slimtune.data.records import Mode
from slimtune.evaluate import permutations
from slimtune.evaluate.answer_file import AnswerFile
from slimtune.evaluate.items import Item, Kind
from slimtune.evaluate.judge import text_quality
from slimtune.evaluate.replies import extract
from slimtune.evaluate.targets.target import Letters, Prompt, Reply, Sampling, Target, spells

Row = dict[str, Any]

_TEXT_ANSWER_TOKENS = 16
"""For a direct answer that has to be read from text: a letter, and what a model may put around it."""


@dataclass(frozen=True)
class Settings:
    """How an evaluation is done; written into its record.

    permutations: orders of the choices per question. votes: replies per prompt in cot mode (self-consistency), drawn at
    `temperature` and `top_p`; one reply is greedy. max_new_tokens: of a reply in cot mode and for generation.
    by: "letters" reads the first token's probabilities; "text" generates and extracts, for a server that tells none.
    """

    kind: Kind = "multiple_choice"
    mode: Mode = "direct"
    permutations: int = 1
    votes: int = 1
    temperature: float = 0.7
    top_p: float = 0.8
    max_new_tokens: int = 512
    seed: int = 42
    by: Literal["letters", "text"] = "letters"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def by_letters(self) -> bool:
        """Whether answers are read from the first token's probabilities, and nothing is generated."""
        return self.kind == "multiple_choice" and self.mode == "direct" and self.by == "letters"

    @property
    def room(self) -> int:
        """Tokens that a reply may need behind its prompt."""
        if self.kind == "perplexity":
            return 0
        if self.kind == "multiple_choice" and self.mode == "direct":
            return 1 if self.by_letters else _TEXT_ANSWER_TOKENS
        return self.max_new_tokens

    @property
    def sampling(self) -> Sampling:
        """How the replies of this evaluation are generated."""
        multiple = self.kind == "multiple_choice" and self.votes > 1
        return Sampling(
            max_new_tokens=self.room,
            replies=self.votes if multiple else 1,
            temperature=self.temperature if multiple else 0.0,
            top_p=self.top_p if multiple else 1.0,
            seed=self.seed,
            stop_at_answer=self.kind == "multiple_choice" and self.mode == "cot",
        )


def ask(
    target: Target,
    items: Sequence[Item],
    settings: Settings,
    *,
    done: Collection[str] = (),
    keep: Callable[[Sequence[Row]], None] = lambda rows: None,
    advance: Advance = ignore,
) -> list[Row]:
    """The rows of the items that are not `done`, in the order of `items`; each batch is handed to `keep` as it comes.

    done: ids of items whose rows exist. Raises SlimtuneError where the target cannot do what is asked.
    """
    rows: dict[str, Row] = {}
    asked = sum(item.id in done for item in items)
    # Also those that are done: what is shared, and so every rounding, is then the same after a kill.
    scored = [Prompt(item.prompt, item.labels) for item in items] if settings.by_letters else []
    with target.expecting(scored):
        for batch in batches(items, settings, target.batch_size):
            if all(item.id in done for item in batch):
                continue
            fresh = [row for row in _ask_batch(target, batch, settings) if row["id"] not in done]
            keep(fresh)
            rows |= {row["id"]: row for row in fresh}
            asked += len(fresh)
            advance(asked, len(items))
    return [rows[item.id] for item in items if item.id in rows]


def complete(
    answers: AnswerFile, target: Target, items: Sequence[Item], settings: Settings, on_progress: OnProgress
) -> list[Row]:
    """Ask what the file does not hold yet, with progress on the screen; the rows of all items, in their order."""
    ids = [item.id for item in items]
    with on_progress.bar("Answered") as advance:
        ask(target, items, settings, done=frozenset(answers.rows), keep=answers.keep, advance=advance)
    return answers.finish(ids)


def batches(items: Sequence[Item], settings: Settings, batch_size: int) -> Iterator[list[Item]]:
    """The items, longest first, in batches of `batch_size` prompts: what does not fit is known at once."""
    by_length = sorted(items, key=lambda item: (-sum(len(message.content) for message in item.prompt), item.id))
    size = max(1, batch_size // settings.permutations)
    for start in range(0, len(by_length), size):
        yield by_length[start : start + size]


def _ask_batch(target: Target, batch: Sequence[Item], settings: Settings) -> list[Row]:
    if settings.kind == "perplexity":
        return _likelihoods(target, batch, settings)
    if settings.kind == "generation":
        return _free_text(target, batch, settings)
    orders = {item.id: permutations.orders(item.labels, settings.permutations) for item in batch}
    prompts = [Prompt(permutations.reorder(item, order), item.labels) for item in batch for order in orders[item.id]]
    if settings.by_letters:
        answers = iter(
            [_by_letters(letters, prompt) for letters, prompt in zip(target.score(prompts), prompts, strict=True)]
        )
    else:
        replies = target.generate(prompts, settings.sampling)
        answers = iter([_by_text(group, prompt, settings) for group, prompt in zip(replies, prompts, strict=True)])
    rows = []
    for item in batch:
        own = [next(answers) for _ in orders[item.id]]
        merged = own[0] if len(own) == 1 else _over_orders(item, orders[item.id], own)
        predicted = merged["predicted"]
        rows.append(
            {
                **_head(item, settings),
                "gold": item.gold,
                "labels": list(item.labels),
                "correct": predicted == item.gold,
                **merged,
            }
        )
    return rows


def _head(item: Item, settings: Settings) -> Row:
    return {"id": item.id, "source": item.source, "where": item.where, "kind": settings.kind, "mode": settings.mode}


# One prompt's answer --------------------------------------------------------------------------------------------------


def _by_letters(letters: Letters, prompt: Prompt) -> Row:
    """Ties go to the first label."""
    predicted = max(prompt.labels, key=lambda label: letters.logprobs[label])
    row: Row = {
        "predicted": predicted,
        "status": "answered",
        "rule": "letters",
        "logprobs": {label: round(value, 6) for label, value in letters.logprobs.items()},
        "label_mass": round(sum(math.exp(value) for value in letters.logprobs.values()), 6),
        "greedy_text": letters.greedy_text,
        "greedy_token": letters.greedy_token,
        "greedy_agrees": spells(letters.greedy_text, predicted),
        "prompt_sha256": letters.prompt_sha256,
    }
    return row | ({"bounded": list(letters.bounded)} if letters.bounded else {})


def _by_text(replies: Sequence[Reply], prompt: Prompt, settings: Settings) -> Row:
    """The answer of one reply, or the vote of several: invalid ones do not vote, a tie goes to whoever was first."""
    read = []
    for reply in replies:
        if reply.error:
            read.append((reply, extract.Extraction(None, "error message", "error")))
        else:
            read.append(
                (
                    reply,
                    extract.extract(reply.text, mode=settings.mode, labels=prompt.labels, truncated=reply.truncated),
                )
            )
    first_reply, first = read[0]
    row: Row = {"text": first_reply.text, "tokens": sum(reply.tokens for reply in replies), "prompt_sha256": None}
    row |= {"error": first_reply.error} if first_reply.error else {}
    if len(read) == 1:
        truncated = {"truncated": True} if first_reply.truncated else {}
        return {"predicted": first.answer, "status": first.status, "rule": first.rule, **truncated, **row}
    votes = Counter(found.answer for _, found in read if found.answer is not None)
    return {
        **vote(votes),
        # Without a single valid vote the commonest reason is the reason.
        **({} if votes else {"status": Counter(found.status for _, found in read).most_common(1)[0][0]}),
        **row,
        "replies": [
            {
                "text": reply.text,
                "answer": found.answer,
                "rule": found.rule,
                "status": found.status,
                "tokens": reply.tokens,
            }
            for reply, found in read
        ],
    }


def vote(votes: Mapping[str, int]) -> Row:
    """What a majority says; `votes` in the order in which labels were first named."""
    most = max(votes.values(), default=0)
    leading = [label for label, count in votes.items() if count == most]
    return {
        "predicted": leading[0] if leading else None,
        "status": "answered" if leading else "unknown",
        "rule": "majority vote",
        "votes": dict(votes),
        "tied": len(leading) > 1,
    }


# One question in several orders ---------------------------------------------------------------------------------------


def _over_orders(item: Item, orders: Sequence[Sequence[str]], answers: Sequence[Row]) -> Row:
    """One answer from all orders, in the file's labels: the highest mean probability, or the most votes."""
    shown = []
    for order, answer in zip(orders, answers, strict=True):
        displayed = {choice: label for label, choice in zip(item.labels, order, strict=True)}
        row: Row = {"order": "".join(order), "gold": displayed[item.gold], "predicted": answer["predicted"]}
        shown.append(row | ({"logprobs": answer["logprobs"]} if "logprobs" in answer else {"text": answer["text"]}))
    first = answers[0]
    if "logprobs" in first:
        merged = _mean_probability(item, orders, answers)
    else:
        votes: Counter[str] = Counter()
        for order, answer in zip(orders, answers, strict=True):
            original = dict(zip(item.labels, order, strict=True))
            own = answer.get("votes") or ({answer["predicted"]: 1} if answer["predicted"] else {})
            votes.update({original[label]: count for label, count in own.items()})
        merged = {**vote(votes), "text": first["text"], "tokens": sum(answer["tokens"] for answer in answers)}
        if not votes:
            merged["status"] = Counter(answer["status"] for answer in answers).most_common(1)[0][0]
    return {**merged, "prompt_sha256": first["prompt_sha256"], "permutations": shown}


def _mean_probability(item: Item, orders: Sequence[Sequence[str]], answers: Sequence[Row]) -> Row:
    mean = dict.fromkeys(item.labels, 0.0)
    for order, answer in zip(orders, answers, strict=True):
        for label, choice in zip(item.labels, order, strict=True):
            mean[choice] += math.exp(answer["logprobs"][label]) / len(answers)
    predicted = max(item.labels, key=lambda label: mean[label])
    first = answers[0]
    return {
        "predicted": predicted,
        "status": "answered",
        "rule": "letters",
        "logprobs": {label: round(math.log(max(value, 1e-300)), 6) for label, value in mean.items()},
        "label_mass": round(sum(mean.values()), 6),
        "greedy_text": first["greedy_text"],
        "greedy_token": first["greedy_token"],
        "greedy_agrees": all(answer["greedy_agrees"] for answer in answers),
    }


# What is not multiple choice ------------------------------------------------------------------------------------------


def _likelihoods(target: Target, batch: Sequence[Item], settings: Settings) -> list[Row]:
    found = target.likelihood([Prompt(item.prompt) for item in batch], [item.reference for item in batch])
    return [
        {**_head(item, settings), "prompt_sha256": None, "nll": round(one.nll, 6), "tokens": one.tokens}
        for item, one in zip(batch, found, strict=True)
    ]


def _free_text(target: Target, batch: Sequence[Item], settings: Settings) -> list[Row]:
    replies = target.generate([Prompt(item.prompt) for item in batch], settings.sampling)
    rows = []
    for item, (reply,) in zip(batch, replies, strict=True):
        status = "error" if reply.error else "truncated" if reply.truncated else "answered"
        row = {**_head(item, settings), "prompt_sha256": None, "text": reply.text, "reference": item.reference}
        row |= {"status": status, "tokens": reply.tokens, **text_quality.compare(reply.text, item.reference)}
        rows.append(row | ({"error": reply.error} if reply.error else {}))
    return rows
