"""Which kernels ran, seen on stand-ins for Unsloth's modules; test_packing_check.py looks at the real ones."""

import sys
import types
from collections import Counter

import pytest

from benchmarks import what_ran


@pytest.fixture
def dispatcher(monkeypatch):
    """A module with three of the functions that Unsloth's dispatcher picks from; the first one declines."""
    module = types.ModuleType(what_ran._DISPATCH)
    module._sdpa_packed_segments = lambda *args: None
    module.build_sdpa_packed_attention_mask = lambda *args: "mask"
    module.xformers_attention = lambda value, *, scale: value * scale
    monkeypatch.setitem(sys.modules, what_ran._DISPATCH, module)
    return module


def test_calls_are_counted_by_name_and_what_declines_is_not(dispatcher):
    before = dict(vars(dispatcher))
    with what_ran.attention_calls() as calls:
        dispatcher._sdpa_packed_segments(1)
        assert dispatcher.build_sdpa_packed_attention_mask(1) == "mask"
        assert [dispatcher.xformers_attention(2, scale=3) for _ in range(2)] == [6, 6]
    assert calls == {"torch SDPA with a dense mask": 1, "xformers": 2}
    assert dict(vars(dispatcher)) == before


def test_the_functions_are_put_back_also_after_a_failure(dispatcher):
    original = dispatcher.xformers_attention
    with pytest.raises(MemoryError), what_ran.attention_calls():
        raise MemoryError
    assert dispatcher.xformers_attention is original


def test_without_unsloths_cuda_side_there_is_nothing_to_see(monkeypatch):
    monkeypatch.delitem(sys.modules, what_ran._DISPATCH, raising=False)
    monkeypatch.delitem(sys.modules, what_ran._LOSS, raising=False)
    with what_ran.attention_calls() as calls:
        pass
    assert calls == {}
    assert what_ran.loss_counters() == {}


@pytest.mark.parametrize(
    ("ce", "flash", "words"),
    [
        (4, 4, "fused, tile by tile"),
        (4, 0, "fused, in chunks of rows"),
        (4, 1, "fused, some tile by tile"),
        (0, 0, "not Unsloth's fused head and loss"),
    ],
)
def test_the_loss_path_is_the_difference_of_two_readings(monkeypatch, ce, flash, words):
    loss = types.ModuleType(what_ran._LOSS)
    loss.CALLS = {"ce": 7, "flash": 7}
    monkeypatch.setitem(sys.modules, what_ran._LOSS, loss)
    before = what_ran.loss_counters()
    loss.CALLS["ce"] += ce
    loss.CALLS["flash"] += flash
    assert what_ran.loss_path(before, what_ran.loss_counters()) == words
    assert before == Counter(ce=7, flash=7)
