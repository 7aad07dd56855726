"""What the built-in model was pretrained on: chats about ordinances of other towns, never four-choice questions by letter.

The model learns to read an excerpt and answer in words, to look up what carries a label and which label something
carries (labels such as ア or 甲), to pick the right candidate and write it out, and to repeat. It never sees a town of the
train, dev or test split, a rule of dev or test, or an answer that is one of the letters a to d.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from slimtune.builtin.ordinances import KINDS, LETTERS, SUBJECTS, Excerpt, excerpts, question

Turns = list[tuple[str, str]]

LABEL_SETS = ("アイウエ", "甲乙丙丁", "子丑寅卯", "①②③④", "イロハニ", "春夏秋冬", "東西南北", "ｅｆｇｈ", "ＥＦＧＨ")


def _read(rng: random.Random, source: Excerpt) -> Turns:
    turns: Turns = []
    for _ in range(rng.choice((4, 5, 6))):
        rule = rng.choice(source.rules)
        turns.append(
            rng.choice(
                (
                    (f"{rule.topic}は何か。", rule.value),
                    (f"{source.ordinance}によれば、{rule.topic}は何か。", rule.value),
                    (f"{rule.topic}の条番号は何か。", rule.article),
                    (f"{rule.value}とする事項は何か。", rule.topic),
                    (f"{rule.article}の事項は何か。", rule.topic),
                    (f"{rule.article}の内容は何か。", rule.value),
                    (f"{rule.topic}の条文を写せ。", rule.text),
                )
            )
        )
    return [(f"{source.text}\n\n{turns[0][0]}", turns[0][1]), *turns[1:]]


def _labels(rng: random.Random, source: Excerpt) -> Turns:
    labels = rng.sample(rng.choice(LABEL_SETS), 4)
    words = rng.sample(SUBJECTS if rng.random() < 0.3 else KINDS[source.kind][1], 4)
    listed = "\n".join(f"{label}：{word}" for label, word in zip(labels, words, strict=True))
    turns = []
    for i in rng.sample(range(4), 4):
        opening = f"{listed}\n\n" if not turns else ""
        if rng.random() < 0.5:
            turns.append((f"{opening}{words[i]}の記号は何か。", labels[i]))
        else:
            turns.append((f"{opening}記号{labels[i]}の内容は何か。", words[i]))
    return turns


def _candidates(rng: random.Random, source: Excerpt) -> Turns:
    turns: Turns = []
    for _ in range(rng.choice((1, 2, 3))):
        asked, choices, rule = question(rng, source, rng.choice(LETTERS))
        listed = "\n".join(f"・{choice}" for choice in choices.values())
        opening = "" if turns else f"{source.text}\n\n"
        turns.append((f"{opening}{asked}\n{listed}\n\n内容で答えよ。", rule.value))
    return turns


def _repeat(rng: random.Random, source: Excerpt) -> Turns:
    pool = [*LETTERS, *"efgh", *"ABCD", *SUBJECTS, *KINDS[source.kind][1], *rng.choice(LABEL_SETS)]
    words = "、".join(rng.choice(pool) for _ in range(rng.randint(4, 14)))
    return [(f"次を繰り返せ。\n{words}", words)]


LESSONS: tuple[tuple[Callable[[random.Random, Excerpt], Turns], int], ...] = (
    (_read, 4),
    (_labels, 3),
    (_candidates, 3),
    (_repeat, 1),
)

SHORT = ((_repeat, 1), (_labels, 1))


def lessons(seed: int, forbidden: frozenset[tuple[str, str, str]], short: bool = False) -> Iterator[Turns]:
    """An endless stream of chats, each a list of (user, assistant) turns.

    forbidden: (subject, attribute, value) of rules that must not occur: those of dev and test.
    """
    rng = random.Random(seed)
    makers, weights = zip(*(SHORT if short else LESSONS), strict=True)
    while True:
        for source in excerpts(rng, "pretrain", forbidden):
            (maker,) = rng.choices(makers, weights)
            yield maker(rng, source)
