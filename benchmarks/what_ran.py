"""Which kernels a step really took: Unsloth chooses among several for attention and for the loss, without saying which.

Attention is seen by counting calls to the functions that Unsloth's dispatcher picks from; the loss through Unsloth's own
counters. Both look at modules that are loaded already and import none: on a machine without a GPU, importing the CUDA
side would replace parts of the CPU backend.
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_DISPATCH = "unsloth.utils.attention_dispatch"
_LOSS = "unsloth_zoo.fused_losses.fused_linear"

# The globals that `_run_attention` calls in Unsloth 2026.10.9, in words.
ATTENTION = {
    "flash_attn_varlen_func": "flash-attn, packed",
    "flash_attn_func": "flash-attn, dense",
    "xformers_attention": "xformers",
    "_torch_varlen_packed": "torch varlen",
    "_sdpa_packed_segments": "torch SDPA, segment by segment",
    "build_sdpa_packed_attention_mask": "torch SDPA with a dense mask",
}


@contextmanager
def attention_calls() -> Iterator[Counter[str]]:
    """Counts, by name in words, which attention runs inside the block; empty where Unsloth's CUDA side is not loaded."""
    calls: Counter[str] = Counter()
    dispatch = sys.modules.get(_DISPATCH)
    originals = {name: found for name in ATTENTION if callable(found := getattr(dispatch, name, None))}
    for name, function in originals.items():
        setattr(dispatch, name, _counted(function, ATTENTION[name], calls))
    try:
        yield calls
    finally:
        for name, function in originals.items():
            setattr(dispatch, name, function)


def _counted(function: Callable[..., Any], name: str, calls: Counter[str]) -> Callable[..., Any]:
    @functools.wraps(function)
    def counting(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if result is not None:  # None: this one declined, and the next is asked
            calls[name] += 1
        return result

    return counting


def loss_counters() -> Counter[str]:
    """Unsloth's counters of fused losses so far: "ce" calls, of which "flash" ran tile by tile."""
    return Counter(getattr(sys.modules.get(_LOSS), "CALLS", {}))


def loss_path(before: Counter[str], after: Counter[str]) -> str:
    """The path that the losses between two readings of `loss_counters` took, in words."""
    fused, tiled = (after[name] - before[name] for name in ("ce", "flash"))
    if not fused:
        return "not Unsloth's fused head and loss"
    if tiled == fused:
        return "fused, tile by tile"
    return "fused, some tile by tile" if tiled else "fused, in chunks of rows"
