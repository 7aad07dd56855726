"""4-bit weights as bitsandbytes packs them: read from a checkpoint, or made as the loader makes them."""

import json
import logging
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import torch

from slimtune.export.model_folder import OpenTensors
from slimtune.models.settings import TorchDtype

Rows = slice | EllipsisType


@dataclass(frozen=True, slots=True)
class Nf4:
    """A weight as bitsandbytes packs it, where it is computed. data: two values a byte. scales: of each block, fp32."""

    data: torch.Tensor
    scales: torch.Tensor
    state: Any

    def values(self, rows: Rows) -> torch.Tensor:
        """These rows, or all of it, dequantised: fp32 on the CPU."""
        functional = _functional()
        data, shape, scales = self.data, self.state.shape, self.scales
        if isinstance(rows, slice):
            first, behind = rows.start * shape[1], rows.stop * shape[1]
            data, shape = data[first // 2 : behind // 2], torch.Size((rows.stop - rows.start, shape[1]))
            scales = scales[first // self.state.blocksize : behind // self.state.blocksize]
        own = self.state
        state = functional.QuantState(scales, shape, own.code, own.blocksize, own.quant_type, torch.float32)
        return functional.dequantize_4bit(data[:, None], state).cpu()


def unpacked_shape(base: OpenTensors, name: str) -> tuple[int, ...]:
    """bitsandbytes keeps the shape as JSON, one byte an element, in `….quant_state.bitsandbytes__nf4`."""
    key = next(key for key in base.where if key.startswith(f"{name}.quant_state."))
    return tuple(json.loads(bytes(base.load(key).tolist()))["shape"])


def packed(name: str, data: torch.Tensor, base: OpenTensors, device: str) -> Nf4:
    functional = _functional()
    prefix = f"{name}."
    stats = {key.removeprefix(prefix): base.load(key) for key in base.where if key.startswith(prefix)}
    return _with_scales(data.to(device), functional.QuantState.from_dict(stats, device=torch.device(device)))


def quantised(weight: torch.Tensor, load_dtype: TorchDtype | None, device: str) -> Nf4:
    """As the loader does it: NF4 in blocks of 64, double quantisation."""
    functional = _functional()
    loaded = weight.to(device=device, dtype=getattr(torch, load_dtype) if load_dtype else weight.dtype)
    packed, state = functional.quantize_4bit(
        loaded.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4", quant_storage=torch.uint8
    )
    return _with_scales(packed, state)


def _with_scales(packed: torch.Tensor, state: Any) -> Nf4:
    """The scales themselves, which double quantisation keeps as 8-bit codes of their distance from a mean."""
    functional = _functional()
    scales = state.absmax
    if state.nested:
        scales = functional.dequantize_blockwise(scales, state.state2) + state.offset
    return Nf4(packed.reshape(-1).view(torch.uint8), scales.float(), state)


def _functional() -> Any:
    """bitsandbytes.functional. On a CPU its import recommends kernels for inference in 4 bit, which nothing here does."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    from bitsandbytes import functional

    return functional
