"""Silence for what is quick; a line for what is not, also where nobody counts."""

import io
import time

import pytest

from slimtune.core import progress as progresses
from slimtune.core.console import Console
from slimtune.core.progress import Progress


@pytest.fixture
def screen(monkeypatch):
    monkeypatch.setattr(progresses, "PATIENCE_SECONDS", 0.05)
    return io.StringIO()


def test_what_is_quick_says_nothing(screen):
    with Progress("Reading", Console(screen)) as progress:
        progress(1, 2)
    time.sleep(0.1)
    assert screen.getvalue() == ""


def test_what_takes_longer_says_how_far_it_is(screen):
    with Progress("Reading", Console(screen)) as progress:
        time.sleep(0.1)
        progress(1000, 2000)
        progress(2000, 2000)
    assert "Reading: 2,000 of 2,000" in screen.getvalue()


def test_what_nobody_counts_is_announced(screen):
    with Progress("Reading", Console(screen)):
        time.sleep(0.15)
        assert screen.getvalue() == "  Reading …\n"
    assert screen.getvalue().count("Reading") == 1


def test_an_error_ends_it_too(screen):
    with pytest.raises(ValueError, match="no"), Progress("Reading", Console(screen)):
        raise ValueError("no")
    time.sleep(0.1)
    assert screen.getvalue() == ""
