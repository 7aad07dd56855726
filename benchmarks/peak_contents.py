"""What the card holds at the moment of a step's peak: bytes by the line of code that allocated them.

Where prediction and measurement differ, this says which term is wrong. PyTorch can record every allocation with its
stack; replaying the record finds the largest moment and what was alive then.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

_MOST_ENTRIES = 400_000
_SHOWN = 40
_NOT_TELLING = ("/torch/", "<frozen", "<string>", "/contextlib.py", "/functools.py")


@contextmanager
def recorded(torch: Any) -> Iterator[dict[str, Any]]:
    """Record the block's allocations on the first card; the dictionary is filled when the block ends.

    base_bytes: on the card when the block began, and so without a stack. peak_bytes: at most during the block.
    at_peak: [{"where": "file:line function", "bytes"}], largest first, of what was allocated during the block.
    Uses PyTorch's `_record_memory_history` and `_snapshot` (2.1 and later), which its memory viewer is built on.
    """
    result: dict[str, Any] = {"base_bytes": torch.cuda.memory_allocated()}
    torch.cuda.memory._record_memory_history("all", context="alloc", stacks="python", max_entries=_MOST_ENTRIES)
    try:
        yield result
        torch.cuda.synchronize()
        events = torch.cuda.memory._snapshot()["device_traces"][torch.cuda.current_device()]
    finally:
        torch.cuda.memory._record_memory_history(None)
    growth, alive = replay(events)
    result["peak_bytes"] = result["base_bytes"] + growth
    result["at_peak"] = [{"where": where, "bytes": size} for where, size in by_line(alive)[:_SHOWN]]


def replay(events: Sequence[Mapping[str, Any]]) -> tuple[int, list[Mapping[str, Any]]]:
    """The most that the events had allocated at once beyond what was there before them, and what was alive then.

    events: PyTorch's trace entries, in order: {"action", "addr", "size", "frames"}.
    """
    held: dict[int, Mapping[str, Any]] = {}
    now = most = peak_at = 0
    for index, event in enumerate(events):
        now += _change(event, held)
        if now > most:
            most, peak_at = now, index + 1
    held = {}
    for event in events[:peak_at]:
        _change(event, held)
    return most, list(held.values())


def _change(event: Mapping[str, Any], held: dict[int, Mapping[str, Any]]) -> int:
    """Bytes by which an event changes what is allocated; `held` is kept up to date."""
    if event["action"] == "alloc":
        held[event["addr"]] = event
        return int(event["size"])
    if event["action"] == "free_requested":
        # What was there before the record began is freed, too: it makes room like anything else.
        held.pop(event["addr"], None)
        return -int(event["size"])
    return 0


def by_line(alive: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Bytes of the allocations by the innermost line of Python that is not PyTorch's own, largest first."""
    sizes: Counter[str] = Counter()
    for event in alive:
        sizes[_line(event.get("frames", ()))] += int(event["size"])
    return sizes.most_common()


def _line(frames: Sequence[Mapping[str, Any]]) -> str:
    """ "unsloth/kernels/fast_lora.py:120 backward"; frames come innermost first."""
    telling = [frame for frame in frames if not any(part in frame["filename"] for part in _NOT_TELLING)]
    chosen = (telling or list(frames))[:1]
    if not chosen:
        return "unknown"
    frame = chosen[0]
    path = frame["filename"].rpartition("site-packages/")[2]
    return f"{path}:{frame['line']} {frame['name']}"
