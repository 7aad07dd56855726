"""Read a GGUF file's metadata, and every tensor's name, shape, type and place. Format: docs/gguf.md of ggml-org/ggml.

A file from elsewhere is doubted: a count or a length that it cannot have is an error at once. gguf-py is not used because
it reads the whole vocabulary, which takes seconds.
"""

import math
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from slimtune.core.errors import fail

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_KEPT = 64
"""Arrays of so many entries are read whole (languages, tags); of longer ones, such as the vocabulary, only the place."""
_MAX_DIMENSIONS = 4

# ggml's number of a type: its name, the values in a block, and the block's bytes.
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1),
    25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """shape: fastest dimension first. type: ggml's name, or "type 99" without bytes. offset: in the data, in bytes."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    bytes: int | None


@dataclass(frozen=True, slots=True)
class LongArray:
    """An array that was passed over. kind: ggml's number of its entries' type. position: in the file, of its first entry."""

    kind: int
    count: int
    position: int


@dataclass(frozen=True, slots=True)
class Gguf:
    """data_start: where the tensor data begins. size: of the file, in bytes. metadata: arrays are lists or LongArray."""

    path: Path
    version: int
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    data_start: int
    size: int

    def text(self, key: str) -> str | None:
        """A value that must be text; None where it is missing or something else."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def texts(self, key: str) -> list[str]:
        """A short array of texts; empty where there is none."""
        value = self.metadata.get(key)
        return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []

    @property
    def type_counts(self) -> dict[str, int]:
        return dict(Counter(tensor.type for tensor in self.tensors))


def read_gguf(path: Path) -> Gguf:
    """The file's header and tensor list. Raises SlimtuneError where it is missing, no GGUF of version 2 or 3, or damaged."""
    if not path.is_file():
        raise fail("no such file", where=str(path))
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            magic, version = file.read(4), _scalar(file, "<I")
            if magic != b"GGUF" or version not in (2, 3):
                raise fail("not a GGUF file of version 2 or 3", where=str(path), fix="convert the model again")
            tensors, entries = _scalar(file, "<Q"), _scalar(file, "<Q")
            metadata = {}
            for _ in range(entries):
                key, kind = _string(file, size), _scalar(file, "<I")
                metadata[key] = _value(file, kind, size)
            found = tuple(_tensor(file, size) for _ in range(tensors))
            alignment = metadata.get("general.alignment", 32)
            if not isinstance(alignment, int) or alignment <= 0:
                raise ValueError("alignment")
            start = -(-file.tell() // alignment) * alignment
        except (struct.error, KeyError, ValueError, OverflowError, MemoryError, OSError) as error:
            raise fail("the GGUF's header is damaged", where=str(path), fix="copy or download it again") from error
    return Gguf(path, version, metadata, found, start, size)


def array_text(gguf: Gguf, key: str, index: int) -> str | None:
    """Entry `index` of an array of texts, read from the file; None where there is no such entry."""
    array = gguf.metadata.get(key)
    if isinstance(array, list):
        entry = array[index] if 0 <= index < len(array) else None
        return entry if isinstance(entry, str) else None
    if not isinstance(array, LongArray) or array.kind != _STRING or not 0 <= index < array.count:
        return None
    with gguf.path.open("rb") as file:
        file.seek(array.position)
        for _ in range(index):
            file.seek(_scalar(file, "<Q"), 1)
        return _string(file, gguf.size)


def _tensor(file: BinaryIO, size: int) -> Tensor:
    name, dimensions = _string(file, size), _scalar(file, "<I")
    if dimensions > _MAX_DIMENSIONS:
        raise ValueError("dimensions")
    shape = tuple(_scalar(file, "<Q") for _ in range(dimensions))
    kind, offset = _scalar(file, "<I"), _scalar(file, "<Q")
    if kind not in TYPES:
        return Tensor(name, shape, f"type {kind}", offset, None)
    called, block, width = TYPES[kind]
    return Tensor(name, shape, called, offset, math.prod(shape) // block * width)


def _value(file: BinaryIO, kind: int, size: int) -> Any:
    if kind == _STRING:
        return _string(file, size)
    if kind != _ARRAY:
        return _scalar(file, _SCALARS[kind])
    kind, count = _scalar(file, "<I"), _scalar(file, "<Q")
    if kind != _STRING and kind not in _SCALARS:
        raise ValueError("array of arrays")
    if count * (8 if kind == _STRING else struct.calcsize(_SCALARS[kind])) > size:
        raise ValueError("count")
    if count <= _KEPT:
        return [_value(file, kind, size) for _ in range(count)]
    passed = LongArray(kind, count, file.tell())
    if kind != _STRING:
        file.seek(count * struct.calcsize(_SCALARS[kind]), 1)
    else:
        for _ in range(count):
            file.seek(_scalar(file, "<Q"), 1)
    return passed


def _scalar(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _string(file: BinaryIO, size: int) -> str:
    length = _scalar(file, "<Q")
    if length > size:
        raise ValueError("length")
    raw = file.read(length)
    if len(raw) != length:
        raise ValueError("the file ends")
    return raw.decode("utf-8")  # a UnicodeDecodeError is a ValueError
