"""Train, dev and test sets that are alike in labels and sources and share no excerpt."""

from __future__ import annotations

import itertools
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from slimtune.data.questions import Question
from slimtune.errors import fail

SPLITS = ("train", "dev", "test")
# How much a deviation counts: sizes are to be met exactly, and the labels before the sources.
_WEIGHTS = {"all": 4.0, "label": 2.0, "source": 1.0, "label and source": 1.0}
_Feature = tuple[str, str]


@dataclass(eq=False)
class _Group:
    """Questions with one context, which stay together. features: how many of them have each feature."""

    questions: list[Question]
    features: Counter[_Feature]


@dataclass(eq=False)
class _Part:
    """A split in the making. surplus: what it has of each feature, less its share of all."""

    surplus: dict[_Feature, float]
    groups: list[_Group] = field(default_factory=list)

    def cost_of(self, change: Counter[_Feature]) -> float:
        """By how much the weighted sum of squared surpluses grows when the features change."""
        return sum(
            _WEIGHTS[feature[0]] * count * (2 * self.surplus[feature] + count) for feature, count in change.items()
        )

    def replace(self, out: _Group, into: _Group) -> None:
        self.groups = [group for group in [*self.groups, into] if group is not out and group.questions]
        for feature, count in _difference(out, into).items():
            self.surplus[feature] += count


_NOTHING = _Group([], Counter())


def context_key(context: str) -> str:
    """Equal for excerpts that differ in spacing or character width only."""
    return "".join(unicodedata.normalize("NFKC", context).split())


def split_questions(questions: Sequence[Question], *, dev: float, test: float, seed: int) -> dict[str, list[Question]]:
    """The questions under "train", "dev" and "test", each list in the order given.

    dev, test: shares of all questions, from 0 to below 1. Questions with equal contexts stay together. The shares
    of right labels, of sources and of both together are as equal as exchanging groups can make them: groups are
    placed one by one (the largest first, else in seeded order) where they fit best, then moved and swapped as long as
    the weighted squared deviation falls. The result depends on the set of questions and the seed, not on their order.

    Raises `SlimtuneError` if a share is impossible or a split would be empty.
    """
    sizes = _sizes(len(questions), dev, test)
    groups = _groups(questions)
    rng = random.Random(seed)
    rng.shuffle(groups)
    groups.sort(key=lambda group: -len(group.questions))

    totals = sum((group.features for group in groups), Counter[_Feature]())
    parts = {
        name: _Part({feature: -count * size / len(questions) for feature, count in totals.items()})
        for name, size in sizes.items()
        if size
    }
    for group in groups:
        part = min(parts.values(), key=lambda part: part.cost_of(group.features))
        part.replace(_NOTHING, group)
    while _improve(list(parts.values())):
        pass

    name_of = {
        question.id: name for name, part in parts.items() for group in part.groups for question in group.questions
    }
    split = {name: [question for question in questions if name_of[question.id] == name] for name in SPLITS}
    for name, size in sizes.items():
        if size and not split[name]:
            raise fail(f"the split '{name}' is empty", fix="too many questions share a context: take more questions")
    return split


def _sizes(count: int, dev: float, test: float) -> dict[str, int]:
    if not (dev >= 0 and test >= 0 and dev + test < 1):
        raise fail(f"shares of {dev:g} for dev and {test:g} for test", fix="both from 0, together less than 1")
    held_out = {name: max(1, round(share * count)) if share else 0 for name, share in (("dev", dev), ("test", test))}
    train = count - sum(held_out.values())
    if train < 1:
        raise fail(f"{count} questions are too few for shares of {dev:g} and {test:g}", fix="take more questions")
    return {"train": train, **held_out}


def _groups(questions: Iterable[Question]) -> list[_Group]:
    by_context: dict[str, list[Question]] = {}
    for question in sorted(questions, key=lambda question: question.id):
        by_context.setdefault(context_key(question.context), []).append(question)
    return [_Group(members, _features(members)) for members in by_context.values()]


def _features(questions: Iterable[Question]) -> Counter[_Feature]:
    found: Counter[_Feature] = Counter()
    for question in questions:
        found["all", ""] += 1
        found["label", question.correct] += 1
        found["source", question.source] += 1
        found["label and source", f"{question.correct} {question.source}"] += 1
    return found


def _improve(parts: Sequence[_Part]) -> bool:
    """Makes the first exchange that lowers the cost: two groups, or one group against nothing."""
    for one, other in itertools.combinations(parts, 2):
        for mine in _kinds(one):
            for theirs in _kinds(other):
                gained, lost = _difference(mine, theirs), _difference(theirs, mine)
                if one.cost_of(gained) + other.cost_of(lost) < -1e-9:
                    one.replace(mine, theirs)
                    other.replace(theirs, mine)
                    return True
    return False


def _kinds(part: _Part) -> list[_Group]:
    """One group of each kind: exchanging either of two with the same features changes the cost alike."""
    kinds = {frozenset(group.features.items()): group for group in part.groups}
    return [*kinds.values(), _NOTHING]


def _difference(out: _Group, into: _Group) -> Counter[_Feature]:
    change = Counter(into.features)
    change.subtract(out.features)
    return change
