"""A quick piece of work shows no bar; a longer one does, also where nobody counts."""

import io
import time

import pytest
from rich.console import Console as RichConsole

from slimtune.core import console
from slimtune.core.console import Console


@pytest.fixture
def screen(monkeypatch):
    monkeypatch.setattr(console, "PATIENCE_SECONDS", 0.05)
    return io.StringIO()


def test_quick_work_shows_nothing(screen):
    with Console(screen).bar("Reading") as advance:
        advance(1, 2)
    time.sleep(0.1)
    assert screen.getvalue() == ""


def test_longer_work_shows_how_far_it_is(screen):
    with Console(screen).bar("Reading") as advance:
        time.sleep(0.1)
        advance(1000, 2000)
        advance(2000, 2000, "2 passes")
    assert "Reading: 2,000 of 2,000  2 passes" in screen.getvalue()


def test_uncounted_work_is_announced_once(screen):
    with Console(screen).bar("Reading"):
        time.sleep(0.15)
        assert screen.getvalue() == "  Reading …\n"
    assert screen.getvalue().count("Reading") == 1


def test_an_error_ends_the_bar(screen):
    with pytest.raises(ValueError, match="no"), Console(screen).bar("Reading"):
        raise ValueError("no")
    time.sleep(0.1)
    assert screen.getvalue() == ""


def test_a_terminal_gets_a_live_bar(screen):
    shown = Console(screen)
    shown.out = RichConsole(file=screen, force_terminal=True, force_interactive=True)
    with shown.bar("Reading") as advance:
        time.sleep(0.15)
        advance(1000, 2000)
    assert "Reading" in screen.getvalue() and "1,000 of 2,000" in screen.getvalue()
