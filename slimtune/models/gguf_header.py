"""Read a GGUF file's metadata, and every tensor's name, shape, type and place. Format: docs/gguf.md of ggml-org/ggml.

A file from elsewhere is doubted: a count or a length that it cannot have is an error at once. gguf-py is not used because
it reads the whole vocabulary, which takes seconds.
"""

import math
import os
import re
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.units import size_text

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_KEPT = 64
"""Arrays of so many entries are read whole (languages, tags); of longer ones, such as the vocabulary, only the place."""
_MAX_DIMENSIONS = 4
_MAGIC = b"GGUF"
# Far above those of any model, and low enough that a file of nonsense is read in no time.
_MOST_ENTRIES, _MOST_TENSORS, _MOST_TEXTS, _MOST_TEXT_BYTES, _MOST_ALIGNMENT = 2**16, 2**20, 2**24, 2**28, 2**16
_PART = re.compile(r"(?P<stem>.+)-00001-of-(?P<count>\d{5})\.gguf")
_AGAIN = "copy or download it again"
CONVERT_AGAIN = "convert the model again"

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
    """data_start: where the tensor data begins. size: of the file, in bytes. metadata: arrays are lists or LongArray.

    alignment: each tensor begins at a multiple of so many bytes within the data.
    """

    path: Path
    version: int
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    data_start: int
    size: int
    alignment: int

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
    with inputs.opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            start, version = file.read(len(_MAGIC)), _scalar(file, "<I")
            if start != _MAGIC or version not in (2, 3):
                raise fail(_other(start, version), where=str(path), fix="convert the model again")
            tensors, entries = _scalar(file, "<Q"), _scalar(file, "<Q")
            if tensors > _MOST_TENSORS or entries > _MOST_ENTRIES:
                raise ValueError(f"it counts {tensors:,} tensors and {entries:,} entries")
            metadata: dict[str, Any] = {}
            for _ in range(entries):
                key, kind = _string(file, size), _scalar(file, "<I")
                if key in metadata:
                    raise ValueError(f"{key[:80]!r} is there twice")
                metadata[key] = _value(file, kind, size)
            found = tuple(_tensor(file, size) for _ in range(tensors))
            alignment = metadata.get("general.alignment", 32)
            if type(alignment) is not int or not 0 < alignment <= _MOST_ALIGNMENT or alignment & (alignment - 1):
                raise ValueError("general.alignment is not a power of two")
            data_start = -(-file.tell() // alignment) * alignment
        except (struct.error, *inputs.FAULTS, OverflowError, OSError) as error:
            why = "the file ends in the middle of it" if isinstance(error, struct.error) else inputs.reason(error)
            raise fail(f"the GGUF's header is damaged: {why}", where=str(path), fix=_AGAIN) from error
    return Gguf(path, version, metadata, found, data_start, size, alignment)


def read_whole(path: Path) -> Gguf:
    """As `read_gguf`, of a file that a program can load. Raises SlimtuneError with everything in `faults` as well."""
    gguf = read_gguf(path)
    problems = faults(gguf)
    for part in _further_parts(gguf):
        problems += faults(read_gguf(part))
    if problems:
        raise SlimtuneError(problems)
    return gguf


def _further_parts(gguf: Gguf) -> list[Path]:
    """The other files of a model that is split into several, of which llama.cpp is given the first."""
    named, count = _PART.fullmatch(gguf.path.name), gguf.number("split.count") or 1
    if count <= 1 or gguf.number("split.no"):
        return []
    if not named or int(named["count"]) != count:
        what = f"this is the first of {count:,} files, and its name does not say so"
        raise fail(what, where=str(gguf.path), fix=f"give the files their names back: NAME-00001-of-{count:05d}.gguf …")
    return [gguf.path.with_name(f"{named['stem']}-{number:05d}-of-{count:05d}.gguf") for number in range(2, count + 1)]


def faults(gguf: Gguf) -> list[Problem]:
    """Why no program can load the file, though its header can be read: what is cut off, misplaced or missing."""
    told: list[tuple[str, str]] = []
    in_parts = (gguf.number("split.count") or 1) > 1
    if not gguf.text("general.architecture") and not in_parts:
        told.append(("general.architecture is missing: no program can load the file", CONVERT_AGAIN))
    if not gguf.tensors and not in_parts:
        told.append(("the file has no tensors", CONVERT_AGAIN))
    ends = [gguf.data_start + tensor.offset + (tensor.bytes or 0) for tensor in gguf.tensors]
    if beyond := [end for end in ends if end > gguf.size]:
        lacking = size_text(max(beyond) - gguf.size)
        what = f"the file is cut off: {len(beyond)} of {len(ends)} tensors are past its end ({lacking} missing)"
        told.append((what, _AGAIN))
    twice = [name for name, count in Counter(tensor.name for tensor in gguf.tensors).items() if count > 1]
    if twice:
        told.append((f"{len(twice)} tensors are stored twice, first {twice[0][:80]!r}", CONVERT_AGAIN))
    # ggml reads the tensors in one go: each begins where the one before it ends, at a multiple of the alignment.
    place, misplaced = 0, list[str]()
    for tensor in gguf.tensors:
        if tensor.offset != place:
            misplaced.append(tensor.name)
        place = tensor.offset + -(-(tensor.bytes or 0) // gguf.alignment) * gguf.alignment
        if tensor.bytes is None:
            break
    if misplaced and not beyond:
        told.append((f"{len(misplaced)} tensors are not where they should be, first {misplaced[0][:80]!r}", _AGAIN))
    return [Problem(what, str(gguf.path), fix) for what, fix in told]


def _other(start: bytes, version: int) -> str:
    """What a file is instead of a GGUF that can be read."""
    what = "not a GGUF file of version 2 or 3"
    if start != _MAGIC:
        return what
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    return f"{what}: it is for big-endian machines" if 0 < swapped < 2**8 else f"{what}: its version is {version:,}"


def array_text(gguf: Gguf, key: str, index: int) -> str | None:
    """Entry `index` of an array of texts, read from the file; None where there is no such entry."""
    array = gguf.metadata.get(key)
    if isinstance(array, list):
        entry = array[index] if 0 <= index < len(array) else None
        return entry if isinstance(entry, str) else None
    if not isinstance(array, LongArray) or array.kind != _STRING or not 0 <= index < array.count:
        return None
    with inputs.opened(gguf.path) as file:
        try:
            file.seek(array.position)
            for _ in range(index):
                file.seek(_length(file, gguf.size), 1)
            return _string(file, gguf.size)
        except (struct.error, ValueError, OverflowError, OSError):  # a token's text that is no text
            return None


def _tensor(file: BinaryIO, size: int) -> Tensor:
    name, dimensions = _string(file, size), _scalar(file, "<I")
    if dimensions > _MAX_DIMENSIONS:
        raise ValueError(f"{name[:80]!r} has {dimensions:,} dimensions")
    shape = tuple(_scalar(file, "<Q") for _ in range(dimensions))
    kind, offset = _scalar(file, "<I"), _scalar(file, "<Q")
    if kind not in TYPES:
        return Tensor(name, shape, f"type {kind}", offset, None)
    called, block, width = TYPES[kind]
    if shape and shape[0] % block:
        raise ValueError(f"{name[:80]!r} has rows of {shape[0]:,}, which {called} cannot store")
    return Tensor(name, shape, called, offset, math.prod(shape) // block * width)


def _value(file: BinaryIO, kind: int, size: int) -> Any:
    if kind == _STRING:
        return _string(file, size)
    if kind != _ARRAY:
        return _scalar(file, _form(kind))
    kind, count = _scalar(file, "<I"), _scalar(file, "<Q")
    width = 8 if kind == _STRING else struct.calcsize(_form(kind))
    if count * width > size or (kind == _STRING and count > _MOST_TEXTS):
        raise ValueError(f"an array would have {count:,} entries")
    if count <= _KEPT:
        return [_value(file, kind, size) for _ in range(count)]
    passed = LongArray(kind, count, file.tell())
    if kind != _STRING:
        file.seek(count * width, 1)
    else:
        for _ in range(count):
            file.seek(_length(file, size), 1)
    return passed


def _form(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError("an array in an array" if kind == _ARRAY else f"an entry has the unknown type {kind}")
    return _SCALARS[kind]


def _scalar(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _length(file: BinaryIO, size: int) -> int:
    length: int = _scalar(file, "<Q")
    if length > min(size, _MOST_TEXT_BYTES):
        raise ValueError(f"a text would have {length:,} bytes")
    return length


def _string(file: BinaryIO, size: int) -> str:
    length = _length(file, size)
    raw = file.read(length)
    if len(raw) != length:
        raise struct.error
    return raw.decode("utf-8")
