"""How full packed rows and padded batches are, against figures worked by hand."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimtune.plan.packing import Packing, expected_longest, pack


def test_packed_and_padded_by_hand():
    # 60+40, 60+40, 30 in rows of 100: 230 of 300 places. Batches of one are never padded.
    assert pack([60, 40, 60, 40, 30], 100, 1) == Packing(5, 3, 100, 230 / 300, 1, 1.0)


def test_examples_longer_than_a_row_are_left_out():
    found = pack([10, 200, 90], 100, 2)
    assert found is not None and (found.examples, found.rows, found.packed) == (2, 1, 1.0)
    assert pack([200], 100, 2) is None


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_the_expected_longest_is_the_mean_over_all_draws(tokens, batch):
    draws = [max(draw) for draw in itertools.product(tokens, repeat=batch)]
    assert expected_longest(tokens, batch) == pytest.approx(sum(draws) / len(draws))


def test_in_words():
    text = str(Packing(98, 12, 2048, 0.974, 8, 0.712))
    assert text == "12 rows of 2,048 tokens, 97% full; in padded batches of 8, 71% of the places would hold a token"
    assert str(Packing(1, 1, 64, 1.0, 8, 1.0)).startswith("1 row of 64 tokens, 100% full")
