"""What a person sees, on a terminal or in a log file: steps, facts, warnings, tables and progress bars."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from slimtune.core.progress import Advance

PATIENCE_SECONDS = 1.5  # work that ends sooner shows no bar
_LOG_EVERY_SECONDS = 5.0
_LOG_WIDTH = 120


class Console:
    """Prints what work tells (`OnProgress`) and tables. In a file, a bar is a line now and then."""

    def __init__(self, file: Any = None):
        self.out = RichConsole(file=file, highlight=False)
        if not self.out.is_terminal:
            self.out.width = _LOG_WIDTH

    def step(self, text: str) -> None:
        self.out.print(f"[bold]▸ {escape(text)}[/bold]")

    def say(self, text: str) -> None:
        self.out.print(f"  {escape(text)}")

    def warn(self, text: str) -> None:
        self.out.print(f"  [yellow]warning:[/yellow] {escape(text)}")

    def bar(self, label: str) -> AbstractContextManager[Advance]:
        """Shown from 1.5 seconds on: "Counting tokens: 12,000 of 100,000", or the label alone where nobody counts."""
        return (_live_bar if self.out.is_interactive else _logged_bar)(self.out, label)

    def table(self, title: str, rows: Sequence[Sequence[str]], *, numbers: bool = False) -> None:
        """A step whose result is a table; the first row is its heading. numbers: after the first column, right-aligned."""
        self.step(title)
        heading, *body = rows
        table = Table(box=None, padding=(0, 2), show_header=any(heading))
        for place, cell in enumerate(heading):
            table.add_column(escape(cell), overflow="fold", justify="right" if numbers and place else "left")
        for row in body:
            table.add_row(*(escape(str(cell)) for cell in row))
        self.out.print(table)

    def paths(self, pairs: Sequence[tuple[str, Path | str]]) -> None:
        """Where everything is."""
        self.step("Done")
        for label, path in pairs:
            self.out.print(f"  {label:<12} {escape(str(path))}")

    def error(self, text: str) -> None:
        self.out.print(Text("error: ", style="bold red") + Text(text), soft_wrap=True)


def stderr() -> Console:
    """A console for errors and for progress beside a command's output."""
    return Console(file=sys.stderr)


@contextmanager
def _live_bar(out: RichConsole, label: str) -> Iterator[Advance]:
    columns = (TextColumn("  {task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[told]}"))
    live = Progress(*columns, console=out)
    with _after_patience(live.start, live.stop):
        task: TaskID = live.add_task(label, total=None, told="")

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
                out.print(f"  {escape(line)}")

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


def _counted(done: int, total: int | None, note: str) -> str:
    counted = f"{done:,}" if total is None else f"{done:,} of {total:,}"
    return f"{counted}  {note}" if note else counted
