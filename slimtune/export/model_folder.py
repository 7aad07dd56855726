"""Model folders on disk: safetensors shards read and written one tensor at a time, and folders that appear whole.

The safetensors files are written here, in the layout that the format's specification gives
(https://huggingface.co/docs/safetensors#format), because the reference library wants a whole shard in memory.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimtune.core.errors import fail
from slimtune.models.weights import shard_paths

if TYPE_CHECKING:
    import torch

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja",
)  # fmt: skip
OTHER_FILES = ("generation_config.json", "LICENSE", "LICENSE.txt", "NOTICE")
_DTYPE_CODES = {"torch.bfloat16": "BF16", "torch.float16": "F16", "torch.float32": "F32"}


@dataclass(frozen=True, slots=True)
class OpenTensors:
    """Open safetensors shards: `where[name]` is the handle that holds the tensor `name`."""

    where: dict[str, Any]

    def load(self, name: str) -> torch.Tensor:
        return self.where[name].get_tensor(name)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.where[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """As the format spells it: BF16, F16, F32, U8, …"""
        return self.where[name].get_slice(name).get_dtype()


@contextmanager
def open_tensors(paths: Sequence[Path]) -> Iterator[OpenTensors]:
    """All tensors of these safetensors files, in the files' order. Nothing is read before it is asked for."""
    from safetensors import SafetensorError, safe_open

    where: dict[str, Any] = {}
    with ExitStack() as stack:
        for path in paths:
            try:
                handle = stack.enter_context(safe_open(path, framework="pt", device="cpu"))
            except (SafetensorError, OSError) as error:
                what = f"not a readable safetensors file: {error}"
                raise fail(what, where=str(path), fix="fetch it again") from error
            where.update(dict.fromkeys(handle.keys(), handle))
        yield OpenTensors(where)


def parameter_count(model_dir: Path) -> int:
    """Elements of all tensors, from the headers alone."""
    with open_tensors(shard_paths(model_dir)) as tensors:
        return sum(math.prod(tensors.shape(name)) for name in tensors.where)


def write_safetensors(
    path: Path,
    entries: Sequence[tuple[str, tuple[int, ...]]],
    tensors: Iterable[torch.Tensor],
    dtype: torch.dtype,
    on_written: Callable[[int], None],
) -> None:
    """Write `tensors`, one for each (name, shape), all of `dtype`, one at a time. on_written: called with bytes."""
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in entries:
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _DTYPE_CODES[str(dtype)], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for (name, shape), tensor in zip(entries, tensors, strict=True):
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                raise ValueError(f"{name}: planned {shape} {dtype}, got {tuple(tensor.shape)} {tensor.dtype}")
            raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            on_written(file.write(raw.data))


def existing_file(path: Path) -> Path:
    if not path.is_file():
        raise fail("no such file", where=str(path), fix="get the model again from where it came")
    return path
