"""Questions from any table: which column is which field, and how choices and answers are written."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.data.json_rows import Row, type_name
from slimtune.data.questions import LABELS, Question, checked_text, choice_faults
from slimtune.data.text import normalised
from slimtune.evaluate.replies.extract import label_position

FIELDS = ("id", "question", "choices", "correct", "context", "reasoning", "source", "article")
_REQUIRED = ("question", "choices", "correct")
# Usual column names in published data sets and in people's tables; the first match is used.
_USUAL: dict[str, tuple[str, ...]] = {
    "id": ("id", "question_id", "qid", "問題番号", "番号"),
    "question": ("question", "問題文", "問題", "設問", "question_text"),
    "choices": ("choices", "options", "選択肢"),
    "correct": (
        *("correct", "answer", "answerKey", "answer_key", "label", "gold"),
        *("正解", "正答", "答え", "解答", "output"),
    ),
    "context": ("context", "コンテキスト", "参照条文", "条文", "passage", "statute"),
    "reasoning": ("reasoning", "rationale", "explanation", "cot", "解説", "理由", "根拠"),
    "source": ("source", "subject", "category", "法令名", "法令", "科目"),
    "article": ("article", "条"),
}
# "A", "choice0", "option_b", "選択肢1", "肢ア": a column for each choice.
_CHOICE_COLUMN = re.compile(r"(?:(?:choice|option|opt|answer|選択肢|肢)[ _.]?)?(?P<label>[A-Ja-j]|[0-9]|10|[ア-コ])")
_LABELLED_LINE = re.compile(r"[(（]?(?P<label>10|[A-Ja-jＡ-Ｊａ-ｊ0-9０-９ア-コ①-⑩])[)）.．、,:： \u3000]+(?P<text>.*)")
Columns = Mapping[str, tuple[str, ...]]
"""The column of each field; `choices` may have several."""
_AROUND_A_LABEL = " \u3000()（）[]「」【】.．、:："


@dataclass(slots=True)
class _Draft:
    """A row on its way to a question; `answer` is still as the file writes it, and `labels` are the file's."""

    row: Row
    texts: dict[str, str] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    answer: str | int = ""
    problems: list[Problem] = field(default_factory=list)


def parse_mapping(options: Sequence[str]) -> Columns:
    """`question=設問`, `choices=A,B,C,D` to field and columns. Raises SlimtuneError with every bad one."""
    problems: list[Problem] = []
    mapping: dict[str, tuple[str, ...]] = {}
    for option in options:
        name, _, columns = option.partition("=")
        names = tuple(part.strip() for part in columns.split(",") if part.strip())
        if name not in FIELDS or not names or (len(names) > 1 and name != "choices"):
            fix = f"write FIELD=COLUMN; the fields are {', '.join(FIELDS)}; choices may name several: choices=A,B,C,D"
            problems.append(Problem(f"'{option}' maps no column to a field", "--map", fix))
        elif name in mapping:
            problems.append(Problem(f"the field '{name}' is mapped twice", "--map", "map it once"))
        mapping[name] = names
    if problems:
        raise SlimtuneError(problems)
    return mapping


def find_columns(names: Sequence[str], mapping: Columns, path: str) -> Columns:
    """The column of each field: the mapped one, or else the one with a usual name.

    Raises SlimtuneError for a mapped column that is not there and for a required field without a column.
    """
    problems: list[Problem] = []
    of: dict[str, tuple[str, ...]] = {}
    there = ", ".join(names)
    for name in FIELDS:
        wanted = mapping.get(name) or next(((usual,) for usual in _USUAL[name] if usual in names), ())
        if name == "choices" and not wanted:
            wanted = _choice_columns(names)
        missing = [column for column in wanted if column not in names]
        if missing:
            what = f"there is no column {' or '.join(missing)}, which --map gives to '{name}'"
            problems.append(Problem(what, path, f"the columns are {there}"))
        elif wanted:
            of[name] = wanted
        elif name in _REQUIRED:
            fix = f"name it with --map {name}={'A,B,C,D' if name == 'choices' else 'COLUMN'}; the columns are {there}"
            problems.append(Problem(f"no column is known to hold the '{name}' of a question", path, fix))
    if problems:
        raise SlimtuneError(problems)
    return of


def from_rows(
    rows: Sequence[Row], columns: Columns, path: str, problems: list[Problem], *, first_answer: int | None = None
) -> list[Question]:
    """The questions of a table. Labels of any kind become a, b, c …; the id is the file's name and the line unless given.

    A right answer is a label, the text of a choice, or a number. Numbers count from `first_answer` if it is given, from
    0 if one of the file's answers is 0, and from 1 if one is the number of choices. Faults of rows go into `problems`.
    Raises SlimtuneError if nothing tells from what the numbers count.
    """
    drafts = [_draft(row, columns, path) for row in rows]
    first = _first_number(drafts, path) if first_answer is None else first_answer
    questions: list[Question] = []
    for draft in drafts:
        line = draft.row.line
        correct = _correct(draft, first)
        if not draft.problems:
            draft.problems += [
                Problem(what, f"{path}:{line}", fix) for what, fix in choice_faults(draft.choices, correct)
            ]
        problems += draft.problems
        if not draft.problems:
            texts = {"id": f"{PurePath(path).stem}-{line}", "source": "", "article": "", "context": ""} | draft.texts
            questions.append(Question(**texts, choices=draft.choices, correct=correct, path=path, line=line))
    return questions


def _choice_columns(names: Sequence[str]) -> tuple[str, ...]:
    """The columns whose names are labels in order; () where fewer than two are."""
    labelled = [(name, match["label"]) for name in names if (match := _CHOICE_COLUMN.fullmatch(name))]
    for start in (0, 1):
        # "choice0" is the first choice where there is one, and no label that `label_position` knows.
        places = [int(label) - start if label.isdecimal() else label_position(label) for _, label in labelled]
        if len(labelled) >= 2 and places == list(range(len(labelled))):
            return tuple(name for name, _ in labelled)
    return ()


def _draft(row: Row, columns: Columns, path: str) -> _Draft:
    draft = _Draft(row)

    def report(what: str, fix: str) -> None:
        draft.problems.append(Problem(what, f"{path}:{row.line}", fix))

    for name, (column, *_) in columns.items():
        if name in ("choices", "correct"):
            continue
        value = row.value.get(column, "")
        if name == "id" and type(value) is int:
            value = str(value)
        if value != "" or name in _REQUIRED:
            draft.texts[name] = checked_text(value, f"'{column}'", report)
    labelled = _labelled_choices(row, columns["choices"], report)
    draft.labels = tuple(labelled)
    # Empty cells behind the last choice: a question with fewer choices than the table has columns.
    texts = list(labelled.values())
    while texts and len(columns["choices"]) > 1 and not texts[-1].strip():
        texts.pop()
    for label, text in zip(LABELS, texts, strict=False):
        draft.choices[label] = checked_text(text, f"choice {label}", report).strip()
    if len(texts) > len(LABELS):
        report(f"there are {len(texts)} choices", f"at most {len(LABELS)}")
    (column,) = columns["correct"]
    answer = row.value.get(column)
    if isinstance(answer, bool) or not isinstance(answer, (str, int)) or answer == "":
        report(f"'{column}' is {type_name(answer)}, not the answer", "write the label of the right choice")
    else:
        draft.answer = normalised(answer).strip() if isinstance(answer, str) else answer
    return draft


def _labelled_choices(row: Row, columns: Sequence[str], report: Callable[[str, str], None]) -> dict[str, str]:
    """Label as the file has it to text: from several columns, lines "a …", a list, an object, or texts beside labels."""
    if len(columns) > 1:
        found = {}
        for column in columns:
            match = _CHOICE_COLUMN.fullmatch(column)
            cell = row.value.get(column, "")
            found[match["label"] if match else column] = cell if isinstance(cell, str) else str(cell)
        return found
    value = row.value.get(columns[0])
    if isinstance(value, str):
        return _lines(normalised(value))
    if isinstance(value, dict) and set(value) == {"text", "label"}:
        texts, labels = value["text"], value["label"]
        if isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels):
            value = dict(zip(map(str, labels), texts, strict=True))
    if isinstance(value, list):
        value = dict(zip(LABELS, value, strict=False)) if len(value) <= len(LABELS) else dict(enumerate(value))
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        report(f"'{columns[0]}' is {type_name(value)} without texts", 'write lines "a …", ["…", "…"] or {"a": "…"}')
        return {}
    return {str(label): text for label, text in value.items()}


def _lines(text: str) -> dict[str, str]:
    """Lines "a …", "(1) …" or "ア．…"; a line without the next label continues the choice above it.

    Where the first line has no label, every line is a choice.
    """
    lines = text.strip().split("\n")
    found: dict[str, str] = {}
    for line in lines:
        match = _LABELLED_LINE.fullmatch(line.strip())
        if match and label_position(match["label"]) == len(found):
            found[match["label"]] = match["text"]
        elif found:
            found[next(reversed(found))] += f"\n{line}"
        else:
            return dict(zip(LABELS, (line for line in lines if line.strip()), strict=False))
    return found


def _number(draft: _Draft) -> int | None:
    """The answer as a number, where it is one and no label of the choices is written so."""
    text = str(draft.answer)
    return int(text) if re.fullmatch(r"\d{1,9}", text) and text not in draft.labels else None


def _first_number(drafts: Sequence[_Draft], path: str) -> int:
    numbers = [(number, len(draft.choices)) for draft in drafts if (number := _number(draft)) is not None]
    zero = any(number == 0 for number, _ in numbers)
    last = any(number == count for number, count in numbers)
    if numbers and zero == last:
        seen = ", ".join(map(str, sorted({number for number, _ in numbers})))
        what = f"the answers are the numbers {seen}: nothing tells whether they count from 0 or from 1"
        raise fail(what, where=path, fix="say it with --first-answer 0 or --first-answer 1")
    return 0 if zero else 1


def _correct(draft: _Draft, first: int) -> str:
    """The label of the right choice, or the answer as it stands where it names none."""
    place: int | None = _number(draft)
    if place is not None:
        place -= first
    elif str(draft.answer) in draft.labels:
        place = draft.labels.index(str(draft.answer))
    else:
        same = [index for index, text in enumerate(draft.choices.values()) if text == draft.answer]
        place = same[0] if len(same) == 1 else label_position(str(draft.answer).strip(_AROUND_A_LABEL))
    return LABELS[place] if place is not None and 0 <= place < len(draft.choices) else str(draft.answer)
