"""Divide an optimizer step's examples into micro-batches, packed or padded, and a run into steps. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slimtune.core.units import plural
from slimtune.plan.lengths import packed_rows
from slimtune.recipe.schema import TrainSection

_ROW_MULTIPLE = 64
_PADDED_TOKENS = 4096
_FEWEST_USEFUL_TOKENS = 512
_EVALUATIONS_PER_RUN = 8
_EVERY_STEP_UP_TO = 200


@dataclass(frozen=True)
class Batching:
    """row_length: most tokens of a row. micro: rows of a micro-batch. rows: of one epoch. filled: share of their places.

    peak_tokens: of the largest micro-batch, which decides the memory. computed_tokens: mean per micro-batch, padding
    included, which decides the time; useful_tokens: without padding.
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


def single(tokens: int) -> Batching:
    """One full row of `tokens` tokens."""
    return Batching(tokens, 1, 1, 1, tokens, tokens, tokens, 1.0, 1.0)


def packed(train: TrainSection, tokens: Sequence[int], *, longest: int, max_seq_length: int) -> list[Batching]:
    """Every sensible way to pack `tokens`: from the whole step in one micro-batch down to one row of the longest example.
    longest: of all examples, held-out ones included."""
    micro, accumulation = train.per_device_train_batch_size, train.gradient_accumulation_steps
    effective_batch_size, total = train.effective_batch_size, sum(tokens)
    wanted = effective_batch_size * total / len(tokens)
    found: dict[tuple[int, int, int], Batching] = {}
    for rows_per_step in _rows_per_step(wanted, longest, max_seq_length, micro, accumulation):
        length = train.row_length or min(max(wanted / rows_per_step, longest), max_seq_length)
        length = min(math.ceil(length / _ROW_MULTIPLE) * _ROW_MULTIPLE, max_seq_length)
        rows = packed_rows(tokens, length)
        per_row, filled = len(tokens) / rows, total / (rows * length)
        in_step = max(1, round(effective_batch_size / per_row))
        for size in [micro] if micro else _divisors(in_step):
            times = accumulation or max(1, round(effective_batch_size / (size * per_row)))
            mean, peak = total / math.ceil(rows / size), min(size * length, total)
            made = Batching(length, size, times, rows, peak, mean, mean, per_row, filled)
            found.setdefault((length, size, times), made)
    return list(found.values())


def _rows_per_step(
    wanted: float, longest: int, max_seq_length: int, micro: int | None, accumulation: int | None
) -> list[int]:
    """As few rows as `max_seq_length` allows, then twice as many, while they are long enough."""
    if micro and accumulation:
        return [micro * accumulation]
    counts = [max(1, math.ceil(wanted / max_seq_length))]
    while wanted / counts[-1] > max(longest, _FEWEST_USEFUL_TOKENS):
        counts.append(counts[-1] * 2)
    # The shortest row that still holds the longest example: the last thing to try where memory is short.
    return [*counts, max(counts[-1], round(wanted / longest))]


def padded(
    train: TrainSection, tokens: Sequence[int], *, longest: int, max_seq_length: int, most: int | None = None
) -> list[Batching]:
    """Padded micro-batches of every size that divides the effective batch.
    most: examples of one, at most; where not given, as many of the longest as 4,096 tokens hold."""
    micro, accumulation = train.per_device_train_batch_size, train.gradient_accumulation_steps
    most = most or max(1, _PADDED_TOKENS // longest)
    found = []
    for size in [micro] if micro else [size for size in _divisors(train.effective_batch_size) if size <= most]:
        computed = size * padded_tokens(tokens, size) / len(tokens)
        useful = size * sum(tokens) / len(tokens)
        times, peak = accumulation or max(1, round(train.effective_batch_size / size)), size * longest
        made = Batching(max_seq_length, size, times, len(tokens), peak, computed, useful, 1.0, useful / computed)
        found.append(made)
    return found


def _divisors(number: int) -> list[int]:
    """Largest first."""
    return [size for size in range(number, 0, -1) if number % size == 0]


@dataclass(frozen=True, slots=True)
class Packing:
    """Shares of the places that hold a token, from 0 to 1, packed and padded.

    packed: in the rows of best-fit decreasing, whose empty places are not computed: with TRL's "bfd" the rows of a batch
    are joined (SFTTrainer turns padding_free on). padded: in random batches of `batch` examples, each padded to its
    longest, as TRL's collator pads and Transformers' sampler draws them; padding is computed like any token.
    """

    examples: int
    rows: int
    row_length: int
    packed: float
    batch: int
    padded: float

    def __str__(self) -> str:
        examples, rows = plural(self.examples, "example"), plural(self.rows, "row")
        packed = f"{examples} in {rows} of {self.row_length:,} tokens, {self.packed:.0%} full"
        if self.batch == 1:
            return packed
        return (
            f"{packed}; padded batches of {self.batch} would be {self.padded:.0%} full: "
            f"packing computes {self.padded:.0%} of their tokens"
        )


def compare_packing(tokens: Sequence[int], row_length: int, batch: int) -> Packing | None:
    """The figures of the examples that fit a row; None where none does."""
    kept = [count for count in tokens if count <= row_length]
    if not kept:
        return None
    rows, total = packed_rows(kept, row_length), sum(kept)
    return Packing(len(kept), rows, row_length, total / (rows * row_length), batch, total / padded_tokens(kept, batch))


def padded_tokens(tokens: Sequence[int], batch: int) -> float:
    """Tokens that one epoch computes, padding included: the mean over all orders, the last batch as small as it is."""
    whole, rest = divmod(len(tokens), batch)
    parts = ((whole * batch, batch), (rest, rest))
    return sum(places * _expected_longest(tokens, size) for places, size in parts if places)


def _expected_longest(tokens: Sequence[int], batch: int) -> float:
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


@dataclass(frozen=True)
class Schedule:
    """Intervals in optimizer steps; eval_steps is None where nothing is held out. evaluations: in the whole run."""

    total_steps: int
    warmup_steps: int
    logging_steps: int
    eval_steps: int | None
    save_steps: int

    @property
    def evaluations(self) -> int:
        return self.total_steps // self.eval_steps if self.eval_steps else 0


def schedule(train: TrainSection, batching: Batching, reasons: dict[str, str], *, held_out: bool) -> Schedule:
    """The run's steps; each value's reason goes to `reasons`. held_out: there is data to evaluate."""
    total_steps = math.ceil(batching.steps_per_epoch * train.epochs)
    in_step = f"{batching.micro} × {batching.accumulation} a step"
    reasons["total_steps"] = f"{batching.rows} rows, {in_step}, {train.epochs:g} epochs"
    if train.max_steps is not None:
        total_steps = train.max_steps
        reasons["total_steps"] = "recipe's max_steps"

    eval_steps, reasons["eval_steps"] = None, "the recipe names no held-out data"
    if held_out:
        eval_steps = train.eval_steps or max(1, math.ceil(total_steps / _EVALUATIONS_PER_RUN))
        chosen = f"about {_EVALUATIONS_PER_RUN} evaluations in {total_steps} steps"
        reasons["eval_steps"] = "recipe" if train.eval_steps else chosen
    # Save with each evaluation: the best weights can only be restored from a saved checkpoint.
    save_steps = eval_steps or train.save_steps or max(1, math.ceil(total_steps / 2))
    if eval_steps and train.save_steps:
        save_steps = eval_steps * max(1, round(train.save_steps / eval_steps))
    reasons["save_steps"] = "with each evaluation, to keep the best" if eval_steps else "half-way and at the end"
    logging_steps = train.logging_steps or max(1, total_steps // _EVERY_STEP_UP_TO)
    points = f"{total_steps // logging_steps} points on the curve"
    reasons["logging_steps"] = "recipe" if train.logging_steps else points
    reasons["warmup_steps"] = f"{train.warmup_ratio:.0%} of {total_steps} steps, rounded up"
    return Schedule(total_steps, math.ceil(total_steps * train.warmup_ratio), logging_steps, eval_steps, save_steps)
