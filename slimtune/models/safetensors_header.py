"""Read a safetensors file's header: every tensor's name, shape, format and place. No torch, and no weights are read.

Format: https://huggingface.co/docs/safetensors#format. A file from elsewhere is doubted: what it says must fit its size.
"""

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import SlimtuneError, fail

# The reference implementation's bound (safetensors/src/tensor.rs).
_MOST_HEADER_BYTES = 100_000_000
_LENGTH_BYTES = 8
_POINTER = b"version https://git-lfs"
_AGAIN = "download or copy the file again"
WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of a value, by the format's name for its type."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor. dtype: as the format spells it (BF16, U8, …). begin, end: in the file, in bytes."""

    path: Path
    shape: tuple[int, ...]
    dtype: str
    begin: int
    end: int


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of a file by name, in its order. Raises SlimtuneError where the file is missing, cut off or damaged."""
    with inputs.opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(_LENGTH_BYTES)
        if len(first) < _LENGTH_BYTES:
            raise _damaged(path, "it is cut off")
        if _POINTER.startswith(first):
            raise fail("this is a Git LFS pointer, not the weights", where=str(path), fix="run  git lfs pull  there")
        (length,) = struct.unpack("<Q", first)
        if length > min(size - _LENGTH_BYTES, _MOST_HEADER_BYTES):
            raise _damaged(path, f"its header would have {length:,} bytes, and the file has {size:,}")
        try:
            header = inputs.json_value(file.read(length).decode(), str(path))
        except (SlimtuneError, UnicodeDecodeError) as error:
            raise _damaged(path, f"its header is {inputs.refused(error)}") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    start = _LENGTH_BYTES + length
    found = {name: _stored(path, name, told, start) for name, told in header.items() if name != "__metadata__"}
    end = max((tensor.end for tensor in found.values()), default=start)
    if end != size:
        cut = "it is cut off" if end > size else "something else follows the weights"
        raise _damaged(path, f"{cut}: the header describes {end:,} bytes, and the file has {size:,}")
    return found


def read_bytes(tensor: Stored, *, most: int) -> bytes:
    """A small tensor's bytes. Raises SlimtuneError where it has more than `most` of them."""
    if tensor.end - tensor.begin > most:
        raise _damaged(tensor.path, f"a tensor has {tensor.end - tensor.begin:,} bytes where {most:,} are the most")
    with inputs.opened(tensor.path) as file:
        file.seek(tensor.begin)
        return file.read(tensor.end - tensor.begin)


def _stored(path: Path, name: str, told: Any, start: int) -> Stored:
    try:
        dtype, shape, (begin, end) = told["dtype"], tuple(told["shape"]), told["data_offsets"]
        numbers = (*shape, begin, end)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("not whole numbers")
        if dtype in WIDTHS and math.prod(shape) * WIDTHS[dtype] != end - begin:
            raise ValueError("sizes do not fit")
    except (KeyError, TypeError, ValueError):
        raise _damaged(path, f"its header does not say where {name[:80]!r} is") from None
    return Stored(path, shape, str(dtype), start + begin, start + end)


def _damaged(path: Path, why: str) -> SlimtuneError:
    return fail(f"not a whole safetensors file: {why}", where=str(path), fix=_AGAIN)
