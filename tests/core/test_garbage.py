"""The collector is off inside and as it was outside."""

import gc

import pytest

from slimtune.core.memory import collector_paused


def test_it_is_off_inside_and_on_again_even_after_an_error():
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError), collector_paused():
        raise ValueError
    assert gc.isenabled()


def test_as_a_decorator():
    assert collector_paused()(gc.isenabled)() is False
    assert gc.isenabled()
