"""Examples that are token ids with labels: as the table that a trainer reads, and in the batches that it makes of it.

A batch is a mapping of tensors of shape (rows, tokens). Padded rows have an attention_mask; a packed row has position_ids
in which every 0 begins an example. This module is a `methods.Batches`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from slimtune.core.errors import DOES_NOT_FIT, SlimtuneError, fail
from slimtune.data.chat_template import IGNORE_INDEX, Example, as_key
from slimtune.train.methods import Batch

if TYPE_CHECKING:
    import datasets
    import pyarrow

_CHUNK = 1000


def table(examples: Sequence[Example]) -> datasets.Dataset:
    """A row an example: `input_ids` and `labels`, lists of 32-bit integers.
    `Dataset.from_dict` would turn every token into a Python object first, and labels into 64 bits."""
    import datasets
    import pyarrow
    from datasets.fingerprint import generate_random_fingerprint

    columns = {name: _column([getattr(example, name) for example in examples]) for name in ("input_ids", "labels")}
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


def key(example: Example) -> bytes:
    return as_key(example.input_ids)


def keys(batch: Batch) -> Iterator[bytes]:
    return (as_key(ids) for ids, _ in documents(batch))


def size(batch: Batch) -> tuple[int, int]:
    return len(example_lengths(batch)), batch["input_ids"].numel()


def split(batch: Batch, limit: int | None, multiple: int) -> list[tuple[Batch, float]]:
    """The batch in pieces, see `methods.Batches`; a piece's share is that of the labelled tokens."""
    pieces = cut(batch, limit, multiple)
    if len(pieces) == 1:
        return [(batch, 1.0)]
    # The first label of a row has no token before it that predicts it.
    counts = [int((piece["labels"][:, 1:] != IGNORE_INDEX).sum()) for piece in pieces]
    shares = [count / sum(counts) if any(counts) else 1 / len(pieces) for count in counts]
    return list(zip(pieces, shares, strict=True))


def documents(batch: Batch) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The ids and labels of each example in a batch, in order."""
    input_ids, labels = batch["input_ids"].tolist(), batch["labels"].tolist()
    if "position_ids" in batch:
        for ids, row_labels, positions in zip(input_ids, labels, batch["position_ids"].tolist(), strict=True):
            starts = [index for index, position in enumerate(positions) if position == 0]
            for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
                yield tuple(ids[start:end]), tuple(row_labels[start:end])
        return
    for ids, row_labels, mask in zip(input_ids, labels, batch["attention_mask"].tolist(), strict=True):
        length = sum(mask)
        # Loss on padding would be as wrong as loss on the prompt: it stays in view as a label too many.
        extra = tuple(label for label in row_labels[length:] if label != IGNORE_INDEX)
        yield tuple(ids[:length]), tuple(row_labels[:length]) + extra


def cut(batch: Batch, limit: int | None, multiple: int = 1) -> list[Batch]:
    """The batch in pieces, as `split` says.

    A padded batch (rows, tokens) is cut by rows, and each piece trimmed to its longest row, up to a multiple of
    `multiple`. A packed one (1, tokens) is cut where an example begins. A batch within the limit is returned as it is.
    """
    if limit is None or batch["input_ids"].numel() <= limit:
        return [batch]
    lengths, packed = example_lengths(batch), _is_packed(batch)
    widths = lengths if packed else [-(-length // multiple) * multiple for length in lengths]
    groups, first = [], 0
    for end in range(2, len(widths) + 1):
        group = widths[first:end]
        if (sum(group) if packed else len(group) * max(group)) > limit and end - first > 1:
            groups.append(slice(first, end - 1))
            first = end - 1
    if not groups:
        return [batch]
    groups.append(slice(first, len(widths)))
    if packed:
        starts = [sum(lengths[:index]) for index in range(len(lengths) + 1)]
        return [_slice(batch, slice(None), slice(starts[group.start], starts[group.stop]), group) for group in groups]
    return [_slice(batch, group, slice(0, max(widths[group])), group) for group in groups]


def example_lengths(batch: Batch) -> list[int]:
    """Tokens of each example of a collated batch, in order, padding at the end not counted."""
    rows, width = batch["input_ids"].shape
    if not _is_packed(batch):
        if "attention_mask" not in batch:
            return [width] * rows
        masks = batch["attention_mask"].tolist()
        return [max((place for place, seen in enumerate(mask, 1) if seen), default=0) for mask in masks]
    if rows != 1:
        raise _cannot_cut(f"{rows} packed rows")
    if "packed_seq_lengths" in batch:  # as unsloth/utils/packing.py adds it
        return batch["packed_seq_lengths"].tolist()
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    return [end - start for start, end in zip(starts, [*starts[1:], width], strict=True)]


def _is_packed(batch: Batch) -> bool:
    return "packed_seq_lengths" in batch or ("position_ids" in batch and "attention_mask" not in batch)


def _slice(batch: Batch, rows: slice, columns: slice, examples: slice) -> dict[str, Any]:
    import torch

    shape = batch["input_ids"].shape
    piece = {}
    for name, value in batch.items():
        if not isinstance(value, torch.Tensor) or value.dim() == 0:
            piece[name] = value
        elif name == "packed_seq_lengths":
            piece[name] = value[examples].contiguous()
        elif value.shape == shape:
            piece[name] = value[rows, columns].contiguous()
        else:
            raise _cannot_cut(f"'{name}' of shape {tuple(value.shape)}")
    return piece


def _cannot_cut(what: str) -> SlimtuneError:
    return fail(
        f"out of memory, and a batch with {what} cannot be cut into pieces",
        where="train.per_device_train_batch_size",
        fix="make the batches smaller: lower train.per_device_train_batch_size or train.row_length",
        exit_code=DOES_NOT_FIT,
    )
