"""A batch is cut into what the collator would have made of the pieces' examples."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slimtune.core.errors import DOES_NOT_FIT, SlimtuneError

pytestmark = pytest.mark.unsloth


def rows(lengths):
    """Examples of these lengths; token ids count up so that every token is known again. The last two carry loss."""
    ids = itertools.count(1)
    made = [[next(ids) for _ in range(length)] for length in lengths]
    return [{"input_ids": row, "labels": [-100] * (len(row) - 2) + row[-2:]} for row in made]


def collate(examples, *, packed, **arguments):
    """TRL's own collator; for packed batches with the lengths that Unsloth adds to them."""
    from slimtune.models import backend  # noqa: F401

    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling  # isort: skip

    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=packed, **arguments)(examples)
    if packed:
        batch["packed_seq_lengths"] = torch.tensor([len(row["input_ids"]) for row in examples], dtype=torch.int32)
    return batch


def assert_batches_equal(batch, expected):
    assert set(batch) == set(expected)
    for name, value in expected.items():
        assert batch[name].dtype == value.dtype
        assert batch[name].tolist() == value.tolist(), name


@pytest.mark.parametrize(
    ("limit", "groups"),
    [
        (1000, [(0, 5)]),
        (16, [(0, 2), (2, 4), (4, 5)]),  # 3 + 5, 9 + 4, 6: the next would make it 17, and 19
        (12, [(0, 2), (2, 3), (3, 5)]),
        (1, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
    ],
)
def test_a_packed_batch_is_cut_where_examples_begin(limit, groups):
    from slimtune.train import token_batches

    examples = rows([3, 5, 9, 4, 6])
    pieces = token_batches.cut(collate(examples, packed=True), limit)
    expected = [collate(examples[first:end], packed=True) for first, end in groups]
    assert len(pieces) == len(expected)
    for piece, batch in zip(pieces, expected, strict=True):
        assert_batches_equal(piece, batch)
        starts = [index for index, position in enumerate(piece["position_ids"][0].tolist()) if position == 0]
        assert starts[0] == 0
        assert len(starts) == len(piece["packed_seq_lengths"])


def test_a_packed_batch_without_lengths_is_cut_by_its_positions():
    from slimtune.train import token_batches

    examples = rows([3, 5, 9])
    batch = collate(examples, packed=True)
    del batch["packed_seq_lengths"]
    pieces = token_batches.cut(batch, 9)
    assert [piece["position_ids"].tolist() for piece in pieces] == [
        [[0, 1, 2, 0, 1, 2, 3, 4]],
        [[0, 1, 2, 3, 4, 5, 6, 7, 8]],
    ]
    assert torch.cat([piece["input_ids"][0] for piece in pieces]).tolist() == list(range(1, 18))


@given(
    lengths=st.lists(st.integers(2, 30), min_size=1, max_size=9),
    limit=st.integers(1, 120),
    packed=st.booleans(),
    multiple=st.sampled_from([1, 8]),
    positions=st.booleans(),
)
def test_pieces_are_what_the_collator_would_make_of_their_examples(lengths, limit, packed, multiple, positions):
    from slimtune.train import token_batches

    examples = rows(lengths)
    options = {"packed": packed, "return_position_ids": positions}
    if not packed:
        options["pad_to_multiple_of"] = multiple
    batch = collate(examples, **options)
    pieces = token_batches.cut(batch, limit, multiple=multiple)
    if len(pieces) == 1:
        assert pieces[0] is batch
        assert batch["input_ids"].numel() <= limit or len(examples) == 1
        return
    first = 0
    for piece in pieces:
        count = len(token_batches.example_lengths(piece))
        assert_batches_equal(piece, collate(examples[first : first + count], **options))
        assert piece["input_ids"].numel() <= limit or count == 1
        first += count
    assert first == len(examples)


def test_a_batch_of_an_unknown_shape_is_not_cut_by_guess():
    from slimtune.train import token_batches

    batch = {**collate(rows([3, 5]), packed=False), "pixel_values": torch.zeros(7, 3)}
    with pytest.raises(SlimtuneError, match=r"'pixel_values' of shape \(7, 3\) cannot be cut") as caught:
        token_batches.cut(batch, 5)
    assert caught.value.exit_code == DOES_NOT_FIT
