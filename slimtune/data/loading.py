"""From the files of a recipe to the conversations of a run: read, check, filter by mode, mix by weight.

Everything that is wrong with all of the files is raised at once.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.garbage import collector_paused
from slimtune.data import formats
from slimtune.data.problems import bad_data
from slimtune.data.records import Conversation, Message
from slimtune.data.sources import is_hub_id, read_rows
from slimtune.data.text import faults, normalised

Mode = Literal["auto", "direct", "cot"]
_MODES = ("direct", "cot")


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of one file.

    rows: rows that it holds. kept: rows left by the mode filter. used: examples that its weight made of them.
    nfc_changed, filtered_by_mode: rows. ignored_keys: keys of rows that the format does not have.
    sha256: of the file's bytes, None for a data set from the hub.
    """

    path: str
    format: str
    rows: int
    kept: int
    used: int
    weight: float
    nfc_changed: int
    filtered_by_mode: int
    ignored_keys: tuple[str, ...]
    sha256: str | None

    @property
    def notes(self) -> list[str]:
        """What loading the file changed or left out, in words."""
        notes = []
        if self.nfc_changed:
            rows = (
                "1 row was not NFC and has"
                if self.nfc_changed == 1
                else f"{self.nfc_changed} rows were not NFC and have"
            )
            notes.append(f"{self.path}: {rows} been normalised.")
        if self.filtered_by_mode:
            left_out = f"{self.filtered_by_mode} of {self.rows} rows are of another mode and are left out"
            notes.append(f"{self.path}: {left_out}.")
        if self.ignored_keys:
            keys = ", ".join(self.ignored_keys)
            notes.append(f"{self.path}: keys that the {self.format} format does not have: {keys}.")
        if self.weight != 1:
            notes.append(f"{self.path}: weight {self.weight:g} makes {self.used} examples of {self.kept} rows.")
        return notes


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The files in the order given. shuffled: whether the examples were mixed, with `seed`."""

    files: tuple[FileReport, ...]
    mode: str
    shuffled: bool
    seed: int

    @property
    def examples(self) -> int:
        return sum(file.used for file in self.files)

    @property
    def nfc_changed(self) -> int:
        return sum(file.nfc_changed for file in self.files)

    @property
    def filtered_by_mode(self) -> int:
        return sum(file.filtered_by_mode for file in self.files)


@dataclass(frozen=True, slots=True)
class Loaded:
    conversations: tuple[Conversation, ...]
    report: LoadReport


@dataclass(slots=True)
class _File:
    path: str
    weight: float
    sha256: str | None
    format: str = ""
    rows: int = 0
    nfc_changed: int = 0
    ignored_keys: tuple[str, ...] = ()
    conversations: tuple[Conversation, ...] = ()
    kept: tuple[Conversation, ...] = ()
    used: tuple[Conversation, ...] = ()

    def report(self) -> FileReport:
        kept, used = len(self.kept), len(self.used)
        filtered = len(self.conversations) - kept
        return FileReport(
            path=self.path,
            format=self.format,
            rows=self.rows,
            kept=kept,
            used=used,
            weight=self.weight,
            nfc_changed=self.nfc_changed,
            filtered_by_mode=filtered,
            ignored_keys=self.ignored_keys,
            sha256=self.sha256,
        )


@collector_paused()
def load_conversations(
    paths: Sequence[tuple[str, float]],
    *,
    mode: Mode = "auto",
    system: str | None = None,
    format: str = "auto",
    seed: int = 42,
    on_progress: Callable[[int, int], None] | None = None,
) -> Loaded:
    """The conversations of all files, checked.

    paths: files or hub ids, each with its weight: 1.0 takes every row once, 0.5 a seeded half, 2.5 every row twice
    and a seeded half of them a third time. mode: "direct" or "cot" keeps the rows whose `meta.mode` says so.
    system: the system prompt of rows without one. format: one of `formats.FORMATS`.
    One file keeps its order; several are shuffled with `seed`. on_progress: rows read, of how many of the file.

    Raises `SlimtuneError` with every problem of every file, at most 50 of each shown.
    """
    _check_arguments(paths, mode, system, format)
    problems: dict[str, list[Problem]] = {}
    files: list[_File] = []
    for path, weight in paths:
        if path in problems:
            problems[path].append(Problem("the file is listed twice", path, "list it once, with a larger weight"))
            continue
        problems[path] = []
        sha256 = _sha256(path)
        same = next((file for file in files if sha256 is not None and file.sha256 == sha256), None)
        if same:
            what = f"the same content as {same.path}, which is listed too"
            problems[path].append(Problem(what, path, "list one of them, with a larger weight"))
            continue
        files.append(_File(path, weight, sha256))
        _read(files[-1], format, system, problems[path], on_progress)

    _report_repetitions(files, problems)
    for index, file in enumerate(files):
        file.kept = _of_mode(file, mode, problems[file.path])
        file.used = _weighted(file.kept, file.weight, random.Random(f"{seed}/{index}"))
        if file.kept and not file.used:
            what = f"weight {file.weight:g} of {len(file.kept)} rows leaves none of them"
            problems[file.path].append(Problem(what, file.path, "raise the weight, or drop the file"))
    if any(problems.values()):
        raise bad_data(problems)

    conversations = [conversation for file in files for conversation in file.used]
    shuffled = len(files) > 1
    if shuffled:
        random.Random(seed).shuffle(conversations)
    return Loaded(tuple(conversations), LoadReport(tuple(file.report() for file in files), mode, shuffled, seed))


def _check_arguments(paths: Sequence[tuple[str, float]], mode: str, system: str | None, format: str) -> None:
    problems: list[Problem] = []
    if not paths:
        problems.append(Problem("no data file is named", fix="name at least one"))
    for path, weight in paths:
        if not (math.isfinite(weight) and weight > 0):
            problems.append(
                Problem(f"the weight {weight:g} is not a positive number", path, "1.0 takes every row once")
            )
    if mode not in get_args(Mode):
        problems.append(Problem(f"unknown mode {mode!r}", fix=f"one of {', '.join(get_args(Mode))}"))
    if format not in formats.FORMATS:
        problems.append(Problem(f"unknown data format {format!r}", fix=f"one of {', '.join(formats.FORMATS)}"))
    if system is not None:
        problems += [Problem(f"the default system prompt {what}", "", fix) for what, fix in faults(system, "system")]
    if problems:
        raise SlimtuneError(problems)


def _sha256(path: str) -> str | None:
    """Of the file's bytes; None for the hub and for what cannot be read, which `read_rows` reports."""
    if is_hub_id(path):
        return None
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _read(
    file: _File,
    format: str,
    system: str | None,
    problems: list[Problem],
    on_progress: Callable[[int, int], None] | None,
) -> None:
    try:
        rows = read_rows(file.path, problems)
    except SlimtuneError as error:
        problems += error.problems
        return
    if not rows:
        return
    prompt = None if system is None else normalised(system)
    name, sound = formats.convert_file(
        rows, format, path=file.path, system=prompt, problems=problems, on_progress=on_progress
    )
    file.format, file.rows = name or "", len(rows)
    file.conversations = tuple(one.conversation for one in sound)
    file.nfc_changed = sum(one.nfc_changed for one in sound)
    file.ignored_keys = tuple(dict.fromkeys(key for one in sound for key in one.ignored))


def _report_repetitions(files: Sequence[_File], problems: dict[str, list[Problem]]) -> None:
    """Rows of one mode that are equal, or that answer the same prompt differently, with both places."""
    seen: dict[tuple[object, ...], dict[Message, str]] = {}
    for file in files:
        for conversation in file.conversations:
            *prompt, answer = conversation.messages
            answers = seen.setdefault((_mode_of(conversation), *prompt), {})
            if answer in answers:
                what = f"duplicate rows: {answers[answer]} and {conversation.where}"
                problems[file.path].append(Problem(what, conversation.where, "keep one of them"))
            elif answers:
                earlier = next(iter(answers.values()))
                what = f"the same input has two different answers: {earlier} and {conversation.where}"
                problems[file.path].append(Problem(what, conversation.where, "keep the right one"))
            answers.setdefault(answer, conversation.where)


def _mode_of(conversation: Conversation) -> str | None:
    mode = conversation.meta.get("mode")
    return None if mode is None else str(mode)


def _of_mode(file: _File, mode: Mode, problems: list[Problem]) -> tuple[Conversation, ...]:
    if mode == "auto" or not file.conversations:
        return file.conversations
    modes = [_mode_of(conversation) for conversation in file.conversations]
    without = [conversation for conversation, own in zip(file.conversations, modes, strict=True) if own is None]
    if without:
        rows = "1 row" if len(without) == 1 else f"{len(without)} rows"
        what = f"{rows} without meta.mode, the first at line {without[0].line}; data.mode is {mode}"
        fix = 'add "meta": {"mode": "direct"} or {"mode": "cot"} to them, or set data.mode: auto'
        problems.append(Problem(what, without[0].where, fix))
    for conversation, own in zip(file.conversations, modes, strict=True):
        if own is not None and own not in _MODES:
            what = f"meta.mode is {own!r}, neither direct nor cot; data.mode is {mode}"
            problems.append(Problem(what, conversation.where, "write direct or cot, or set data.mode: auto"))
    kept = tuple(conversation for conversation, own in zip(file.conversations, modes, strict=True) if own == mode)
    if not kept and len(without) < len(modes):
        others = ", ".join(f"{count} {own}" for own, count in Counter(own for own in modes if own).most_common())
        what = f"no row is left: none has meta.mode {mode} (there are: {others})"
        problems.append(Problem(what, file.path, "set data.mode to what the file holds, or drop the file"))
    return kept


def _weighted(rows: tuple[Conversation, ...], weight: float, rng: random.Random) -> tuple[Conversation, ...]:
    """The rows, repeated for the weight's whole part, then a sample of the size of its fraction, in file order."""
    whole = math.floor(weight)
    count = math.floor((weight - whole) * len(rows) + 0.5)
    chosen = sorted(rng.sample(range(len(rows)), count))
    return rows * whole + tuple(rows[index] for index in chosen)
