"""How full packed rows and padded batches are, against figures worked by hand."""

import itertools
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimtune.plan.batching import Packing, padded_tokens
from slimtune.plan.batching import compare_packing as pack


def batches(order, size):
    return [order[start : start + size] for start in range(0, len(order), size)]


def test_packed_and_padded_by_hand():
    # 60+40, 60+40, 30 in rows of 100: 230 of 300 places. Batches of one are never padded.
    assert pack([60, 40, 60, 40, 30], 100, 1) == Packing(5, 3, 100, 230 / 300, 1, 1.0)


def test_examples_longer_than_a_row_are_left_out():
    found = pack([10, 200, 90], 100, 2)
    assert found is not None and (found.examples, found.rows, found.packed) == (2, 1, 1.0)
    assert pack([200], 100, 2) is None


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_padding_is_the_mean_over_all_orders(tokens, batch):
    """Batches are cut from a random order, as the trainer's sampler cuts them."""
    assert padded_tokens(tokens, batch) == pytest.approx(
        statistics.fmean(
            sum(max(part) * len(part) for part in batches(order, batch)) for order in itertools.permutations(tokens)
        )
    )


def test_in_words():
    text = str(Packing(98, 12, 2048, 0.974, 8, 0.712))
    assert text == (
        "98 examples in 12 rows of 2,048 tokens, 97% full; "
        "padded batches of 8 would be 71% full: packing computes 71% of their tokens"
    )
    assert str(Packing(1, 1, 64, 1.0, 1, 1.0)) == "1 example in 1 row of 64 tokens, 100% full"


def test_the_tokens_that_are_computed_by_hand():
    # Of 10, 30 and 50 in pairs the longest is 30 once in three and else 50; the one left over is as long as it is.
    # Padded: 2 · (30 + 50 + 50) / 3 + 30 = 350 / 3 tokens. Packed: 90.
    found = pack([10, 30, 50], 60, 2)
    assert found is not None and found.padded == pytest.approx(90 / (350 / 3))


def plan_of_statutes(*overrides):
    from slimtune.recipe import loading as recipes
    from slimtune.run import prepare

    return prepare.prepare(recipes.load("recipes/rag_direct.yaml", overrides), assume_card=True)


def test_a_plan_says_what_packing_saves():
    prepared = plan_of_statutes()
    # The largest batch that divides 8 and of whose longest examples 4,096 tokens hold all.
    assert 4096 // 8 < prepared.data.longest(2048) <= 4096 // 4
    kept = prepared.data.kept(2048)
    share = sum(kept) / padded_tokens(kept, 4)
    said = prepared.plan.reasons["packing"]
    assert said.startswith(f"{len(kept)} examples in ") and "padded batches of 4 would be" in said
    assert said.endswith(f"packing computes {share:.0%} of their tokens")


def test_a_plan_without_packing_says_what_it_would_save():
    plan = plan_of_statutes("train.packing=false", "train.per_device_train_batch_size=2").plan
    kept = plan_of_statutes().data.kept(2048)
    share = sum(kept) / padded_tokens(kept, 2)
    assert plan.reasons["packing"] == f"recipe; packed rows would compute {share:.0%} of the tokens"
