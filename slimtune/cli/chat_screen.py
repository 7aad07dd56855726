"""Where a conversation is shown: replies on standard output and nothing else there, everything else on standard error."""

import contextlib
import json
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Mapping

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from slimtune.core import console as consoles
from slimtune.evaluate.targets.target import Piece
from slimtune.serve.chat_sides import Side

COLUMNS_FROM = 100
"""Characters across from which two replies stand side by side."""


class Screen:
    """Standard output and standard error as they are when it is made."""

    def __init__(self) -> None:
        self.notes = consoles.stderr()
        self._out = sys.stdout
        self.to_terminal = sys.stdout.isatty()
        self._in_thought = self._in_line = False

    def heading(self, side: Side) -> None:
        """Whose reply follows, where two are shown one under the other."""
        self._out.write(f"── {side.name}\n")
        self._out.flush()

    def piece(self, piece: Piece) -> None:
        """A part of a reply, shown at once; a thought dimly, on standard error, since it is not the reply."""
        if piece.thought:
            self.notes.out.print(Text(_harmless(piece.text), style="dim"), end="", soft_wrap=True)
            self._in_thought = True
        elif piece.text:
            self._end_thought()
            self._out.write(_harmless(piece.text) if self.to_terminal else piece.text)
            self._out.flush()
            self._in_line = True

    def end(self) -> None:
        """The end of a reply's line. A script gets a line for an empty reply too."""
        self._end_thought()
        if self._in_line or not self.to_terminal:
            self._out.write("\n")
            self._out.flush()
        self._in_line = False

    def columns(self, replies: Mapping[str, str], thoughts: Mapping[str, str]) -> None:
        """Two replies side by side, by the name of their side."""
        table = Table(box=None, padding=(0, 2, 0, 0), expand=True, header_style="bold")
        for name in replies:
            table.add_column(name, ratio=1, overflow="fold")
        if any(thoughts.values()):
            table.add_row(*(Text(_harmless(thoughts[name].strip()), style="dim") for name in replies))
        table.add_row(*(Text(_harmless(text.strip())) for text in replies.values()))
        RichConsole(file=self._out, highlight=False).print(table)

    def row(self, prompt: str, replies: Mapping[str, str]) -> None:
        """Two replies for a script: a JSON object in a line, {"prompt", "base", "tuned"}."""
        self._out.write(json.dumps({"prompt": prompt, **replies}, ensure_ascii=False) + "\n")
        self._out.flush()

    @property
    def wide(self) -> bool:
        return shutil.get_terminal_size().columns >= COLUMNS_FROM

    @contextlib.contextmanager
    def waiting(self, side: Side) -> Iterator[None]:
        """While a reply is made that is not shown piece by piece."""
        with self.notes.out.status(f"{side.name} answers …"):
            yield

    def _end_thought(self) -> None:
        if self._in_thought:
            self.notes.out.print()
            self._in_thought = False


def _harmless(text: str) -> str:
    """`text` without what would steer the terminal: a model may write escape sequences, which are shown as \\x1b."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character) != "Cc" else f"\\x{ord(character):02x}"
        for character in text
    )
