"""Where a conversation is shown: replies alone on standard output, everything else on standard error."""

import shutil
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager

from rich.table import Table
from rich.text import Text

from slimtune.core import console as consoles
from slimtune.core.console import visible
from slimtune.evaluate.targets.target import Piece
from slimtune.serve.chat_sides import Side

COLUMNS_FROM = 100  # characters across, from which two replies stand side by side


class Screen:
    """Standard output and standard error as they are when it is made."""

    def __init__(self) -> None:
        self.notes = consoles.stderr()
        self.to_terminal = sys.stdout.isatty()
        self._in_thought = self._in_line = False

    def heading(self, side: Side) -> None:
        """Whose reply follows, where two are shown one under the other."""
        consoles.echo(f"── {side.name}")

    def piece(self, piece: Piece) -> None:
        """A part of a reply, shown at once; a thought dimly, on standard error, since it is not the reply."""
        if piece.thought:
            self.notes.out.print(Text(visible(piece.text), style="dim"), end="", soft_wrap=True)
            self._in_thought = True
        elif piece.text:
            self._end_thought()
            consoles.data(visible(piece.text) if self.to_terminal else piece.text)
            self._in_line = True

    def end(self) -> None:
        """The end of a reply's line. A script gets a line for an empty reply too."""
        self._end_thought()
        if self._in_line or not self.to_terminal:
            consoles.data("\n")
        self._in_line = False

    @property
    def shows_replies_together(self) -> bool:
        """Whether two replies are shown when both are complete: in columns, or as a line for a script."""
        return not self.to_terminal or shutil.get_terminal_size().columns >= COLUMNS_FROM

    def together(self, prompt: str, replies: Mapping[str, tuple[str, str]]) -> None:
        """Thought and text of two replies, by the name of their side.

        They stand side by side; a script gets a JSON object in a line instead, {"prompt", "base", "tuned"}.
        """
        if not self.to_terminal:
            texts = {name: text for name, (_, text) in replies.items()}
            consoles.echo_json({"prompt": prompt, **texts}, indent=None)
            return
        table = Table(box=None, padding=(0, 2, 0, 0), expand=True, header_style="bold")
        for name in replies:
            table.add_column(Text(visible(name)), ratio=1, overflow="fold")
        if any(thought for thought, _ in replies.values()):
            table.add_row(*(Text(visible(thought.strip()), style="dim") for thought, _ in replies.values()))
        table.add_row(*(Text(visible(text.strip())) for _, text in replies.values()))
        consoles.Console().out.print(table)

    def waiting(self, side: Side) -> AbstractContextManager[object]:
        """While a reply is made that is not shown piece by piece."""
        return self.notes.out.status(Text(f"{visible(side.name)} answers …"))

    def _end_thought(self) -> None:
        if self._in_thought:
            self.notes.out.print()
            self._in_thought = False
