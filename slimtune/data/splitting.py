"""Train, dev and test sets that are alike in labels and sources and share no excerpt."""

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from slimtune.data.text import normalised

SPLITS = ("train", "dev", "test")
# Weight of a deviation: sizes come first, then labels, then sources.
_WEIGHTS = {"all": 4.0, "label": 2.0, "source": 1.0, "label and source": 1.0}
_Feature = tuple[str, str]
# Exchanges are tried between so many kinds of groups of a part, the smallest: they make the fine adjustments.
_MOST_KINDS = 300


@dataclass(frozen=True, slots=True)
class SplitItem:
    """What is placed, one for each id. Items with equal group keys stay together. label, source: "" for none."""

    id: str
    label: str
    source: str
    group: str


@dataclass(eq=False)
class _Group:
    """Items that stay together. features: how many of them have each feature. kind: equal for equal features."""

    items: list[SplitItem]
    features: Counter[_Feature]

    def __post_init__(self) -> None:
        self.kind = frozenset(self.features.items())


@dataclass(eq=False)
class _Part:
    """A split in the making. surplus: what it has of each feature, less its share of all. groups: in order, as keys."""

    surplus: dict[_Feature, float]
    groups: dict[_Group, None] = field(default_factory=dict)

    def cost_of(self, change: Counter[_Feature]) -> float:
        """By how much the weighted sum of squared surpluses grows when the features change."""
        return sum(
            _WEIGHTS[feature[0]] * count * (2 * self.surplus[feature] + count) for feature, count in change.items()
        )

    def replace(self, out: _Group, into: _Group) -> None:
        self.groups.pop(out, None)
        if into.items:
            self.groups[into] = None
        self.add(_difference(out, into))

    def add(self, change: Counter[_Feature]) -> None:
        for feature, count in change.items():
            self.surplus[feature] += count


_NOTHING = _Group([], Counter())


def context_key(context: str) -> str:
    """Equal for excerpts that differ in spacing or character width only."""
    return "".join(normalised(context, "NFKC").split())


def split_items(
    items: Sequence[SplitItem], sizes: Mapping[str, int], *, seed: int, placed: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The name of the split of each item, by id.

    sizes: how many items each split should have. placed: id to split of items that stay where they are. A group with
    such items goes to the split that has most of them; of equals the last in SPLITS, so that what is like a test
    question is not trained on.

    Groups are placed one by one (the largest first, else in seeded order) where they fit best. Then they are moved and
    swapped as long as the weighted squared deviation of labels and sources falls. The order of the items has no effect.
    """
    placed = {item.id: placed[item.id] for item in items if placed and item.id in placed}
    groups = _groups(items)
    totals = sum((group.features for group in groups), Counter[_Feature]())
    parts = {
        name: _Part({feature: -count * size / len(items) for feature, count in totals.items()})
        for name, size in sizes.items()
        if size or name in placed.values()
    }
    name_of: dict[str, str] = {}
    free: list[_Group] = []
    for group in groups:
        there = Counter(placed[item.id] for item in group.items if item.id in placed)
        if not there:
            free.append(group)
            continue
        home = max(there, key=lambda name: (there[name], SPLITS.index(name)))
        for item in group.items:
            name_of[item.id] = placed.get(item.id, home)
            parts[name_of[item.id]].add(_features([item]))

    rng = random.Random(seed)
    rng.shuffle(free)
    free.sort(key=lambda group: -len(group.items))
    for group in free:
        part = min(parts.values(), key=lambda part: part.cost_of(group.features))
        part.replace(_NOTHING, group)
    while _improve(list(parts.values())):
        pass
    return name_of | {item.id: name for name, part in parts.items() for group in part.groups for item in group.items}


def _groups(items: Iterable[SplitItem]) -> list[_Group]:
    by_key: dict[str, list[SplitItem]] = {}
    for item in sorted(items, key=lambda item: item.id):
        by_key.setdefault(item.group, []).append(item)
    return [_Group(members, _features(members)) for members in by_key.values()]


def _features(items: Iterable[SplitItem]) -> Counter[_Feature]:
    found: Counter[_Feature] = Counter()
    for item in items:
        both = f"{item.label} {item.source}"
        found.update([("all", ""), ("label", item.label), ("source", item.source), ("label and source", both)])
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
    kinds = list({group.kind: group for group in part.groups}.values())
    if len(kinds) > _MOST_KINDS:
        kinds = sorted(kinds, key=lambda group: len(group.items))[:_MOST_KINDS]
    return [*kinds, _NOTHING]


def _difference(out: _Group, into: _Group) -> Counter[_Feature]:
    change = Counter(into.features)
    change.subtract(out.features)
    return change
