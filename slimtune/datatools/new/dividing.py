"""Examples to train, dev and test files with their manifest, as `data split` divides them, in sizes for few rows too."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import fail
from slimtune.core.units import plural
from slimtune.data import split_manifest
from slimtune.data.records import Conversation
from slimtune.data.splitting import SPLITS, SplitItem, split_items
from slimtune.datatools.new.examples import NewRow
from slimtune.datatools.split import split_files
from slimtune.datatools.split.split_questions import SourceFile, SplitRow, hashes, items, row_id
from slimtune.datatools.writing import as_line

SEED = 42
FEW = 20
"""Different questions below which nothing is held out for the loss, and too few for a verdict."""
# A set of one template is one chain of near duplicates, which a higher threshold separates.
_THRESHOLDS = (0.8, 0.9, 0.95, 1.0)
_LARGEST_SHARE = 0.5
_MOST_TEST, _MOST_DEV = 200, 100


@dataclass(frozen=True, slots=True)
class Divided:
    """files: name to content, the manifest last. parts: the conversations of each split. notes: what should be known."""

    files: dict[str, bytes]
    parts: dict[str, list[Conversation]]
    notes: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each split that has some."""
        return {name: len(own) for name, own in self.parts.items()}


def divide(examples: Sequence[NewRow], source: Path, folder: Path) -> Divided:
    """Write nothing; say what goes into `train.jsonl`, `dev.jsonl`, `test.jsonl` and the manifest.

    source: the file that was read. folder: where the files will be. Raises SlimtuneError for fewer than two questions that
    differ.
    """
    rows = tuple(SplitRow(row_id(one.value), one.value, one.conversation) for one in examples)
    file = SourceFile(source, inputs.sha256(source), rows)
    for threshold in _THRESHOLDS:
        questions = items([file], threshold=threshold)
        sizes = wanted_sizes(len(questions))
        name_of = split_items(questions, sizes, seed=SEED)
        if _is_even(questions) and all(name in name_of.values() for name, size in sizes.items() if size):
            break
    if len(set(name_of.values()) & {"train", "test"}) < 2:
        what = f"the file has {plural(len({one.group for one in questions}), 'different question')}"
        fix = "add questions: one part of them is learned, and another is asked afterwards"
        raise fail(f"{what}, and at least 2 are needed", where=str(source), fix=fix)
    wish = split_files.wish(
        [file], folder, seed=SEED, asked={"dev": sizes["dev"], "test": sizes["test"]}, threshold=threshold
    )
    manifest, written = split_files.render(
        wish, [file], questions, name_of, hashes([file]), name=lambda _, split: f"{split}.jsonl"
    )
    files = {name: b"".join(map(as_line, own)) for name, own in written.items()}
    files[split_manifest.NAME] = split_manifest.as_bytes(manifest)
    parts = {split: [row.conversation for row in rows if name_of[row.id] == split] for split in SPLITS}
    parts = {split: own for split, own in parts.items() if own}
    notes = list(_notes(len(questions), manifest))
    if threshold > _THRESHOLDS[0]:
        notes.append(f"the questions resemble each other: those at least {threshold:.0%} alike are kept together")
    return Divided(files, parts, tuple(notes))


def wanted_sizes(count: int) -> dict[str, int]:
    """Questions of each split: enough test questions for a verdict where there are enough to train on."""
    test = min(_MOST_TEST, max(round(0.1 * count), min(20, round(0.25 * count)), 1))
    dev = 0 if count < FEW else min(_MOST_DEV, max(round(0.05 * count), min(10, round(0.12 * count))))
    return {"train": count - test - dev, "dev": dev, "test": test}


def _is_even(questions: Sequence[SplitItem]) -> bool:
    return max(Counter(one.group for one in questions).values()) <= max(1, _LARGEST_SHARE * len(questions))


def _notes(count: int, manifest: dict[str, Any]) -> list[str]:
    test = manifest["splits"]["test"]["count"]
    notes = []
    if count < FEW:
        what = f"only {plural(count, 'different question')}: models improve visibly from 50 to 100 good examples on"
        notes.append(f"{what}, and a verdict on {plural(test, 'test question')} can hardly tell. Add more")
    groups = manifest["groups"]
    if groups["count"] < count:
        notes.append(f"{count:,} questions form {groups['count']:,} groups that stay together in one part")
    return notes
