"""A quick piece of work shows no bar; a longer one does, also where nobody counts. Nothing shown steers the terminal."""

import io
import json
import logging
import time

import pytest
from rich.console import Console as RichConsole
from rich.text import Text
from support import command_line

from slimtune.core import console
from slimtune.core.console import Console
from slimtune.core.visible import visible

# A title of the window, red, the line's start, bold for rich, an emoji for rich, backwards, C1, a lone half, other line ends.
STEERING = "\x1b]0;x\x07\x1b[31m\r[bold]:skull:\u202e\u2066\x9b\x7f\udcff\u2028\u200b\x00end\\\\"
SHOWN = r"\x1b]0;x\x07\x1b[31m\r[bold]:skull:\u202e\u2066\x9b\x7f\udcff\u2028\u200b\x00end" + "\\\\"


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


def test_what_could_steer_a_terminal_is_written_out():
    assert visible(STEERING) == SHOWN
    assert visible("a\tb\nc\r\nd 法律 é 👨‍👩‍👧 می‌خواهم") == "a\tb\nc\nd 法律 é 👨‍👩‍👧 می‌خواهم"
    assert visible("pay\u200dpal") == r"pay\u200dpal"


@pytest.mark.parametrize(
    "show",
    [
        lambda out: out.step(STEERING),
        lambda out: out.say(STEERING),
        lambda out: out.warn(STEERING),
        lambda out: out.error(STEERING),
        lambda out: out.paths([("run", STEERING)]),
        lambda out: out.table("x", [("", ""), ("y", STEERING)]),
        lambda out: out.table(STEERING, [("", "b"), ("c", "d")]),
        lambda out: out.out.print(Text(visible(STEERING))),
    ],
)
def test_no_way_of_the_console_lets_it_through(show):
    screen = io.StringIO()
    show(Console(screen))
    assert SHOWN in screen.getvalue()
    assert screen.getvalue().replace("\n", "").isprintable()


def test_what_is_printed_past_the_methods_is_written_out_too():
    screen = io.StringIO()
    Console(screen).out.print(Text("a\x1b[31mb\u202ec"))
    assert screen.getvalue() == "a\\x1b[31mb\\u202ec\n"


def test_a_label_and_a_note_of_a_bar_are_written_out(screen):
    shown = Console(screen)
    with shown.bar("\x1b[31m[bold]") as advance:
        time.sleep(0.1)
        advance(1, 1, "\x1b]0;x\x07")
    assert screen.getvalue() == "  \\x1b[31m[bold] …\n  \\x1b[31m[bold]: 1 of 1  \\x1b]0;x\\x07\n"
    shown.out = console._Out(file=screen, force_terminal=True, force_interactive=True, no_color=True)
    with shown.bar("\x1b[31m[bold]") as advance:
        time.sleep(0.15)
        advance(1, 1, "\x1b]0;x\x07")
    assert "\x1b]0" not in screen.getvalue() and "\x1b[31m" not in screen.getvalue()


def test_an_error_quotes_no_thousands_of_characters(screen):
    Console(screen).error(f"{'9' * 5000} is no number, {'n' * 400} is shown")
    assert screen.getvalue() == f"error: {'9' * 100}… (5,000 characters) is no number, {'n' * 400} is shown\n"


def test_json_for_a_program_means_the_same_and_steers_nothing(capsys):
    console.echo_json({"a": STEERING.replace("\udcff", ""), "b": ["法律", "\U000e0041"]})
    text = capsys.readouterr().out
    assert text.replace("\n", "").isprintable() and "法律" in text
    assert json.loads(text) == {"a": STEERING.replace("\udcff", ""), "b": ["法律", "\U000e0041"]}


def test_data_for_a_program_stay_as_they_are(capsys):
    console.data("a\u2028\x1b\n")
    assert capsys.readouterr().out == "a\u2028\x1b\n"


def test_messages_of_libraries_are_written_out(capsys, monkeypatch):
    monkeypatch.setattr(logging, "_logRecordFactory", logging.LogRecord)
    console.prepare()
    logging.getLogger("library").warning("read %s", "\x1b[31m")
    record = logging.getLogRecordFactory()("library", logging.WARNING, "f", 1, "read %s", ("\x1b[31m",), None)
    assert record.getMessage() == r"read \x1b[31m"


@pytest.mark.parametrize(
    "arguments",
    [["plan", STEERING], ["--" + STEERING], [STEERING], ["plan", "x", "--gpu", STEERING], ["train", STEERING]],
)
def test_arguments_are_repeated_without_steering(arguments):
    outcome = command_line.run(*(argument.replace("\x00", "") for argument in arguments))
    assert outcome.code == 2 and outcome.stderr.startswith("error: ")
    assert outcome.stderr.replace("\n", "").isprintable()
