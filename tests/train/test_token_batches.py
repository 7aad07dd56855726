"""The table that the trainer reads has the rows that `Dataset.from_dict` would make."""

import random
from array import array

import datasets

from slimtune.data.chat_template import Example
from slimtune.train import token_batches


def test_the_same_rows_as_from_dict(monkeypatch):
    monkeypatch.setattr(token_batches, "_CHUNK", 7)
    draw = random.Random(0)
    ids = [array("i", draw.choices(range(151_669), k=draw.randint(1, 20))) for _ in range(50)]
    examples = [Example(one, array("i", [-100] * (len(one) - 1)) + one[-1:], "x:1") for one in ids]
    columns = {
        "input_ids": [list(example.input_ids) for example in examples],
        "labels": [list(example.labels) for example in examples],
    }
    made = token_batches.table(examples)
    assert made[:] == datasets.Dataset.from_dict(columns)[:] == columns
    # Half of what labels take otherwise; both become 64-bit tensors in the collator.
    assert {str(feature.feature.dtype) for feature in made.features.values()} == {"int32"}


def test_no_examples_are_a_table_without_rows():
    made = token_batches.table([])
    assert len(made) == 0
    assert made.column_names == ["input_ids", "labels"]
