"""Training rows of any format to the questions that are split: each with its rows, its label, its source, its group."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core.errors import Problem, bad_data
from slimtune.core.files import sha256_file
from slimtune.core.progress import Advance, ignore
from slimtune.data.duplicates import groups, question_text
from slimtune.data.reading import DataFile
from slimtune.data.records import Conversation
from slimtune.data.sources import is_hub_id
from slimtune.data.splitting import SplitItem, context_key

# More different outputs than this are answers, not labels.
MOST_LABELS = 20


@dataclass(frozen=True, slots=True)
class SplitRow:
    """value: as it stands in the file. id: of its question."""

    id: str
    value: dict[str, Any]
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A training file as it was read. sha256: of its bytes."""

    path: Path
    sha256: str
    rows: tuple[SplitRow, ...]


def read_files(paths: Sequence[str], *, on_progress: Advance = ignore) -> list[SourceFile]:
    """All files with all their rows. on_progress: bytes read, of how many of the file.

    Raises SlimtuneError with every problem of every file, a hub id among them.
    """
    problems: dict[str, list[Problem]] = {}
    files = []
    for path in paths:
        found = problems.setdefault(path, [])
        if is_hub_id(path):
            what = "no such file; a data set on the hub cannot be split"
            found.append(Problem(what, path, "save it as a file first, for example with `data import`"))
            continue
        file = DataFile(path, problems=found)
        kept: list[SplitRow] = []
        for converted in file.records():
            for one in converted:
                # A table's cell may be a date or a decimal number, which becomes its text.
                value = json.loads(json.dumps(one.row.value, default=str))
                kept.append(SplitRow(row_id(value), value, one.conversation))
            on_progress(file.done, file.total)
        if not found:
            files.append(SourceFile(Path(path), sha256_file(Path(path)), tuple(kept)))
    if any(problems.values()):
        raise bad_data(problems)
    return files


def items(
    files: Sequence[SourceFile], *, threshold: float = groups.THRESHOLD, on_progress: Advance = ignore
) -> list[SplitItem]:
    """One item per question, in the order of the files.

    label: `meta.correct` of its first row, else its output if there are at most MOST_LABELS different ones. source:
    `meta.source`, else the file's name. group: shared by questions with one `meta.context`, equal ones and near
    duplicates.
    """
    rows = [(row, file.path.stem) for file in files for row in file.rows]
    union = groups.Union(len(rows))
    union.join_equal([row.id for row, _ in rows])
    union.join_equal([context_key(_text(row.conversation, "context")) or None for row, _ in rows])
    asked = [_asked(row.conversation) for row, _ in rows]
    for one, other in groups.near_duplicates(asked, threshold=threshold, on_progress=on_progress):
        union.join(one, other)

    outputs = {row.conversation.messages[-1].content for row, _ in rows if not _text(row.conversation, "correct")}
    first: dict[str, SplitItem] = {}
    least: dict[int, str] = {}
    for number, (row, _) in enumerate(rows):
        root = union.root(number)
        least[root] = min(row.id, least.get(root, row.id))
    for number, (row, stem) in enumerate(rows):
        output = row.conversation.messages[-1].content if len(outputs) <= MOST_LABELS else ""
        label = _text(row.conversation, "correct") or output
        source = _text(row.conversation, "source") or stem
        # A group is named by its least id, so that it does not depend on the order of the rows.
        first.setdefault(row.id, SplitItem(row.id, label, source, least[union.root(number)]))
    return list(first.values())


def hashes(files: Sequence[SourceFile]) -> dict[str, str]:
    """The SHA-256 of each question's rows in any order, as canonical JSON (keys sorted, no spaces, UTF-8)."""
    lines: dict[str, list[str]] = {}
    for file in files:
        for row in file.rows:
            lines.setdefault(row.id, []).append(_canonical(row.value))
    return {id: hashlib.sha256("\n".join(sorted(own)).encode()).hexdigest() for id, own in lines.items()}


def row_id(value: dict[str, Any]) -> str:
    """`meta.origin` or `meta.id`; a row without is known by its content."""
    for key in ("origin", "id"):
        own = value.get("meta", {}).get(key)
        if isinstance(own, str | int) and str(own):
            return str(own)
    return f"row-{hashlib.sha256(_canonical(value).encode()).hexdigest()[:16]}"


def _canonical(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _text(conversation: Conversation, key: str) -> str:
    value = conversation.meta.get(key)
    return value if isinstance(value, str) else ""


def _asked(conversation: Conversation) -> question_text.Asked:
    """What the row asks at its end; a later turn ("go on") means nothing without those before it."""
    spoken = [message.content for message in conversation.messages if message.role != "system"]
    if len(spoken) == 2:
        return question_text.read(spoken[0], spoken[1], conversation.meta.get("choices"))
    return question_text.read("\n\n".join(spoken[:-1]))
