"""Pairs of answers that hardly differ, and files whose better answers are known by their length or rating alone."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from slimtune.core.findings import Finding
from slimtune.core.units import plural
from slimtune.data.duplicates.question_text import squeezed
from slimtune.data.preference_keys import NAMES, advice
from slimtune.data.records import Conversation, Message, Preference

if TYPE_CHECKING:
    from slimtune.data.preferences import AnyFile, Compared

# Below this the figures of a file are chance.
_FEWEST = 20
# Answers of fewer characters may differ in what matters: "12" and "13".
_SHORT, _ALIKE_SHARE = 50, 0.95
# A model learns to write more where nearly all chosen answers are longer, and by much.
_LONGER_SHARE, _TIMES_LONGER = 0.75, 1.5
_ONE_SIDED = 10


@dataclass(slots=True)
class Comparisons:
    """What is counted of one file; a file of conversations has none."""

    file: AnyFile
    _ratios: list[float] = field(default_factory=list)
    _ratings: Counter[bool] = field(default_factory=Counter)

    def add(self, compared: Sequence[Compared]) -> tuple[list[Conversation], list[Finding]]:
        """Counts rows; returns the rejected answers behind their prompts, and what is odd about a row."""
        rejected: list[Conversation] = []
        found: list[Finding] = []
        for one in compared if self.file.kind else ():
            record = one.record
            if not isinstance(record, Preference):
                self._ratings[record.good] += 1
                continue
            rejected.append(record.conversation("rejected"))
            good, bad = _text(record.chosen), _text(record.rejected)
            self._ratios.append(len(good) / max(1, len(bad)))
            if what := _alike(good, bad):
                fix = "check that the better one is marked as chosen, or leave the row out"
                found.append(
                    Finding("warning", f"the chosen and the rejected answer {what}", fix, record.where, "alike-answers")
                )
        return rejected, found

    def findings(self) -> list[Finding]:
        """What the file is, and what its answers as a whole would teach by accident."""
        kind, path = self.file.kind, self.file.path
        if kind is None:
            return []
        what = f"{self.file.sound:,} {NAMES[kind]}"
        if kind == "unpaired":
            what += f": {self._ratings[True]:,} good, {self._ratings[False]:,} bad"
        found = [Finding("note", what, advice(kind, path), path, "comparisons")]
        if len(self._ratios) >= _FEWEST:
            middle = median(self._ratios)
            for word, times, share in (
                ("longer", middle, sum(ratio > 1 for ratio in self._ratios)),
                ("shorter", 1 / max(middle, 1 / _SHORT), sum(ratio < 1 for ratio in self._ratios)),
            ):
                if times >= _TIMES_LONGER and share >= _LONGER_SHARE * len(self._ratios):
                    of = f"{share:,} of {plural(len(self._ratios), 'pair')}"
                    told = (
                        f"the chosen answer is {word} in {of}, {times:.1f} times in the median: length alone tells them"
                    )
                    fix = f"add pairs whose chosen answer is not {word}, or the model learns to answer {word}"
                    found.append(Finding("warning", told, fix, path, "answers-told-by-length"))
        fewer, more = sorted((self._ratings[True], self._ratings[False]))
        if fewer + more >= _FEWEST and fewer * _ONE_SIDED < more:
            told = f"{self._ratings[True]:,} answers are rated as good and {self._ratings[False]:,} as bad"
            found.append(Finding("warning", told, "add answers of the rarer rating", path, "one-sided-ratings"))
        return found


def _text(answer: Sequence[Message]) -> str:
    return "\n".join(message.content for message in answer if message.role == "assistant")


def _alike(one: str, other: str) -> str:
    """How the two hardly differ; "" where they do."""
    if squeezed(one) == squeezed(other) and one.strip() != other.strip():
        return "differ only in width, case or spacing"
    shorter, longer = sorted((one, other), key=len)
    start = _shared(one, other)
    end = _shared(one[start:][::-1], other[start:][::-1])
    if len(shorter) < _SHORT or start + end < _ALIKE_SHARE * len(longer):
        return ""
    return f"differ in {plural(len(longer) - start - end, 'character')} of {len(longer):,}"


def _shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
