"""List the ways to divide an optimizer step's examples into micro-batches. No torch.

The recipe fixes the effective batch, counted in examples. A plan chooses row length, rows per micro-batch and
accumulation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slimtune.plan.lengths import packed_rows
from slimtune.plan.packing import padded_tokens
from slimtune.recipe.schema import TrainSection

_ROW_MULTIPLE = 64
_PADDED_TOKENS = 4096
_FEWEST_USEFUL_TOKENS = 512


@dataclass(frozen=True)
class Batching:
    """row_length: most tokens of a row. micro: rows of a micro-batch. rows: of one epoch.

    peak_tokens: of the largest micro-batch, which decides the memory. computed_tokens: what one holds on average, padding
    included, which decides the time; useful_tokens: without padding. examples_per_row: 1 where nothing is packed.
    filled: share of the rows' places in use.
    """

    row_length: int
    micro: int
    accumulation: int
    rows: int
    peak_tokens: int
    computed_tokens: float
    useful_tokens: float
    examples_per_row: float
    filled: float

    @property
    def micro_batches(self) -> int:
        return math.ceil(self.rows / self.micro)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, math.ceil(self.micro_batches / self.accumulation))


def packed(train: TrainSection, tokens: Sequence[int], *, longest: int, max_seq_length: int) -> list[Batching]:
    """Every sensible way to pack: from the whole step in one micro-batch down to one row that holds the longest example.

    train: fixes the effective batch, and what else it names. tokens: the lengths of the training examples. longest: of
    all examples, held-out ones included, since a row that is too short would cut them.
    """
    micro, accumulation = train.per_device_train_batch_size, train.gradient_accumulation_steps
    effective_batch_size = train.effective_batch_size
    wanted = effective_batch_size * sum(tokens) / len(tokens)
    found: dict[tuple[int, int, int], Batching] = {}
    for rows_per_step in _rows_per_step(wanted, longest, max_seq_length, micro, accumulation):
        length = train.row_length or min(max(wanted / rows_per_step, longest), max_seq_length)
        length = min(math.ceil(length / _ROW_MULTIPLE) * _ROW_MULTIPLE, max_seq_length)
        rows = packed_rows(tokens, length)
        per_row = len(tokens) / rows
        in_step = max(1, round(effective_batch_size / per_row))
        for size in [micro] if micro else _divisors(in_step):
            times = accumulation or max(1, round(effective_batch_size / (size * per_row)))
            mean = sum(tokens) / math.ceil(rows / size)
            peak, filled = min(size * length, sum(tokens)), sum(tokens) / (rows * length)
            found.setdefault(
                (length, size, times), Batching(length, size, times, rows, peak, mean, mean, per_row, filled)
            )
    return list(found.values())


def _rows_per_step(
    wanted: float, longest: int, max_seq_length: int, micro: int | None, accumulation: int | None
) -> list[int]:
    """How many rows a step may have: as few as `max_seq_length` allows, then twice as many, while they are long enough."""
    if micro and accumulation:
        return [micro * accumulation]
    fewest = max(1, math.ceil(wanted / max_seq_length))
    counts = [fewest]
    while wanted / counts[-1] > max(longest, _FEWEST_USEFUL_TOKENS):
        counts.append(counts[-1] * 2)
    # The shortest row that still holds the longest example: the last thing to try where memory is short.
    return [*counts, max(counts[-1], round(wanted / longest))]


def padded(
    train: TrainSection, tokens: Sequence[int], *, longest: int, max_seq_length: int, most: int | None = None
) -> list[Batching]:
    """Padded micro-batches of every size that divides the effective batch; arguments as for `packed`.

    most: examples of a micro-batch at most; where not given, as many of the longest as 4,096 tokens hold.
    """
    micro, accumulation = train.per_device_train_batch_size, train.gradient_accumulation_steps
    most = most or max(1, _PADDED_TOKENS // longest)
    sizes = [micro] if micro else [size for size in _divisors(train.effective_batch_size) if size <= most]
    result = []
    for size in sizes:
        computed = size * padded_tokens(tokens, size) / len(tokens)
        useful = size * sum(tokens) / len(tokens)
        times = accumulation or max(1, round(train.effective_batch_size / size))
        result.append(
            Batching(max_seq_length, size, times, len(tokens), size * longest, computed, useful, 1.0, useful / computed)
        )
    return result


def _divisors(number: int) -> list[int]:
    """Largest first."""
    return [size for size in range(number, 0, -1) if number % size == 0]
