"""Ways to cut a step: worked by hand, and what must hold for any lengths."""

import math

from hypothesis import given
from hypothesis import strategies as st

from slimtune.plan import batching
from slimtune.recipe.schema import TrainSection


def train(batch, micro=None, accumulation=None, row_length=None):
    return TrainSection(
        effective_batch_size=batch,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        row_length=row_length,
    )


def pack(tokens, longest=None, limit=2048, batch=8, **fixed):
    return batching.packed(train(batch, **fixed), tokens, longest=longest or max(tokens), max_seq_length=limit)


def test_a_step_in_one_row_or_in_several():
    found = {(way.row_length, way.micro, way.accumulation) for way in pack([128] * 96)}
    # 8 · 128 = 1024 tokens: one row of 1024, or two of 512, together or one after the other; the last resort of memory
    # is a row an example.
    assert {(1024, 1, 1), (512, 2, 1), (512, 1, 2), (128, 8, 1), (128, 1, 8)} <= found


def test_rows_never_exceed_the_limit():
    ways = pack([1000] * 64, batch=16)
    # 16,000 tokens a step: eight rows of two examples each, all at once or down to one at a time.
    assert {(way.row_length, way.micro, way.accumulation) for way in ways if way.row_length > 1024} == {
        (2048, 8, 1),
        (2048, 4, 2),
        (2048, 2, 4),
        (2048, 1, 8),
    }
    whole = next(way for way in ways if way.micro == 8)
    assert (whole.rows, whole.peak_tokens, whole.computed_tokens, whole.examples_per_row) == (32, 16384, 16000, 2.0)


def test_fixed_values_are_kept():
    (way,) = pack([100] * 50, row_length=512, micro=2, accumulation=3)
    assert (way.row_length, way.micro, way.accumulation) == (512, 2, 3)
    assert way.rows == 10 and way.steps_per_epoch == math.ceil(5 / 3)


def test_padded_batches_divide_the_effective_batch():
    ways = batching.padded(train(12), [50, 100] * 20, longest=100, max_seq_length=512, most=8)
    assert [(way.micro, way.accumulation) for way in ways] == [(6, 2), (4, 3), (3, 4), (2, 6), (1, 12)]
    assert ways[-1].computed_tokens == ways[-1].useful_tokens == 75
    assert 75 * 6 < ways[0].computed_tokens <= 600  # six at a time: nearly always a long one among them
    assert ways[0].peak_tokens == 600


@given(st.lists(st.integers(1, 1500), min_size=1, max_size=60), st.integers(1, 40), st.integers(0, 500), st.booleans())
def test_any_packing_holds_every_example_and_about_the_batch(tokens, batch, longer, one_row):
    longest = min(max(tokens) + longer, 2048)
    ways = pack(tokens, longest=longest, batch=batch, micro=1 if one_row else None)
    assert ways
    for way in ways:
        assert longest <= way.row_length <= 2048
        assert way.row_length * way.rows >= sum(tokens)
        assert way.peak_tokens <= way.micro * way.row_length
        in_step = way.micro * way.accumulation * way.examples_per_row
        # Whole rows: never off by more than half of what they hold, or by a row.
        assert abs(in_step - batch) <= max(way.examples_per_row, way.micro * way.examples_per_row / 2) + 1e-9
