"""Whether the evaluation can judge what the training rows teach: said before a weight is loaded. No torch.

`find` compares the rows and looks at the questions, `cut_replies` at the lengths of replies. Both return findings whose
fix names the value to set in the recipe wherever one exists: "set evaluate.kind: generation".
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from slimtune.core.findings import Finding
from slimtune.data.records import Conversation
from slimtune.evaluate.mismatch import differences, fitness, remedies, traits
from slimtune.evaluate.mismatch.remedies import Setup

__all__ = ["MOST_ROWS", "Sample", "Setup", "cut_replies", "find"]

MOST_ROWS = 500
"""Rows of a file that are looked at."""
cut_replies = fitness.cut_replies


@dataclass(slots=True)
class Sample:
    """At most `MOST_ROWS` rows of those that are added, each with the same chance (Vitter's algorithm R, seeded)."""

    rows: list[Conversation] = field(default_factory=list)
    seen: int = 0
    _draw: random.Random = field(default_factory=lambda: random.Random(MOST_ROWS))

    def add(self, conversations: Iterable[Conversation]) -> None:
        for one in conversations:
            self.seen += 1
            if len(self.rows) < MOST_ROWS:
                self.rows.append(one)
            elif (place := self._draw.randrange(self.seen)) < MOST_ROWS:
                self.rows[place] = one

    def in_order(self) -> list[Conversation]:
        """The rows by file and line."""
        return sorted(self.rows, key=lambda row: (row.path, row.line))


def find(
    train: Iterable[Conversation], test: Sequence[Conversation], held_out: Sequence[Conversation], setup: Setup
) -> list[Finding]:
    """What of the evaluation, or of the held-out rows, does not suit the training rows.

    test: the rows that will be asked; empty without an evaluation. held_out: the rows of `data.eval`. A finding is an
    error where every verdict would be meaningless, else a warning; its `where` is a key of the recipe.
    """
    trained, asked, kept = (_traits(rows) for rows in (train, test, held_out))
    found: list[Finding] = []
    evaluate = setup.evaluate
    if evaluate is not None and asked:
        suits = kept and setup.held_out != evaluate.data and not differences.between(trained, kept, answers=True)
        instead = remedies.instead(setup, held_out) if suits else ""
        found += fitness.of(trained, asked, test, setup, instead)
        told = {finding.code for finding in found}
        for one in differences.between(trained, asked, answers=evaluate.kind != "multiple_choice"):
            if one.code not in told:
                fix = remedies.of(one, trained, asked, setup, instead)
                found.append(Finding("warning", one.what, fix, "evaluate.data", one.code))
    if evaluate is None or setup.held_out != evaluate.data:
        for one in differences.between(trained, kept, answers=True):
            what = one.what.replace("evaluation row", "held-out row").replace("the evaluation", "the held-out rows")
            fix = (
                remedies.system_prompt(one, trained, kept)
                or f"name held-out rows like the training's: slimtune data split {setup.files} --test 0.2 makes some"
            )
            found.append(Finding("warning", what, fix, "data.eval", one.code))
    return found


def _traits(rows: Iterable[Conversation]) -> list[traits.Traits]:
    sample = Sample()
    sample.add(rows)
    return [traits.of(row) for row in sample.in_order()]
