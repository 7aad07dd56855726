"""Compare how full packed rows and padded batches of the same examples are. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slimtune.plan.lengths import packed_rows


@dataclass(frozen=True, slots=True)
class Packing:
    """Shares of the places that hold a token, from 0 to 1.

    examples: those that fit a row. rows, row_length: what best-fit decreasing makes of them. packed: share in these rows.
    padded: share in random batches of `batch` examples, each padded to its longest, as TRL's collator pads and as
    Transformers' sampler draws them (at random, not by length).

    Padding is computed like any token. A packed row's empty places are not: with TRL's "bfd" the rows of a batch are
    joined without padding (SFTTrainer turns padding_free on).
    """

    examples: int
    rows: int
    row_length: int
    packed: float
    batch: int
    padded: float

    def __str__(self) -> str:
        examples = "1 example" if self.examples == 1 else f"{self.examples:,} examples"
        rows = "1 row" if self.rows == 1 else f"{self.rows:,} rows"
        packed = f"{examples} in {rows} of {self.row_length:,} tokens, {self.packed:.0%} full"
        if self.batch == 1:
            return packed
        return (
            f"{packed}; padded batches of {self.batch} would be {self.padded:.0%} full: "
            f"packing computes {self.padded:.0%} of their tokens"
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
        padded=sum(kept) / padded_tokens(kept, batch),
    )


def padded_tokens(tokens: Sequence[int], batch: int) -> float:
    """Tokens that one epoch computes, padding included: the mean over all orders, the last batch as small as it is."""
    whole, rest = divmod(len(tokens), batch)
    full = whole * batch * expected_longest(tokens, batch) if whole else 0.0
    return full + (rest * expected_longest(tokens, rest) if rest else 0.0)


def expected_longest(tokens: Sequence[int], batch: int) -> float:
    """The mean length of the longest of `batch` different examples drawn at random; of all, where there are no more.

    Of n, the i-th shortest is the longest with probability C(i-1, batch-1) / C(n, batch): batch / n for the last, and
    (i - batch) / (i - 1) times that of i for i - 1.
    """
    ordered, count = sorted(tokens), len(tokens)
    if batch >= count:
        return float(ordered[-1])
    mean, probability = 0.0, batch / count
    for place in range(count, batch - 1, -1):
        mean += probability * ordered[place - 1]
        probability *= (place - batch) / max(1, place - 1)
    return mean
