"""How a model is loaded and given a fresh adapter. No torch, so that a plan can be made of it."""

from dataclasses import dataclass
from typing import Literal

TorchDtype = Literal["bfloat16", "float16", "float32"]
TORCH_NAMES: dict[str, TorchDtype] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""A plan's `precision` and torch's name for it."""


@dataclass(frozen=True)
class LoadSettings:
    """Lengths are tokens. device: "cuda" or "cpu". precision: "bf16", "fp16" or "fp32". cpu_threads: None leaves it to torch.

    memory_limit_bytes: cap of the card's allocator, None on a CPU. offload_embedding, offload_layers: frozen weights kept
    in the computer's memory. checkpoint_skip_layers: layers that keep their activations. double_buffer: two staging
    buffers for checkpoints that go to the computer's memory.
    """

    device: str
    precision: str
    cpu_threads: int | None
    memory_limit_bytes: int | None
    load_in_4bit: bool
    offload_embedding: bool
    offload_layers: int
    max_seq_length: int
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    lora_targets: tuple[str, ...]
    gradient_checkpointing: str | bool
    checkpoint_skip_layers: int
    double_buffer: bool
    seed: int
