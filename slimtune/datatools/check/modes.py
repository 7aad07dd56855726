"""Which rows a recipe's `data.mode` keeps, and what the loader says where a row does not tell its mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slimtune.core.errors import Problem
from slimtune.data.records import Conversation

KNOWN = ("direct", "cot")


@dataclass(slots=True)
class Modes:
    """Of one file. mode: "auto" keeps every row. left_out: rows of another mode. problems: as the loader has them."""

    path: str
    mode: str
    problems: list[Problem]
    kept: int = 0
    left_out: int = 0
    _without: int = 0
    _first_without: str = ""

    def keep(self, conversations: Sequence[Conversation]) -> Sequence[Conversation]:
        """Those of the mode."""
        if self.mode == "auto":
            return conversations
        kept = []
        for conversation in conversations:
            own = conversation.meta.get("mode")
            if own is None:
                self._without += 1
                self._first_without = self._first_without or conversation.where
            elif own not in KNOWN:
                what = f"meta.mode is {str(own)!r}, neither direct nor cot; data.mode is {self.mode}"
                fix = "write direct or cot, or set data.mode: auto"
                self.problems.append(Problem(what, conversation.where, fix))
            elif own == self.mode:
                kept.append(conversation)
            else:
                self.left_out += 1
        self.kept += len(kept)
        return kept

    def finish(self) -> None:
        """Adds the problems of the file as a whole."""
        if self._without:
            rows = "1 row" if self._without == 1 else f"{self._without:,} rows"
            what = f"{rows} without meta.mode, this the first; data.mode is {self.mode}"
            fix = 'add "meta": {"mode": "direct"} or {"mode": "cot"} to them, or set data.mode: auto'
            self.problems.append(Problem(what, self._first_without, fix))
        elif self.left_out and not self.kept:
            what = f"no row is left: none has meta.mode {self.mode}"
            self.problems.append(Problem(what, self.path, "set data.mode to what the file holds, or drop the file"))
