"""Training files from first row to last: what the loader would refuse, and what would train but not as meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from slimtune.data.chat import ChatTokenizer
from slimtune.data.checking import reading, text
from slimtune.data.checking.answers import Answers
from slimtune.data.checking.contamination import Contamination
from slimtune.data.checking.findings import Finding
from slimtune.data.checking.repetition import Repetitions
from slimtune.data.checking.token_lengths import TokenLengths
from slimtune.data.types import Conversation
from slimtune.errors import Problem

OnProgress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class FileFigures:
    """What a file is. rows: objects in it; sound: those the loader would take, before it looks for repetitions."""

    path: str
    format: str
    rows: int
    sound: int
    answers: Answers
    lengths: TokenLengths


@dataclass(frozen=True, slots=True)
class Report:
    """findings: by file and line. model: whose tokens were counted, or "" where they were estimated."""

    files: tuple[FileFigures, ...]
    findings: tuple[Finding, ...]
    model: str
    max_seq_length: int
    against: tuple[str, ...] = ()

    def count(self, level: str) -> int:
        return sum(finding.level == level for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Wish:
    """format, system: as the loader is told. secrets: also look for keys and personal numbers."""

    tokenizer: ChatTokenizer | None = None
    model: str = ""
    max_seq_length: int = 2048
    format: str = "auto"
    system: str | None = None
    secrets: bool = True
    against: tuple[str, ...] = ()
    items: Sequence[Conversation] = field(default=(), repr=False)


def check(paths: Sequence[str], wish: Wish, *, on_progress: OnProgress | None = None) -> Report:
    """Every file, row by row; repetitions are looked for in all of them together, as the loader does.

    JSONL is not held in memory: of a row some sixty bytes stay, and what is found. on_progress: bytes read and to read.
    Raises SlimtuneError for a data set on the hub that cannot be loaded.
    """
    repetitions = Repetitions()
    findings: list[Finding] = []
    files: list[FileFigures] = []
    for path in dict.fromkeys(paths):
        file, found = _check_file(path, wish, repetitions, on_progress)
        files.append(file)
        findings += found
    findings += repetitions.findings()
    order = {path: place for place, path in enumerate(paths)}
    findings.sort(key=lambda finding: _place(finding, order))
    return Report(tuple(files), tuple(findings), wish.model, wish.max_seq_length, wish.against)


def _check_file(
    path: str, wish: Wish, repetitions: Repetitions, on_progress: OnProgress | None
) -> tuple[FileFigures, list[Finding]]:
    source = reading.Reading(path)
    answers, languages = Answers(path), text.Languages()
    counted = TokenLengths(wish.tokenizer, wish.max_seq_length)
    contamination = Contamination(wish.items) if wish.items else None
    findings: list[Finding] = []
    ignored: dict[str, int] = {}
    normalised = 0
    for converted in reading.read(source, format=wish.format, system=wish.system):
        for one in converted:
            conversation = one.conversation
            findings += text.row_findings(conversation, secrets=wish.secrets)
            findings += answers.add(conversation)
            languages.add(conversation)
            repetitions.add(conversation)
            normalised += one.nfc_changed
            for key in one.ignored:
                ignored[key] = ignored.get(key, 0) + 1
        conversations = [one.conversation for one in converted]
        findings += counted.add(conversations)
        if contamination:
            contamination.add(conversations)
        if on_progress:
            on_progress(source.done, source.total)
    findings += [_from_problem(problem) for problem in source.problems]
    findings += answers.findings() + languages.findings(path)
    findings += contamination.findings() if contamination else []
    if ignored:
        what = f"keys that the {source.format} format does not have: {', '.join(ignored)}"
        findings.append(Finding("note", "ignored-keys", what, path, "fine if nothing of them is to be learned"))
    if normalised:
        what = f"{normalised:,} rows are not in Unicode's form NFC and will be normalised"
        findings.append(Finding("note", "not-nfc", what, path))
    return FileFigures(path, source.format, source.rows, answers.rows, answers, counted), findings


def _from_problem(problem: Problem) -> Finding:
    return Finding("error", "loader", problem.what, problem.where, problem.fix)


def _place(finding: Finding, order: dict[str, int]) -> tuple[int, int]:
    path, _, line = finding.where.rpartition(":")
    if path in order and line.isdecimal():
        return order[path], int(line)
    return order.get(finding.where, len(order)), 0
