"""A question's choices in other orders, so that a model learns what is right and not where it stands."""

import itertools
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from slimtune.core.errors import fail
from slimtune.data.questions import LABELS, Question
from slimtune.data.text import normalised

# Random orders for one place of the right choice, before the next place has its turn: a place may be used up.
_TRIES = 20
_JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
# A letter by itself names a choice in Japanese text; in English, where "a" is a word, only with a sign that it does.
_LABEL_IN_JAPANESE = re.compile(r"(?<![a-z])[a-j](?![a-z])", re.IGNORECASE)
_LABEL_IN_ENGLISH = re.compile(r"(?<!\w)[B-HJ](?!\w)|\((?:[a-j]|[A-J])\)|(?:choice|option|answer)s?[ :]+[a-jA-J](?!\w)")
_NAMED = re.compile(r"(?:選択肢|肢)\s*(?:[a-j]|[ア-コ]|\d)|(?:choice|option)\s+(?:[a-j]|\d)(?!\w)", re.IGNORECASE)
# Choices that speak of the others: 「上記のすべて」, "none of the above", "both A and B".
_OTHERS = re.compile(
    r"上記|以上の|前記|いずれも|どれも|すべて(?:正|誤)|全て(?:正|誤)|該当(?:なし|するものはない)"
    r"|(?:all|none|both|neither|any) of (?:the|these)|\babove\b|\bboth [a-j] and [a-j]\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Shuffled:
    """questions: each question and, behind it, its copies. fixed: ids of those whose texts tie choices to their places."""

    questions: list[Question]
    origins: dict[str, str]
    fixed: tuple[str, ...]


def shuffle(questions: Sequence[Question], copies: int, *, seed: int, keep_reasoning: bool) -> Shuffled:
    """Each question as it is, followed by `copies` copies (`q~1`, `q~2` …) with its choices in another order.

    The right choice takes as many different places as possible: with copies = choices - 1, each place once. No order
    occurs twice. keep_reasoning: copies keep the reasoning, so a question whose reasoning names labels is not shuffled;
    otherwise copies have none. Raises SlimtuneError for more copies than a question has other orders.
    """
    found: list[Question] = []
    origins: dict[str, str] = {}
    fixed: list[str] = []
    for question in questions:
        found.append(question)
        if not copies:
            continue
        if _ties_places(question, reasoning=keep_reasoning):
            fixed.append(question.id)
            continue
        reasoning = question.reasoning if keep_reasoning else ""
        for number, order in enumerate(_orders(question, copies, seed), start=1):
            name, correct = f"{question.id}~{number}", LABELS[order.index(question.correct)]
            choices = {label: question.choices[old] for label, old in zip(LABELS, order, strict=False)}
            origins[name] = question.id
            found.append(replace(question, id=name, choices=choices, correct=correct, reasoning=reasoning))
    return Shuffled(found, origins, tuple(fixed))


def _ties_places(question: Question, *, reasoning: bool) -> bool:
    """Whether a text names a choice by its label or place, so that another order would make it wrong."""
    texts = [question.question, *question.choices.values(), *([question.reasoning] if reasoning else [])]
    if any(_OTHERS.search(text) for text in question.choices.values()):
        return True
    if any(_NAMED.search(normalised(text, "NFKC")) for text in texts):
        return True
    argued = normalised(question.reasoning, "NFKC")
    labels = _LABEL_IN_JAPANESE if _JAPANESE.search(argued) else _LABEL_IN_ENGLISH
    return reasoning and bool(labels.search(argued))


def _orders(question: Question, copies: int, seed: int) -> list[tuple[str, ...]]:
    """`copies` different orders of the labels, none of them the question's own."""
    labels = tuple(question.choices)
    count = len(labels)
    if copies >= math.factorial(count):
        what = f"{count} choices have only {math.factorial(count) - 1} other orders, not {copies}"
        raise fail(what, where=question.where, fix=f"use --shuffle-choices {math.factorial(count) - 1} or fewer")
    rng = random.Random(f"{seed}/choices/{question.id}")
    own = labels.index(question.correct)
    others = [label for label in labels if label != question.correct]
    elsewhere = [place for place in range(count) if place != own]
    rng.shuffle(elsewhere)
    found: list[tuple[str, ...]] = []
    # All other places of the right choice first, then its own, and so on round.
    places = itertools.cycle([*elsewhere, own])
    while len(found) < copies:
        place, rest = next(places), others[:]
        for _ in range(_TRIES):
            rng.shuffle(rest)
            order = (*rest[:place], question.correct, *rest[place:])
            if order != labels and order not in found:
                found.append(order)
                break
    return found
