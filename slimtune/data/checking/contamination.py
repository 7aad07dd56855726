"""Evaluation items that a training file holds, looked for piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slimtune.data.checking.findings import Finding
from slimtune.data.types import Conversation
from slimtune.evaluate import contamination

# As many rows are held in memory at once; each piece costs an index of the evaluation items.
ROWS_AT_ONCE = 20_000


class Contamination:
    """Compares a training file with evaluation items while it is read."""

    def __init__(self, items: Sequence[Conversation]):
        self._items = items
        self._waiting: list[Conversation] = []
        self._found: dict[str, dict[str, Any]] = {}

    def add(self, conversations: Sequence[Conversation]) -> None:
        self._waiting += conversations
        if len(self._waiting) >= ROWS_AT_ONCE:
            self._compare()

    def findings(self) -> list[Finding]:
        """A warning for each item that is trained on; one note on the items that share a context only."""
        if self._waiting:
            self._compare()
        found: list[Finding] = []
        sharing = [entry for entry in self._found.values() if entry["kind"] == contamination.SHARED_CONTEXT]
        for entry in self._found.values():
            if entry["kind"] != contamination.SHARED_CONTEXT:
                how = entry["kind"] if entry["similarity"] == 1 else f"{entry['kind']}, {entry['similarity']:.2f}"
                what = f"asks what the evaluation item {entry['where']} asks ({how})"
                fix = "take it out of one of the two: a test on it proves nothing"
                found.append(Finding("warning", "contamination", what, entry["train_where"], fix))
        if sharing:
            first = sharing[0]
            what = f"{len(sharing)} evaluation items share a context with training rows, the first {first['where']}"
            fix = "split by context if the test is to be of new statutes: python -m slimtune.cli data split"
            found.append(Finding("note", "shared-context", what, first["train_where"], fix))
        return found

    def _compare(self) -> None:
        for entry in contamination.check(self._waiting, self._items)["items"]:
            earlier = self._found.get(entry["where"])
            if earlier is None or _strength(entry) > _strength(earlier):
                self._found[entry["where"]] = entry
        self._waiting = []


def _strength(entry: dict[str, Any]) -> tuple[int, float]:
    return -contamination.KINDS.index(entry["kind"]), entry["similarity"]
