"""What prompts have in common at their beginning, and which of them to compute together. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

FEWEST_SHARED = 64
"""Tokens in common below which a pass of its own costs more than it saves."""
FEWEST_OF_ALL = 8
"""The same for a beginning that all prompts have, which is computed once for all batches."""
_SIMILAR = 0.8


@dataclass(frozen=True, slots=True)
class Group:
    """members: indices of the rows. shared: how many first tokens all of them have in common; 0: computed plainly."""

    members: tuple[int, ...]
    shared: int


def group_by_prefix(rows: Sequence[Sequence[int]]) -> list[Group]:
    """Neighbours with a long common beginning, each group to be computed from one key-value cache, and all the others.

    A question's permutations stand next to each other and differ only after its text; a prompt that would shorten a
    group's common part by more than a fifth begins a new one. Every row keeps at least one token of its own.
    """
    groups: list[Group] = []
    for index, row in enumerate(rows):
        if groups:
            last = groups[-1]
            first = rows[last.members[0]]
            common = common_length(first, row, min(last.shared or len(first) - 1, len(row) - 1))
            if common >= max(FEWEST_SHARED, _SIMILAR * last.shared):
                groups[-1] = Group((*last.members, index), common)
                continue
        groups.append(Group((index,), 0))
    alone = tuple(group.members[0] for group in groups if not group.shared)
    together = [group for group in groups if group.shared]
    return [*together, *([Group(alone, 0)] if alone else [])]


def common_length(first: Sequence[object], second: Sequence[object], limit: int) -> int:
    """Length of the common beginning, at most `limit`."""
    pairs = enumerate(zip(first[:limit], second[:limit], strict=False))
    return next((position for position, (one, other) in pairs if one != other), min(limit, len(first), len(second)))
