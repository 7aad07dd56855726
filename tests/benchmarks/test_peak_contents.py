"""What was alive at the peak, from allocation events whose sums are worked by hand."""

import types

import pytest

from benchmarks import peak_contents


def event(action, address, size, *where):
    frames = [{"filename": name, "line": line, "name": function} for name, line, function in where]
    return {"action": action, "addr": address, "size": size, "frames": frames}


def alloc(address, size, *where):
    return event("alloc", address, size, *where)


def free(address, size):
    return event("free_requested", address, size)


UNSLOTH = ("/venv/lib/python3.12/site-packages/unsloth/kernels/fast_lora.py", 120, "backward")
TORCH = ("/venv/lib/python3.12/site-packages/torch/nn/functional.py", 9, "linear")
OURS = ("/home/me/slimtune/slimtune/model.py", 40, "load")


def test_the_peak_is_what_was_held_at_once():
    growth, alive = peak_contents.replay([alloc(1, 100), alloc(2, 50), free(1, 100), alloc(3, 90), free(2, 50)])
    assert growth == 150
    assert sorted(entry["size"] for entry in alive) == [50, 100]


def test_an_address_may_be_used_again():
    growth, alive = peak_contents.replay([alloc(1, 100), free(1, 100), alloc(1, 300), alloc(2, 1), free(1, 300)])
    assert growth == 301
    assert sorted(entry["size"] for entry in alive) == [1, 300]


def test_freeing_what_was_there_before_makes_room():
    # 80 bytes from before the record are freed: the peak is only 20 above the beginning.
    growth, alive = peak_contents.replay([free(9, 80), alloc(1, 100), free(1, 100)])
    assert growth == 20
    assert [entry["size"] for entry in alive] == [100]


def test_nothing_allocated_is_no_peak():
    assert peak_contents.replay([event("segment_alloc", 1, 2**20), free(9, 80)]) == (0, [])


def test_bytes_by_the_innermost_line_that_is_not_pytorchs():
    lines = peak_contents.by_line([alloc(1, 70, TORCH, UNSLOTH, OURS), alloc(2, 50, UNSLOTH), alloc(3, 100, OURS)])
    assert lines == [
        ("unsloth/kernels/fast_lora.py:120 backward", 120),
        ("/home/me/slimtune/slimtune/model.py:40 load", 100),
    ]
    assert peak_contents.by_line([alloc(1, 5, TORCH), alloc(2, 7)]) == [
        ("unknown", 7),
        ("torch/nn/functional.py:9 linear", 5),
    ]


class Card:
    """Stands for torch.cuda: what `recorded` calls of it."""

    def __init__(self, events):
        self.recording = []
        self.memory = types.SimpleNamespace(
            _record_memory_history=lambda enabled, **options: self.recording.append((enabled, options)),
            _snapshot=lambda: {"device_traces": [events]},
        )

    def memory_allocated(self):
        return 1_000

    def synchronize(self):
        pass

    def current_device(self):
        return 0


def test_a_record_adds_what_was_there_before_and_ends():
    card = Card([alloc(1, 100, OURS), free(1, 100)])
    with peak_contents.recorded(types.SimpleNamespace(cuda=card)) as found:
        pass
    assert found["base_bytes"] == 1_000
    assert found["peak_bytes"] == 1_100
    assert found["at_peak"] == [{"where": "/home/me/slimtune/slimtune/model.py:40 load", "bytes": 100}]
    assert [enabled for enabled, _ in card.recording] == ["all", None]


def test_a_record_ends_also_where_the_block_fails():
    card = Card([])
    with pytest.raises(MemoryError), peak_contents.recorded(types.SimpleNamespace(cuda=card)):
        raise MemoryError
    assert card.recording[-1] == (None, {})


def test_pytorch_has_what_is_called_with_the_options_that_are_given():
    """The functions have no public name; their signatures are those that `recorded` relies on."""
    import inspect

    import torch

    options = inspect.signature(torch.cuda.memory._record_memory_history).parameters
    assert {"enabled", "context", "stacks", "max_entries"} <= set(options)
    assert "device_traces" in (torch.cuda.memory._snapshot.__doc__ or "")
