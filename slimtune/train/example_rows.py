"""Examples to the table that the trainer reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from slimtune.data.chat_template import Example

if TYPE_CHECKING:
    import datasets
    import pyarrow

_CHUNK = 1000


def from_examples(examples: Sequence[Example]) -> datasets.Dataset:
    """A row an example: `input_ids` and `labels`, lists of 32-bit integers.

    What `Dataset.from_dict` makes of them, which turns every token into a Python object first, and labels into 64 bits.
    """
    import datasets
    import pyarrow
    from datasets.fingerprint import generate_random_fingerprint

    columns = {
        "input_ids": _column([example.input_ids for example in examples]),
        "labels": _column([example.labels for example in examples]),
    }
    # Without a fingerprint it would hash the whole table, copying it several times; nothing is looked up in a cache here.
    return datasets.Dataset(pyarrow.table(columns), fingerprint=generate_random_fingerprint())


def _column(lists: Sequence[Sequence[int]]) -> pyarrow.ChunkedArray:
    """In chunks of a thousand lists: offsets of 32 bits would not reach over the tokens of millions."""
    import numpy as np
    import pyarrow

    kind = pyarrow.list_(pyarrow.int32())
    chunks = []
    for start in range(0, len(lists), _CHUNK):
        chunk = lists[start : start + _CHUNK]
        offsets = np.zeros(len(chunk) + 1, np.int32)
        np.cumsum([len(one) for one in chunk], out=offsets[1:])
        values = np.concatenate([np.asarray(one, np.int32) for one in chunk])
        chunks.append(pyarrow.ListArray.from_arrays(offsets, values))
    return pyarrow.chunked_array(chunks, kind)
