"""From the files of a recipe to the conversations of a run: read, check, filter by mode, mix by weight.

Everything that is wrong with all of the files is raised at once.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, get_args

from slimtune.core.errors import Problem, SlimtuneError, bad_data
from slimtune.core.memory import collector_paused
from slimtune.core.progress import Advance, ignore
from slimtune.core.units import plural
from slimtune.data import formats
from slimtune.data.duplicates.repetition import Repetitions
from slimtune.data.reading import DataFile, distinct
from slimtune.data.records import Conversation, Mode
from slimtune.data.text import system_problems

DataMode = Literal["auto", "direct", "cot"]
"""A recipe's `data.mode`: which rows to keep."""
_MODES = get_args(Mode)
R = TypeVar("R")
"""A record: a conversation, or what another method trains on."""


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of one file. kept: rows after the mode filter. used: examples after weighting.

    sha256: of the file's bytes, None for a data set on the hub.
    """

    file: DataFile
    kept: int
    used: int
    weight: float
    sha256: str | None

    @property
    def notes(self) -> list[str]:
        """What loading the file changed or left out, in words."""
        file, notes = self.file, []
        if file.nfc_changed:
            notes.append(f"normalised {plural(file.nfc_changed, 'row')} to Unicode NFC")
        if left_out := file.sound - self.kept:
            notes.append(f"{left_out} of {file.rows} rows have another mode and are left out")
        if file.ignored:
            notes.append(f"ignored keys that the {file.layout} format does not have: {', '.join(file.ignored)}")
        if file.excluded:
            turns = plural(file.excluded, "turn")
            notes.append(f"the file excludes {turns} of the assistant from the loss: read as history, not learned")
        if file.empty_systems:
            notes.append(f"left out the empty system prompt of {plural(file.empty_systems, 'row')}")
        if self.weight != 1:
            notes.append(f"weight {self.weight:g} makes {self.used} examples of {self.kept} rows")
        return [f"{file.path}: {note}." for note in notes]


@dataclass(frozen=True, slots=True)
class Loaded(Generic[R]):
    """conversations: or other records, of those that were asked for. files: in the order given."""

    conversations: tuple[R, ...]
    files: tuple[FileReport, ...]


@dataclass(slots=True)
class ModeFilter:
    """Keeps the rows of one file whose `meta.mode` is `mode`; "auto" keeps every row. Appends to `problems`."""

    path: str
    mode: str
    problems: list[Problem]
    kept: int = 0
    others: Counter[str] = field(default_factory=Counter)
    _without: list[Any] = field(default_factory=list)

    @property
    def left_out(self) -> int:
        """Rows of the other mode; a mode that does not exist is a problem."""
        return sum(self.others[mode] for mode in _MODES)

    def keep(self, records: Sequence[Any]) -> Sequence[Any]:
        if self.mode == "auto":
            return records
        kept = []
        for record in records:
            own = record.meta.get("mode")
            if own is None:
                self._without.append(record)
            elif own == self.mode:
                kept.append(record)
            else:
                self.others[str(own)] += 1
                if own not in _MODES:
                    what = f"meta.mode is {str(own)!r}, neither direct nor cot; data.mode is {self.mode}"
                    fix = "write direct or cot, or set data.mode: auto"
                    self.problems.append(Problem(what, record.where, fix))
        self.kept += len(kept)
        return kept

    def finish(self) -> None:
        """Report what concerns the file as a whole, once all its rows have been seen."""
        if self._without:
            first = self._without[0]
            rows = plural(len(self._without), "row")
            what = f"{rows} without meta.mode, first at line {first.line}; data.mode is {self.mode}"
            fix = 'add "meta": {"mode": "direct"} or {"mode": "cot"} to them, or set data.mode: auto'
            self.problems.append(Problem(what, first.where, fix))
        if self.others and not self.kept:
            others = ", ".join(f"{count} {own}" for own, count in self.others.most_common())
            what = f"no row is left: none has meta.mode {self.mode} (there are: {others})"
            self.problems.append(Problem(what, self.path, "set data.mode to what the file holds, or drop the file"))


def load_conversations(
    paths: Sequence[tuple[str, float]],
    *,
    mode: DataMode = "auto",
    system: str | None = None,
    format: str = "auto",
    seed: int = 42,
    on_progress: Advance = ignore,
) -> Loaded[Conversation]:
    """The checked conversations of all files.

    paths: files or hub ids, each with a weight: 1.0 takes every row once, 0.5 a random half, 2.5 every row twice and a
    random half a third time. mode: keep the rows with this `meta.mode`. system: the system prompt of rows without one.
    format: one of `formats.FORMATS`. seed: one file keeps its order; several are shuffled. on_progress: bytes of one.
    Raises SlimtuneError with every problem of every file, at most 50 shown per file.
    """
    return load(paths, DataFile, mode=mode, system=system, format=format, seed=seed, on_progress=on_progress)


@collector_paused()
def load(
    paths: Sequence[tuple[str, float]],
    reader: Callable[..., DataFile],
    *,
    mode: DataMode = "auto",
    system: str | None = None,
    format: str = "auto",
    seed: int = 42,
    on_progress: Advance = ignore,
) -> Loaded[Any]:
    """The checked records of all files, as `load_conversations` has it for conversations.

    reader: opens a file. Its `records` have the record as `record`, and as `question` the conversation by which repeated
    and contradicting ones are found: its last turn is the answer to the others. Raises as that function.
    """
    _check_arguments(paths, mode, system, format)
    hashes, listed_again = distinct([path for path, _ in paths])
    problems: dict[str, list[Problem]] = {path: [] for path, _ in paths}
    weights = dict(reversed(paths))
    repetitions = Repetitions()
    records: list[Any] = []
    reports: list[FileReport] = []
    for path, sha256 in hashes.items():
        file, weight = reader(path, format, system, problems=problems[path]), weights[path]
        modes = ModeFilter(path, mode, file.problems)
        kept: list[Any] = []
        for converted in file.records():
            for one in converted:
                repetitions.add(one.question)
            kept += modes.keep([one.record for one in converted])
            on_progress(file.done, file.total)
        modes.finish()
        used = _weighted(kept, weight, random.Random(f"{seed}/{len(reports)}"))
        if kept and not used:
            what = f"weight {weight:g} of {len(kept)} rows leaves none of them"
            file.problems.append(Problem(what, path, "raise the weight, or drop the file"))
        records += used
        reports.append(FileReport(file, len(kept), len(used), weight, sha256))
    for repetition in repetitions.find():
        problems[repetition.path].append(repetition.problem)
    for problem in listed_again:
        problems[problem.where].append(problem)
    if any(problems.values()):
        raise bad_data(problems)
    if len(reports) > 1:
        random.Random(seed).shuffle(records)
    return Loaded(tuple(records), tuple(reports))


def _check_arguments(paths: Sequence[tuple[str, float]], mode: str, system: str | None, format: str) -> None:
    problems: list[Problem] = []
    if not paths:
        problems.append(Problem("no data file is named", fix="name at least one"))
    for path, weight in paths:
        if not (math.isfinite(weight) and weight > 0):
            what = f"the weight {weight:g} is not a positive number"
            problems.append(Problem(what, path, "1.0 takes every row once"))
    if mode not in ("auto", *_MODES):
        problems.append(Problem(f"unknown mode {mode!r}", fix=f"use one of auto, {', '.join(_MODES)}"))
    if format not in formats.FORMATS:
        problems.append(Problem(f"unknown data format {format!r}", fix=f"use one of {', '.join(formats.FORMATS)}"))
    problems += system_problems(system)
    if problems:
        raise SlimtuneError(problems)


def _weighted(rows: list[R], weight: float, rng: random.Random) -> list[R]:
    """The rows, repeated for the weight's whole part, then a sample of the size of its fraction, in file order."""
    whole = math.floor(weight)
    count = math.floor((weight - whole) * len(rows) + 0.5)
    chosen = sorted(rng.sample(range(len(rows)), count))
    return rows * whole + [rows[index] for index in chosen]
