"""What a person sees, on a terminal or in a log file: steps, facts, warnings, tables and progress bars.

Everything that the program prints goes through this file, which shows what could steer a terminal or deceive its reader
as \\x1b or \\u202e: names, files, templates, replies and servers hold whatever others put there.
"""

import io
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from slimtune.core.progress import Advance
from slimtune.core.redaction import shown, without_keys
from slimtune.core.visible import STEERING, shortened, visible

PATIENCE_SECONDS = 1.5  # work that ends sooner shows no bar
_LOG_EVERY_SECONDS = 5.0
_LOG_WIDTH = 120


def echo(text: str, *, err: bool = False) -> None:
    """Print a line as it is, without wrapping it, on standard output or standard error."""
    _write(f"{visible(shown(text))}\n", sys.stderr if err else sys.stdout)


def echo_json(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON for another program. What could steer a terminal is escaped as JSON does it, so the value is the same."""
    text = without_keys(json.dumps(value, ensure_ascii=False, indent=indent))
    _write(STEERING.sub(lambda found: json.dumps(found[0])[1:-1], text) + "\n", sys.stdout)


def data(text: str, *, err: bool = False) -> None:
    """Write text as it is: for another program, or what is visible already."""
    _write(text, sys.stderr if err else sys.stdout)


def prepare() -> None:
    """Before the first output of the program: no character may end it, and messages of libraries are made visible too."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # nothing where the stream is closed, something else in tests
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
    logging.setLogRecordFactory(_Logged)


class Console:
    """Prints what work tells (`OnProgress`) and tables. In a file, a bar is a line now and then."""

    def __init__(self, file: Any = None):
        self.out = _Out(file=file, highlight=False)
        if not self.out.is_terminal:
            self.out.width = _LOG_WIDTH

    def step(self, text: str) -> None:
        self.out.print(_text(f"▸ {text}", "bold"))

    def say(self, text: str) -> None:
        self.out.print(_text(f"  {text}"))

    def warn(self, text: str) -> None:
        self.out.print(Text.assemble("  ", ("warning:", "yellow"), " ", _text(text)))

    def bar(self, label: str) -> AbstractContextManager[Advance]:
        """Shown from 1.5 seconds on: "Counting tokens: 12,000 of 100,000", or the label alone where nobody counts."""
        return (_live_bar if self.out.is_interactive else _logged_bar)(self.out, label)

    def table(self, title: str, rows: Sequence[Sequence[str]], *, numbers: bool = False) -> None:
        """A step whose result is a table; the first row is its heading. numbers: after the first column, right-aligned."""
        self.step(title)
        heading, *body = rows
        table = Table(box=None, padding=(0, 2), show_header=any(heading))
        for place, cell in enumerate(heading):
            table.add_column(_text(cell), overflow="fold", justify="right" if numbers and place else "left")
        for row in body:
            table.add_row(*(_text(str(cell)) for cell in row))
        self.out.print(table)

    def paths(self, pairs: Sequence[tuple[str, Path | str]]) -> None:
        """Where everything is."""
        self.step("Done")
        for label, path in pairs:
            self.out.print(_text(f"  {label:<12} {path}"))

    def error(self, text: str) -> None:
        # Shortened last: half a key is not known as one.
        self.out.print(Text("error: ", style="bold red") + Text(shortened(_text(text).plain)), soft_wrap=True)


def stderr() -> Console:
    """A console for errors and for progress beside a command's output."""
    return Console(file=sys.stderr)


@contextmanager
def _live_bar(out: RichConsole, label: str) -> Iterator[Advance]:
    description, told = (TextColumn(form, markup=False) for form in ("  {task.description}", "{task.fields[told]}"))
    columns = (description, BarColumn(bar_width=20), told)
    live = Progress(*columns, console=out)
    with _after_patience(live.start, live.stop):
        task: TaskID = live.add_task(visible(label), total=None, told="")

        def advance(done: int, total: int | None = None, note: str = "") -> None:
            live.update(task, completed=done, total=total, told=_counted(done, total, note))

        yield advance


@contextmanager
def _logged_bar(out: RichConsole, label: str) -> Iterator[Advance]:
    began, last_line, last_time = time.monotonic(), "", 0.0
    printing = threading.Lock()

    def show(line: str, due: bool) -> None:
        nonlocal last_line, last_time
        with printing:
            now = time.monotonic()
            if line != last_line and (due or now - last_time >= _LOG_EVERY_SECONDS):
                last_line, last_time = line, now
                out.print(_text(f"  {line}"))

    def advance(done: int, total: int | None = None, note: str = "") -> None:
        if time.monotonic() - began >= PATIENCE_SECONDS:
            show(f"{label}: {_counted(done, total, note)}", due=done == total)

    with _after_patience(lambda: show(f"{label} …", due=not last_line), lambda: None):
        yield advance


@contextmanager
def _after_patience(start: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    alarm = threading.Timer(PATIENCE_SECONDS, start)
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()
        alarm.join()
        stop()


class _Out(RichConsole):
    """Whatever is printed in this console, nothing of it steers the terminal but its own styles."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            steers = not segment.control and STEERING.search(segment.text)
            yield Segment(visible(segment.text), segment.style) if steers else segment


class _Logged(logging.LogRecord):
    """Libraries log what they read in files."""

    def getMessage(self) -> str:
        return visible(shown(super().getMessage()))


def _text(text: str, style: str = "") -> Text:
    """Text without a meaning for rich: neither [bold] nor :smile: is one. Made visible here, since `Text` drops \\r."""
    return Text(visible(shown(text)), style=style)


def _write(text: str, stream: Any) -> None:
    if stream is not None:  # closed by whoever started the program
        stream.write(text)
        stream.flush()


def _counted(done: int, total: int | None, note: str) -> str:
    counted = f"{done:,}" if total is None else f"{done:,} of {total:,}"
    return f"{counted}  {visible(note)}" if note else counted
