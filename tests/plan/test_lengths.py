"""Lengths and the rows that packing makes of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimtune.data.records import Conversation, Message
from slimtune.plan import lengths


def test_best_fit_decreasing_by_hand():
    # 7+3, 6+4, 5+5 fill three rows of ten; 2 needs a fourth.
    assert lengths.packed_rows([3, 7, 5, 4, 6, 5], 10) == 3
    assert lengths.packed_rows([3, 7, 5, 4, 6, 5, 2], 10) == 4
    assert lengths.packed_rows([10, 10], 10) == 2


@pytest.mark.unsloth
@settings(deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=80))
def test_packed_rows_equal_trls_own_packing(tokens):
    rows = lengths.packed_rows(tokens, 64)
    assert -(-sum(tokens) // 64) <= rows <= len(tokens)
    assert rows == _trl_rows(tokens, 64)


def _trl_rows(tokens, row_length):
    from slimtune.models import backend  # noqa: F401  before trl

    from datasets import Dataset  # isort: skip
    from trl.data_utils import pack_dataset  # isort: skip

    dataset = Dataset.from_dict({"input_ids": [[0] * count for count in tokens]})
    return len(pack_dataset(dataset, row_length, "bfd"))


def test_estimated_lengths_lie_a_little_above_what_qwen_counts():
    """60 Japanese characters are about 45 tokens in Qwen's vocabulary, 60 Latin ones about 15."""
    japanese = Conversation((Message("user", "第" * 60), Message("assistant", "b")))
    latin = Conversation((Message("user", "law " * 15), Message("assistant", "b")))
    estimated = lengths.estimate([japanese, latin])
    assert not estimated.exact
    assert 50 <= estimated.tokens[0] <= 75
    assert 15 <= estimated.tokens[1] <= 40


def test_measured_lengths_are_those_of_the_rendered_examples(template_folder):
    from slimtune.data.chat_template import ChatTokenizer

    tokenizer = ChatTokenizer(template_folder("qwen3"))
    conversation = Conversation((Message("user", "七日か。"), Message("assistant", "b")))
    measured = lengths.of(tokenizer.examples_of([conversation]))
    assert measured.tokens == (len(tokenizer.examples(conversation)[0].input_ids),)
    assert measured.supervised == (2,)
    assert measured.longest == measured.total
