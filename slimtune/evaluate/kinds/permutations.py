"""The same question with its choices in another order, to detect answers by position. No torch."""

import math
import random
import re
from collections.abc import Sequence

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.data.records import Message
from slimtune.evaluate.kinds.kind import Item


def orders(labels: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """`count` orders of the labels, the file's own first; position i shows the choice that the file calls order[i].

    The first len(labels) are rotations, so that each choice stands once in each place; then seeded others.
    Raises SlimtuneError where there are not so many.
    """
    rotations = [(*labels[shift:], *labels[:shift]) for shift in range(len(labels))]
    if count <= len(rotations):
        return rotations[:count]
    if count > math.factorial(len(labels)):
        raise SlimtuneError(_too_few_orders(len(labels), count, "permutations"))
    # A random order is drawn again if it is there already; ten choices have too many orders to list.
    draw, found = random.Random(f"permutations of {len(labels)}"), dict.fromkeys(rotations)
    while len(found) < count:
        found.setdefault(tuple(draw.sample(list(labels), len(labels))))
    return list(found)


def _too_few_orders(choices: int, count: int, where: str) -> Problem:
    possible = math.factorial(choices)
    return Problem(f"{choices} choices have only {possible} orders, not {count}", where, f"ask for at most {possible}")


def reorder(item: Item, order: Sequence[str]) -> tuple[Message, ...]:
    """The item's prompt with its choices in that order, every label in its place.

    Raises SlimtuneError where the prompt does not show the choices as "label, text".
    """
    if tuple(order) == item.labels:
        return item.prompt
    *before, question = item.prompt
    spans = _spans(item, question.content)
    pieces, position = [], 0
    for (start, end), shown in zip(spans, order, strict=True):
        pieces += [question.content[position:start], item.choices[shown]]
        position = end
    return (*before, Message(question.role, "".join(pieces) + question.content[position:]))


def check(items: Sequence[Item], count: int = 1) -> None:
    """Raise SlimtuneError with every item whose choices cannot be found in its prompt, or have not `count` orders."""
    problems: list[Problem] = []
    for item in items:
        if count > math.factorial(len(item.labels)):
            problems.append(_too_few_orders(len(item.labels), count, item.where))
            continue
        try:
            _spans(item, item.prompt[-1].content)
        except SlimtuneError as error:
            problems += error.problems
    if problems:
        raise SlimtuneError(problems, summary="The choices of these questions cannot be put into another order")


def _spans(item: Item, text: str) -> list[tuple[int, int]]:
    """Where each choice's text stands, in the order of the labels: after its label, one after the other.

    The last such sequence counts: an example question or a statute may come before.
    """
    found: list[list[tuple[int, int]]] = []
    for label, choice in item.choices.items():
        pattern = rf"(?<![0-9A-Za-z]){re.escape(label)}[\s.．,、:：)）\]】」]*(?P<choice>{re.escape(choice)})"
        found.append([match.span("choice") for match in re.finditer(pattern, text, re.IGNORECASE)])
    spans: list[tuple[int, int]] = []
    limit = len(text)
    for candidates in reversed(found):
        fitting = [span for span in candidates if span[1] <= limit]
        if not fitting:
            what = f"the choices of '{item.id}' do not stand in its prompt as label and text"
            fix = "write them as in meta.choices, one after the other ('a. …'), or set evaluate.permutations: 1 (--permutations 1)"
            raise fail(what, where=item.where, fix=fix)
        spans.insert(0, fitting[-1])
        limit = fitting[-1][0]
    return spans
