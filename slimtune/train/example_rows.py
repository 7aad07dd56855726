"""Examples to the table that the trainer reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from slimtune.data.chat import Example

if TYPE_CHECKING:
    import datasets
    import pyarrow


def from_examples(examples: Sequence[Example]) -> datasets.Dataset:
    """A row an example: `input_ids` and `labels`, lists of integers, the table that `Dataset.from_dict` makes of them."""
    import datasets
    import pyarrow

    columns = {
        # The types that `Dataset.from_dict` gives columns of these names.
        "input_ids": _column([example.input_ids for example in examples], "int32"),
        "labels": _column([example.labels for example in examples], "int64"),
    }
    return datasets.Dataset(pyarrow.table(columns))


def _column(lists: Sequence[Sequence[int]], kind: str) -> pyarrow.ListArray:
    """One flat array and where each list begins: a fraction of the time that pyarrow takes for lists of integers."""
    import numpy as np
    import pyarrow

    offsets = np.zeros(len(lists) + 1, np.int32)
    np.cumsum([len(one) for one in lists], out=offsets[1:])
    values = np.concatenate([np.array(one, kind) for one in lists]) if lists else np.zeros(0, kind)
    return pyarrow.ListArray.from_arrays(offsets, values)
