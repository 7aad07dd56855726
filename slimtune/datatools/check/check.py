"""Training files from first row to last: what the loader would refuse, and what would train but not as meant."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from slimtune.core.errors import Problem
from slimtune.core.findings import Finding
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation
from slimtune.data.text import faults
from slimtune.datatools.check import reading, text
from slimtune.datatools.check.answers import Answers
from slimtune.datatools.check.contamination import Contamination, Evaluation
from slimtune.datatools.check.modes import Modes
from slimtune.datatools.check.repetition import Repetitions
from slimtune.datatools.check.token_lengths import TokenLengths

_SHOWN_KEYS = 8

OnProgress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class FileFigures:
    """What a file is. rows: objects in it. sound: those the loader would take, before it looks for repetitions.

    other_mode: sound rows that the recipe's `data.mode` leaves out; answers and lengths are of the others.
    """

    path: str
    format: str
    rows: int
    sound: int
    other_mode: int
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
    """format, system, mode: as the loader is told. secrets: also look for keys and personal numbers."""

    tokenizer: ChatTokenizer | None = None
    model: str = ""
    max_seq_length: int = 2048
    format: str = "auto"
    system: str | None = None
    mode: str = "auto"
    secrets: bool = True
    evaluation: Evaluation = field(default_factory=Evaluation)


def check(paths: Sequence[str], wish: Wish, *, on_progress: OnProgress | None = None) -> Report:
    """Every file, row by row; repetitions are looked for in all of them together, as the loader does.

    JSONL is not held in memory: of a row some sixty bytes stay, and what is found. Other kinds of files are read whole.
    on_progress: percent done, of 100.
    """
    distinct, findings = _distinct(paths)
    findings += (
        [
            Finding("error", f"the default system prompt {what}", fix, "data.system", "loader")
            for what, fix in faults(wish.system, "system")
        ]
        if wish.system is not None
        else []
    )
    findings += wish.evaluation.findings
    repetitions = Repetitions()
    files: list[FileFigures] = []
    for number, path in enumerate(distinct):
        source = reading.Reading(path)

        def advance(source: reading.Reading = source, number: int = number) -> None:
            if on_progress:
                on_progress(int(100 * (number + source.done / source.total) / len(distinct)), 100)

        file, found = _check_file(source, wish, repetitions, advance)
        files.append(file)
        findings += found
    findings += repetitions.findings()
    order = {path: place for place, path in enumerate(distinct)}
    findings.sort(key=lambda finding: _place(finding, order))
    return Report(tuple(files), tuple(findings), wish.model, wish.max_seq_length, wish.evaluation.paths)


def _distinct(paths: Sequence[str]) -> tuple[list[str], list[Finding]]:
    """The files without those that are listed again under the same or another name, which are errors."""
    distinct: list[str] = []
    findings: list[Finding] = []
    for path in paths:
        same = next((other for other in distinct if other == path or _same_content(other, path)), None)
        if same is None:
            distinct.append(path)
            continue
        what = "the file is listed twice" if same == path else f"the same content as {same}, which is listed too"
        findings.append(Finding("error", what, "list it once, with a larger weight in the recipe", path, "loader"))
    return distinct, findings


def _same_content(path: str, other: str) -> bool:
    one, two = Path(path), Path(other)
    if not (one.is_file() and two.is_file()) or one.stat().st_size != two.stat().st_size:
        return False
    return _sha256(one) == _sha256(two)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_file(
    source: reading.Reading, wish: Wish, repetitions: Repetitions, advance: Callable[[], None]
) -> tuple[FileFigures, list[Finding]]:
    path = source.path
    modes, answers, languages = Modes(path, wish.mode, source.problems), Answers(path), text.Languages()
    counted = TokenLengths(wish.tokenizer, wish.max_seq_length)
    contamination = Contamination(path, wish.evaluation)
    findings: list[Finding] = []
    ignored: Counter[str] = Counter()
    sound = normalised = 0
    with ThreadPoolExecutor(max_workers=1) as beside:
        for converted in reading.read(source, format=wish.format, system=wish.system):
            conversations = modes.keep([one.conversation for one in converted])
            # Tokens are counted without the interpreter's lock, so that the texts are looked at in the meantime.
            too_long = beside.submit(counted.add, conversations)
            for one in converted:
                repetitions.add(one.conversation)
                normalised += one.nfc_changed
                ignored.update(one.ignored)
            sound += len(converted)
            findings += _odd_rows(conversations, wish, answers, languages)
            contamination.add(conversations)
            findings += too_long.result()
            advance()
    modes.finish()
    findings += [_from_problem(problem) for problem in source.problems]
    findings += answers.findings() + languages.findings(path) + contamination.findings()
    findings += _loading_notes(path, source.format, ignored, normalised)
    return FileFigures(path, source.format, source.rows, sound, modes.left_out, answers, counted), findings


def _odd_rows(
    conversations: Sequence[Conversation], wish: Wish, answers: Answers, languages: text.Languages
) -> list[Finding]:
    findings: list[Finding] = []
    for conversation in conversations:
        findings += text.row_findings(conversation, secrets=wish.secrets)
        findings += answers.add(conversation)
        languages.add(conversation)
    return findings


def _loading_notes(path: str, format: str, ignored: Counter[str], normalised: int) -> list[Finding]:
    """What the loader changes or leaves out without refusing it."""
    notes: list[Finding] = []
    if ignored:
        keys = ", ".join(f"{key!r} in {count:,}" for key, count in ignored.most_common(_SHOWN_KEYS))
        more = f" and {len(ignored) - _SHOWN_KEYS:,} others" if len(ignored) > _SHOWN_KEYS else ""
        what = f"rows have keys that the {format} format does not know: {keys}{more}"
        notes.append(Finding("note", what, "fine if nothing of them is to be learned", path, "ignored-keys"))
    if normalised:
        rows = "1 row is" if normalised == 1 else f"{normalised:,} rows are"
        what = f"{rows} not in Unicode's form NFC and will be normalised"
        notes.append(Finding("note", what, "nothing to do: all texts have one form then", path, "not-nfc"))
    return notes


def _from_problem(problem: Problem) -> Finding:
    return Finding("error", problem.what, problem.fix, problem.where, "loader")


def _place(finding: Finding, order: dict[str, int]) -> tuple[int, int]:
    path, _, line = finding.where.rpartition(":")
    if path in order and line.isdecimal():
        return order[path], int(line)
    return order.get(finding.where, len(order)), 0
