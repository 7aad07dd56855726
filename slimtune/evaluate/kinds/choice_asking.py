"""Asking a multiple-choice question: by the letters' probabilities or by replies, in one order of its choices or several."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from slimtune.data.records import Mode
from slimtune.evaluate.kinds import permutations
from slimtune.evaluate.kinds.kind import Answer, Item, Settings
from slimtune.evaluate.replies import extract
from slimtune.evaluate.replies.demand import demand
from slimtune.evaluate.targets.target import Letters, Prompt, Reply, Sampling, Target, spells

FAILED = extract.Extraction(None, "error message", "error")
"""What is read from a reply that did not come."""


def ask(target: Target, batch: Sequence[Item], settings: Settings, how: Sampling | None) -> list[Answer]:
    """Each item's answer from all its orders. how: to generate replies; None asks for the letters' probabilities."""
    orders = {item.id: permutations.orders(item.labels, settings.permutations) for item in batch}
    prompts = [Prompt(permutations.reorder(item, order), item.labels) for item in batch for order in orders[item.id]]
    if how is None:
        found = [_from_letters(letters, prompt) for letters, prompt in zip(target.score(prompts), prompts, strict=True)]
    else:
        asked = zip(target.generate(prompts, how), prompts, strict=True)
        found = [_from_replies(replies, prompt, settings.mode) for replies, prompt in asked]
    each, answers = iter(found), []
    for item in batch:
        own = [next(each) for _ in orders[item.id]]
        merged = own[0] if len(own) == 1 else _over_orders(item, orders[item.id], own)
        correct = merged["predicted"] == item.gold
        answers.append({"gold": item.gold, "labels": list(item.labels), "correct": correct, **merged})
    return answers


def vote(votes: Mapping[str, int], statuses: Sequence[str]) -> Answer:
    """What a majority says; `votes` in the order in which labels were first named, which decides a tie.

    statuses: of the replies; without a single vote the commonest is the reason.
    """
    most = max(votes.values(), default=0)
    leading = [label for label, count in votes.items() if count == most]
    return {
        "predicted": leading[0] if leading else None,
        "status": "answered" if leading else Counter(statuses).most_common(1)[0][0],
        "rule": "majority vote",
        "votes": dict(votes),
        "tied": len(leading) > 1,
    }


def _from_letters(letters: Letters, prompt: Prompt) -> Answer:
    """Ties go to the first label."""
    predicted = max(prompt.labels, key=lambda label: letters.logprobs[label])
    answer: Answer = {
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
    return answer | ({"bounded": list(letters.bounded)} if letters.bounded else {})


def _from_replies(replies: Sequence[Reply], prompt: Prompt, mode: Mode) -> Answer:
    """The answer of one reply, or the vote of several: replies without an answer do not vote."""
    asks = demand(prompt.messages[-1].content)
    read = [
        FAILED
        if reply.error
        else extract.extract(reply.text, mode=mode, labels=prompt.labels, truncated=reply.truncated, asks=asks)
        for reply in replies
    ]
    reply, found = replies[0], read[0]
    # The prompt is not stored with the reply, which must be read again as it was.
    told_by_question = {"asks": asks} if asks else {}
    answer: Answer = {
        **told_by_question,
        "text": reply.text,
        "tokens": sum(one.tokens for one in replies),
        "prompt_sha256": None,
    }
    if reply.error:
        answer["error"] = reply.error
    if len(read) == 1:
        truncated = {"truncated": True} if reply.truncated else {}
        return {"predicted": found.answer, "status": found.status, "rule": found.rule, **truncated, **answer}
    told = [
        {"text": one.text, "answer": its.answer, "rule": its.rule, "status": its.status, "tokens": one.tokens}
        for one, its in zip(replies, read, strict=True)
    ]
    votes = Counter(its.answer for its in read if its.answer is not None)
    return {**vote(votes, [its.status for its in read]), **answer, "replies": told}


def _over_orders(item: Item, orders: Sequence[Sequence[str]], answers: Sequence[Answer]) -> Answer:
    """One answer from all orders, in the file's labels: the highest mean probability, or the most votes."""
    shown = []
    for order, answer in zip(orders, answers, strict=True):
        displayed = {choice: label for label, choice in zip(item.labels, order, strict=True)}
        one: Answer = {"order": "".join(order), "gold": displayed[item.gold], "predicted": answer["predicted"]}
        shown.append(one | ({"logprobs": answer["logprobs"]} if "logprobs" in answer else {"text": answer["text"]}))
    first = answers[0]
    if "logprobs" in first:
        merged = _mean_probability(item, orders, answers)
    else:
        votes: Counter[str] = Counter()
        for order, answer in zip(orders, answers, strict=True):
            original = dict(zip(item.labels, order, strict=True))
            own = answer.get("votes") or ({answer["predicted"]: 1} if answer["predicted"] else {})
            votes.update({original[label]: count for label, count in own.items()})
        merged = vote(votes, [answer["status"] for answer in answers])
        merged |= {"asks": first["asks"]} if "asks" in first else {}
        merged |= {"text": first["text"], "tokens": sum(answer["tokens"] for answer in answers)}
    return {**merged, "prompt_sha256": first["prompt_sha256"], "permutations": shown}


def _mean_probability(item: Item, orders: Sequence[Sequence[str]], answers: Sequence[Answer]) -> Answer:
    mean = dict.fromkeys(item.labels, 0.0)
    for order, answer in zip(orders, answers, strict=True):
        for label, choice in zip(item.labels, order, strict=True):
            mean[choice] += math.exp(answer["logprobs"][label]) / len(answers)
    first = answers[0]
    return {
        "predicted": max(item.labels, key=lambda label: mean[label]),
        "status": "answered",
        "rule": "letters",
        "logprobs": {label: round(math.log(max(value, 1e-300)), 6) for label, value in mean.items()},
        "label_mass": round(sum(mean.values()), 6),
        "greedy_text": first["greedy_text"],
        "greedy_token": first["greedy_token"],
        "greedy_agrees": all(answer["greedy_agrees"] for answer in answers),
    }
