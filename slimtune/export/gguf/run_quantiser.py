"""Quantise a 16-bit GGUF: llama.cpp's routine from a prebuilt library, with llama.cpp's mixture of types.

    PYTHONPATH=…/gguf-py python run_quantiser.py SOURCE OUT KIND LIBRARY
    PYTHONPATH=…/gguf-py python run_quantiser.py --check SOURCE OUT KIND      # only compares the types of what is there

LIBRARY exports `ggml_quantize_chunk` (ggml.h), as the one inside the xllamacpp wheel does. Types and order of the
tensors are llama.cpp's choice (src/llama-quant.cpp, b11549) for architectures without experts: the file equals the one
that `llama-quantize` writes, byte for byte.

This script imports nothing of slimtune; llama.cpp's gguf package is on its path. Standard output: one JSON object.
"""

import ctypes
import json
import os
import re
import struct
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

ALIGNMENT = 32  # GGUF_DEFAULT_ALIGNMENT
_QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION
# Kind to its number as a file type (llama.h, enum llama_ftype) and the type of most of its tensors.
KINDS = {"q8_0": (7, "Q8_0"), "q4_k_m": (15, "Q4_K"), "q5_k_m": (17, "Q5_K"), "q6_k": (18, "Q6_K")}
# Where a row is no multiple of 256 (llama-quant.cpp, tensor_type_fallback).
FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
BLOCKS = {"Q8_0": 32, "Q5_0": 32, "Q5_1": 32, "Q4_K": 256, "Q5_K": 256, "Q6_K": 256}
_REPLACED_KEYS = ("general.quantization_version", "general.file_type")
_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
_LAYER = re.compile(r"blk\.(\d+)\.")
_UINT32 = 4  # GGUF_TYPE_UINT32
_CHUNK_VALUES = 4 * 2**20


def target_types(tensors: Mapping[str, Sequence[int]], kind: str, layers: int) -> dict[str, str | None]:
    """Tensor name to its type in a file of `kind`, in llama.cpp's order; None where it stays as it is.

    tensors: name to shape, the length of a row first. Raises ValueError for a row that no type fits.
    """
    chosen: dict[str, str | None] = {}
    tied = "output.weight" not in tensors
    # Of the tensors that some layers store with more bits: how many there are, and how many have been seen.
    counts = {"attn_v.weight": sum(name.endswith("attn_v.weight") for name in tensors), "ffn_down": layers}
    seen = dict.fromkeys(counts, 0)
    for name in sorted(tensors, key=place):
        shape = tensors[name]
        if len(shape) < 2 or not name.endswith("weight") or name.endswith("_norm.weight"):
            chosen[name] = None
            continue
        wanted = KINDS[kind][1]
        part = next((part for part in counts if part in name), None)
        if name == "output.weight" or (tied and name == "token_embd.weight"):
            if shape[0] % BLOCKS[wanted]:
                wanted = "Q8_0"
            elif wanted != "Q8_0":
                wanted = "Q6_K"
        elif part:
            if kind in ("q4_k_m", "q5_k_m") and more_bits(seen[part], counts[part]):
                wanted = "Q6_K"
            seen[part] += 1
        if shape[0] % BLOCKS[wanted]:
            wanted = FALLBACKS.get(wanted, wanted)
        if shape[0] % BLOCKS[wanted]:
            raise ValueError(f"{name!r} has rows of {shape[0]}, which is not a multiple of {BLOCKS[wanted]}")
        chosen[name] = wanted
    return chosen


def more_bits(index: int, count: int) -> bool:
    """The layers that the mixtures called _M give more bits: the first and last eighth, and every third between."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def place(name: str) -> tuple[int, str]:
    """llama.cpp's order of tensors: those outside of layers first, then layer by layer, by name."""
    match = _LAYER.match(name)
    return (int(match[1]) if match else -1, name)


def quantiser(library: str) -> Callable[[Any, str, int], Any]:
    """(values, type, row length) → bytes; values: fp32, rows in a row.

    Raises OSError or AttributeError where the library cannot be loaded or does not export the routine.
    """
    import numpy
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    routine = ctypes.CDLL(library).ggml_quantize_chunk
    routine.restype = ctypes.c_size_t
    number, pointer, length = ctypes.c_int, ctypes.c_void_p, ctypes.c_int64
    routine.argtypes = [number, pointer, pointer, length, length, length, pointer]

    def quantise(values: Any, kind: str, row_length: int) -> Any:
        number = GGMLQuantizationType[kind]
        block, size = GGML_QUANT_SIZES[number]
        rows = values.size // row_length
        result = numpy.empty(values.size // block * size, numpy.uint8)
        written = routine(int(number), values.ctypes.data, result.ctypes.data, 0, rows, row_length, None)
        if written != result.nbytes:
            raise ValueError(f"{kind}: {written} bytes written, {result.nbytes} expected")
        return result

    return quantise


def as_float32(data: Any, kind: str) -> Any:
    """The stored values of an F32, F16 or BF16 tensor, flat, in fp32. Raises ValueError for another type."""
    import numpy

    if kind == "BF16":
        return (data.reshape(-1).view(numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32)
    if kind not in ("F16", "F32"):
        raise ValueError(f"a tensor of type {kind} is already quantised: use a 16-bit GGUF")
    return numpy.ascontiguousarray(data.reshape(-1), numpy.float32)


def write(source: str, out: str, kind: str, library: str) -> dict[str, Any]:
    """Quantise `source` to the file `out`; returns how many tensors have which type, and which fell back to another."""
    import gguf
    import numpy

    reader = gguf.GGUFReader(source)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    final = final_types(reader, kind)
    sizes = {name: _bytes(tensors[name], final[name]) for name in final}
    quantise = quantiser(library)
    with Path(out).open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        _write_head(file, reader, final, sizes, kind)
        for name in final:
            tensor = tensors[name]
            if final[name] == tensor.tensor_type.name:
                file.write(numpy.ascontiguousarray(tensor.data).tobytes())
            else:
                for part in in_order(pool, quantise, _pieces(tensor, final[name])):
                    file.write(part.tobytes())
            file.write(bytes(-sizes[name] % ALIGNMENT))
        file.flush()
        os.fsync(file.fileno())
    return _report(final, kind)


def final_types(reader: Any, kind: str) -> dict[str, str]:
    """Tensor name to its type in a file of `kind` that is made from the one in `reader`, in llama.cpp's order."""
    architecture = reader.get_field("general.architecture").contents()
    layers = int(reader.get_field(f"{architecture}.block_count").contents())
    stored = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    shapes = {tensor.name: [int(length) for length in tensor.shape] for tensor in reader.tensors}
    return {name: chosen or stored[name] for name, chosen in target_types(shapes, kind, layers).items()}


def in_order(pool: ThreadPoolExecutor, work: Callable[..., Any], pieces: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """Yield `work` of each piece in order, with only a few pieces in memory; `pool.map` would make them all at once."""
    waiting: deque[Any] = deque()
    for piece in pieces:
        waiting.append(pool.submit(work, *piece))
        if len(waiting) > 2 * (os.cpu_count() or 1):
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def check(source: str, out: str, kind: str) -> dict[str, Any]:
    """As `write`, for a file that another program wrote. Raises ValueError for a tensor of an unexpected type."""
    import gguf

    expected = final_types(gguf.GGUFReader(source), kind)
    found = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(out).tensors}
    for name in sorted(expected.keys() | found.keys(), key=place):
        if expected.get(name) != found.get(name):
            raise ValueError(f"{name!r} is {found.get(name)}, but a {kind} file needs {expected.get(name)}")
    return _report(found, kind)


def _report(final: Mapping[str, str], kind: str) -> dict[str, Any]:
    fallbacks = set(FALLBACKS.values()) - {KINDS[kind][1]}
    return {
        "tensor_types": dict(Counter(final.values())),
        "fallbacks": [name for name, stored in final.items() if stored in fallbacks],
    }


def _pieces(tensor: Any, kind: str) -> Iterator[tuple[Any, str, int]]:
    """Whole rows of a tensor, a few million values at a time, as arguments of `quantise`."""
    import numpy

    flat, row_length = tensor.data.reshape(-1), int(tensor.shape[0])
    # BF16 comes as bytes, two a value.
    width = 2 if tensor.tensor_type.name == "BF16" and flat.dtype == numpy.uint8 else 1
    step = max(1, _CHUNK_VALUES // row_length) * row_length * width
    for start in range(0, flat.size, step):
        yield as_float32(flat[start : start + step], tensor.tensor_type.name), kind, row_length


def _bytes(tensor: Any, kind: str) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return int(tensor.n_elements) // block * size


def _write_head(file: BinaryIO, reader: Any, final: dict[str, str], sizes: dict[str, int], kind: str) -> None:
    """Write magic, version, the source's metadata with what quantisation changes, and the place of each tensor."""
    from gguf import GGMLQuantizationType

    dropped = (*_REPLACED_KEYS, *_SPLIT_KEYS)
    kept = [field for name, field in reader.fields.items() if not name.startswith("GGUF.") and name not in dropped]
    metadata = [b"".join(part.tobytes() for part in field.parts) for field in kept]
    metadata += [_uint32(_REPLACED_KEYS[0], _QUANTIZATION_VERSION), _uint32(_REPLACED_KEYS[1], KINDS[kind][0])]
    file.write(struct.pack("<4sIQQ", b"GGUF", 3, len(final), len(metadata)))
    file.write(b"".join(metadata))
    shapes = {tensor.name: tensor.shape for tensor in reader.tensors}
    offset = 0
    for name, stored in final.items():
        encoded, shape = name.encode(), [int(length) for length in shapes[name]]
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        file.write(struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        file.write(struct.pack("<IQ", int(GGMLQuantizationType[stored]), offset))
        offset += sizes[name] + -sizes[name] % ALIGNMENT
    file.write(bytes(-file.tell() % ALIGNMENT))


def _uint32(key: str, value: int) -> bytes:
    encoded = key.encode()
    return struct.pack("<Q", len(encoded)) + encoded + struct.pack("<II", _UINT32, value)


def main() -> None:
    try:
        report = check(*sys.argv[2:]) if sys.argv[1] == "--check" else write(*sys.argv[1:])
    except (ValueError, OSError, AttributeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
