"""What a run really uses of memory, phase by phase, and how far that is from what was predicted.

A phase may begin before torch is imported; a card is looked at only once CUDA is in use.
"""

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core.errors import fail
from slimtune.core.units import size_text

TOLERANCE = 0.05
"""A measurement may differ from its prediction by this share before it is worth a sentence."""

AFTER_TRAINING, EXPORT = "evaluate_tuned", "export"
RESIDENT_SET, RESIDENT_SET_SO_FAR = "peak_resident_set", "peak_resident_set_so_far"
PLAIN_NAMES = {
    "peak_allocated": "peak allocated",
    "peak_reserved": "peak reserved",
    "context": "CUDA context",
    RESIDENT_SET: "peak resident set",
    RESIDENT_SET_SO_FAR: "peak resident set",
}

ON_THE_CARD = "peak on the card"
"""What the allocator reserved and the context together, in the phase where they were largest."""

MAPPED_FROM = 2**20  # bytes from which on `map_large_tensors` keeps a block out of the heap

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def cuda_in_use() -> Any | None:
    """`torch.cuda` once torch is imported and CUDA initialised, else None; imports and initialises nothing."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


class Meter:
    """Peak bytes of each phase of a run: `with meter.phase("load"): …`.

    phases: phase -> figure -> bytes, with the figures that this machine can measure:
      peak_allocated, peak_reserved   what PyTorch's allocator handed out, and what it held, on the card
      context                         what the process holds on the card outside that allocator, see `_context`
      peak_resident_set               the process's own memory; `peak_resident_set_so_far`, of all phases up to this
                                      one, if the system cannot reset the peak
    A repeated phase keeps the larger figure. An outer phase's figures include those of the phases inside.

    used_before_bytes: memory that others used on the card before this process did (nvidia-smi's memory.used).
    card: returns an object with `torch.cuda`'s memory functions, or None while no card is in use.
    """

    def __init__(self, *, used_before_bytes: int = 0, card: Callable[[], Any | None] = cuda_in_use):
        self.phases: dict[str, dict[str, int]] = {}
        self._used_before, self._card = used_before_bytes, card
        self._open: list[str] = []
        self._resident_set = RESIDENT_SET if _forget_resident_peak() else RESIDENT_SET_SO_FAR

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a block; also one that ends with an exception."""
        self.begin(name)
        try:
            yield
        finally:
            self.end(name)

    def begin(self, name: str) -> None:
        """Open a phase that `end` closes. Raises ValueError if it is open already."""
        if name in self._open:
            raise ValueError(f"phase '{name}' has begun already")
        # The counters restart here; an enclosing phase must keep its figures so far.
        self._keep_peaks()
        self._open.append(name)
        self.phases.setdefault(name, {})
        if card := self._card():
            card.reset_peak_memory_stats()
        if self._resident_set == RESIDENT_SET and not _forget_resident_peak():
            self._resident_set = RESIDENT_SET_SO_FAR

    def end(self, name: str) -> None:
        """Close a phase and those inside that are still open. Raises ValueError if it is not open."""
        if name not in self._open:
            raise ValueError(f"phase '{name}' has not begun")
        self._keep_peaks()
        del self._open[self._open.index(name) :]

    def _keep_peaks(self) -> None:
        now = self._read() if self._open else {}
        for name in self._open:
            kept = self.phases[name]
            kept.update({figure: max(size, kept.get(figure, 0)) for figure, size in now.items()})

    def _read(self) -> dict[str, int]:
        figures = {self._resident_set: _resident_peak()}
        if card := self._card():
            figures["peak_allocated"] = card.max_memory_allocated()
            figures["peak_reserved"] = card.max_memory_reserved()
            figures["context"] = self._context(card)
        return figures

    def _context(self, card: Any) -> int:
        """(total - free) - what the allocator reserves - what others used before; never below 0.

        This is CUDA's context, kernels and library memory outside PyTorch's allocator, now, not at its peak. Memory
        that other processes took or freed since `used_before_bytes` was read cannot be told apart and is included.
        """
        free, total = card.mem_get_info()
        return max(0, total - free - card.memory_reserved() - self._used_before)


def peaks(phases: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """The largest figures of a meter's phases, under the names of a prediction.

    The export is not predicted, nor is the resident set after training, which includes matplotlib.
    """
    measured: dict[str, int] = {}
    for phase, figures in phases.items():
        if phase == EXPORT:
            continue
        named = {PLAIN_NAMES[figure]: size for figure, size in figures.items()}
        if phase == AFTER_TRAINING:
            named.pop(PLAIN_NAMES[RESIDENT_SET], None)
        if "peak_reserved" in figures:
            named[ON_THE_CARD] = figures["peak_reserved"] + figures["context"]
        measured = {name: max(named.get(name, 0), measured.get(name, 0)) for name in {**measured, **named}}
    return measured


def _forget_resident_peak() -> bool:
    """Reset the peak of the resident set (VmHWM, see proc(5)); False if the system or a container forbids it."""
    try:
        _CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _resident_peak() -> int:
    """Peak resident set in bytes since the last reset, or since the process began.

    Linux: VmHWM. Elsewhere getrusage's ru_maxrss, in bytes on macOS and in KiB on the BSDs.
    """
    if _STATUS.exists():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def map_large_tensors() -> bool:
    """Make the C library map every block of 1 MiB or more, and unmap it when freed; False if it cannot.

    By default glibc takes blocks of up to 32 MiB from its heap once some were freed. PyTorch's aligned tensors fragment
    that heap: training on a CPU then holds about twice what its tensors need. The price is up to a fifth of the speed
    for large tensors. M_TRIM_THRESHOLD (mallopt(3)) stays as large as glibc would have made it.
    """
    mallopt = _glibc("mallopt")
    return bool(mallopt and mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM) and mallopt(_M_TRIM_THRESHOLD, 64 * 2**20))


def trim() -> None:
    """Return freed memory to the system with malloc_trim(3), where the C library has it.

    After loading, the heaps of several threads hold memory that training cannot reuse.
    """
    if malloc_trim := _glibc("malloc_trim"):
        malloc_trim(0)


def _glibc(function: str) -> Any | None:
    """A function of the process's own C library; None on macOS and with musl."""
    import ctypes

    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collections inside, where very many objects are made that all stay; also a decorator."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _cuda() -> Any | None:
    """`torch.cuda` where there is a card; may initialise it."""
    import torch

    return torch.cuda if torch.cuda.is_available() else None


def cap(limit_bytes: int, card: Callable[[], Any | None] = _cuda) -> None:
    """Hold PyTorch's allocator, thus not the CUDA context, to `limit_bytes`: beyond it, torch.cuda.OutOfMemoryError.

    Raises SlimtuneError without a card and for a limit above the card's memory.
    """
    cuda = card()
    if cuda is None:
        fix = "set it to null on a machine without a card"
        raise fail(
            f"cannot limit a card's memory to {size_text(limit_bytes)}: no card", where="budget.vram_gb", fix=fix
        )
    _, total = cuda.mem_get_info()
    if limit_bytes > total:
        what = f"a limit of {size_text(limit_bytes)} is more than the card's {size_text(total)}"
        raise fail(what, where="budget.vram_gb", fix="set it to what the card has, or to null")
    cuda.set_per_process_memory_fraction(limit_bytes / total)


@dataclass(frozen=True)
class Comparison:
    """A predicted and a measured size in bytes. error: their difference, as a share of the predicted one."""

    name: str
    predicted: int
    measured: int

    @property
    def error(self) -> float:
        if self.predicted:
            return self.measured / self.predicted - 1
        return float("inf") if self.measured else 0.0

    @property
    def within_tolerance(self) -> bool:
        return abs(self.measured - self.predicted) <= TOLERANCE * self.predicted


def compare(predicted: Mapping[str, int], measured: Mapping[str, int]) -> list[Comparison]:
    """What was both predicted and measured, in the order of the prediction."""
    return [Comparison(name, size, measured[name]) for name, size in predicted.items() if name in measured]


def sentences(comparisons: Sequence[Comparison]) -> list[str]:
    """One for each size that is more than `TOLERANCE` from its prediction."""
    found = []
    for one in (one for one in comparisons if not one.within_tolerance):
        predicted = "nothing predicted"
        if one.predicted:
            share = f"{100 * abs(one.error):.0f} % {'more' if one.error > 0 else 'less'} than predicted"
            predicted = f"{size_text(one.predicted)} predicted, {share}"
        found.append(f"{one.name}: {size_text(one.measured)} measured, {predicted}")
    return found
