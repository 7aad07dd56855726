"""Model folders on disk: safetensors shards read and written one tensor at a time, and folders that appear whole.

The safetensors files are written here, in the layout that the format's specification gives
(https://huggingface.co/docs/safetensors#format), because the reference library wants a whole shard in memory.
"""

from __future__ import annotations

import errno
import json
import math
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimtune.core.errors import fail
from slimtune.core.files import sync_path
from slimtune.models.weights import shard_paths

if TYPE_CHECKING:
    import torch

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


@contextmanager
def staged_folder(out_dir: Path) -> Iterator[Path]:
    """Yield `<out_dir>.partial` to write into; it gets its final name only when everything is on the disk.

    What a killed process left under the temporary name is removed first; after an error nothing is left.
    """
    partial = out_dir.with_name(out_dir.name + ".partial")
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for path in partial.iterdir():
            sync_path(path)
        sync_path(partial)
        partial.replace(out_dir)
        sync_path(out_dir.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise fail("the disk filled up", where=str(out_dir), fix="free some space and try again") from error
        raise


def existing_file(path: Path) -> Path:
    if not path.is_file():
        raise fail("no such file", where=str(path))
    return path
