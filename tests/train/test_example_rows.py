"""The table that the trainer reads is the one that `Dataset.from_dict` would make."""

import datasets

from slimtune.data.chat import Example
from slimtune.train.example_rows import from_examples


def test_the_same_table_as_from_dict():
    examples = [Example((1, 2, 3), (-100, -100, 3), "x:1"), Example((151_645,), (151_645,), "x:2")]
    plain = datasets.Dataset.from_dict(
        {
            "input_ids": [list(example.input_ids) for example in examples],
            "labels": [list(example.labels) for example in examples],
        }
    )
    made = from_examples(examples)
    assert made.features == plain.features
    assert made[:] == plain[:]


def test_no_examples_are_a_table_without_rows():
    assert len(from_examples([])) == 0
