"""Evaluation items that a training file holds, looked for piece by piece."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slimtune.core import inputs
from slimtune.core.errors import SlimtuneError
from slimtune.core.findings import Finding, refused
from slimtune.core.progress import Advance, ignore
from slimtune.data.duplicates import ngrams, overlap, similarity
from slimtune.data.loading import load_conversations
from slimtune.data.records import Conversation
from slimtune.evaluate import contamination

# As many rows are held in memory at once; each piece costs an index of the evaluation items.
ROWS_AT_ONCE = 20_000
# Two questions are near duplicates from here on, as in evaluate/contamination.py.
_THRESHOLD = 0.8


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The evaluation files, their items, and what the loader would refuse in them."""

    paths: tuple[str, ...] = ()
    items: Sequence[Conversation] = field(default=(), repr=False)
    findings: tuple[Finding, ...] = ()


def read(paths: Sequence[str], *, on_progress: Advance = ignore) -> Evaluation:
    """The items of all files, each of any format. What is wrong with a file is a finding, and none of its items count."""
    items: list[Conversation] = []
    findings: list[Finding] = []
    for path in dict.fromkeys(paths):
        try:
            items += load_conversations([(path, 1.0)], on_progress=on_progress).conversations
        except SlimtuneError as error:
            findings += [refused(one, "evaluation-file") for one in error.problems]
    return Evaluation(tuple(dict.fromkeys(paths)), tuple(items), tuple(findings))


class Contamination:
    """Compares a training file with evaluation items while it is read."""

    def __init__(self, path: str, evaluation: Evaluation):
        self._path = path
        self._same = tuple(other for other in evaluation.paths if _same_file(other, path))
        self._items = [item for item in evaluation.items if item.path not in self._same]
        self._waiting: list[Conversation] = []
        # Item and row: the kind of likeness, and its share.
        self._found: dict[tuple[str, str], tuple[str, float]] = {}
        self._sharing: dict[str, str] = {}
        self._more = False

    def add(self, conversations: Sequence[Conversation]) -> None:
        if not self._items:
            return
        self._waiting += conversations
        if len(self._waiting) >= ROWS_AT_ONCE:
            self._compare()

    def findings(self) -> list[Finding]:
        """A warning for each row that asks what an item asks; one note on the items that share a context only."""
        if self._waiting:
            self._compare()
        fix = "remove it from one of the two: a test on training data proves nothing"
        told = [(f"this file is also the evaluation file {other}", fix, self._path) for other in self._same]
        for (item, row), (kind, share) in self._found.items():
            how = kind if share == 1 else f"{kind}, {share:.2f}"
            told.append((f"asks what the evaluation item {item} asks ({how})", fix, row))
        if self._more:
            what = "other rows may ask what evaluation items ask too"
            told.append((what, "remove these and check again", self._path))
        found = [Finding("warning", what, fix, where, "contamination") for what, fix, where in told]
        asked = {item for item, _ in self._found}
        sharing = {item: row for item, row in self._sharing.items() if item not in asked}
        if sharing:
            item, row = next(iter(sharing.items()))
            whose = "1 evaluation item shares" if len(sharing) == 1 else f"{len(sharing)} evaluation items share"
            what = f"{whose} a context with training rows: {item}, for example, with this one"
            fix = "split by context if the test should use new contexts: slimtune data split"
            found.append(Finding("note", what, fix, row, "shared-context"))
        return found

    def _compare(self) -> None:
        """Find the waiting rows that ask what an item asks, the likeliest for each item; see `overlap.search`."""
        rows, self._waiting = self._waiting, []
        items = overlap.read_items(self._items)
        questions = overlap.search(rows, items)
        for item in items:
            alike = _alike(item, questions)
            self._found |= {(item.where, row): how for row, how in alike.items()}
            self._more |= len(alike) >= overlap.MOST_CANDIDATES
            if not alike and item.neighbours:
                self._sharing.setdefault(item.where, next(iter(item.neighbours.values())).where)


def _alike(item: overlap.TestItem, questions: ngrams.Index) -> dict[str, tuple[str, float]]:
    """Place of each row that asks what the item asks: the kind of likeness, and its share."""
    found: dict[str, tuple[str, float]] = {}
    if item.exact:
        found[item.exact.where] = contamination.EXACT, 1.0
    if item.normalised:
        found.setdefault(item.normalised.where, (contamination.NORMALISED, 1.0))
    if item.candidates:
        sought = similarity.prepare(item.asked, questions)
        for _, _, row in item.candidates:
            share = similarity.similarity(sought, row.asked)
            if share >= _THRESHOLD:
                found.setdefault(row.where, (contamination.NEAR_DUPLICATE, share))
    return found


def _same_file(path: str, other: str) -> bool:
    return path == other or (inputs.is_file(path) and inputs.is_file(other) and Path(path).samefile(other))
