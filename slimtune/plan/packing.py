"""How full packed rows are, and how full padded batches of the same examples would be. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from slimtune.plan.lengths import packed_rows


@dataclass(frozen=True, slots=True)
class Packing:
    """Shares of the places that hold a token, from 0 to 1; the others are computed for nothing.

    examples: those that fit a row. rows, row_length: what best-fit decreasing makes of them. packed: share in these rows.
    padded: share in random batches of `batch` examples, each padded to its longest.
    """

    examples: int
    rows: int
    row_length: int
    packed: float
    batch: int
    padded: float

    def __str__(self) -> str:
        rows = "1 row" if self.rows == 1 else f"{self.rows:,} rows"
        return (
            f"{rows} of {self.row_length:,} tokens, {self.packed:.0%} full; "
            f"in padded batches of {self.batch}, {self.padded:.0%} of the places would hold a token"
        )


def pack(tokens: Sequence[int], row_length: int, batch: int) -> Packing | None:
    """The figures of the examples that are no longer than a row; None where none is."""
    kept = [count for count in tokens if count <= row_length]
    if not kept:
        return None
    rows = packed_rows(kept, row_length)
    return Packing(
        examples=len(kept),
        rows=rows,
        row_length=row_length,
        packed=sum(kept) / (rows * row_length),
        batch=batch,
        padded=sum(kept) / len(kept) / expected_longest(kept, batch),
    )


def expected_longest(tokens: Sequence[int], batch: int) -> float:
    """The mean length of the longest of `batch` examples drawn at random, one draw independent of the other.

    The i-th shortest of n is the longest of them with probability (i/n)^batch - ((i-1)/n)^batch.
    """
    ordered, count = sorted(tokens), len(tokens)
    # In whole numbers, which are exact.
    ways = [place**batch for place in range(count + 1)]
    total = sum(length * (high - low) for length, (low, high) in zip(ordered, itertools.pairwise(ways), strict=True))
    return total / count**batch
