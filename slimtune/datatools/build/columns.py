"""Questions from any table: which column is which field."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.data.json_rows import Row, type_name
from slimtune.data.questions import LABELS, Question, checked_text, choice_faults
from slimtune.data.text import normalised
from slimtune.datatools.build import choice_cells, right_answers
from slimtune.datatools.build.right_answers import Cell

FIELDS = ("id", "question", "choices", "correct", "context", "reasoning", "source", "article")
_REQUIRED = ("question", "choices", "correct")
# Usual column names in published data sets and in people's tables, as `_folded` has them; the first match is used.
_USUAL: dict[str, tuple[str, ...]] = {
    "id": ("id", "questionid", "qid", "exampleid", "idstring", "問題番号", "番号"),
    "question": (
        *("question", "問題文", "問題", "設問", "questiontext", "questionstem", "stem", "query", "problem"),
        *("ctx", "goal", "sentence", "startphrase"),
    ),
    "choices": ("choices", "options", "選択肢", "endings", "answers"),
    "correct": (
        *("correct", "answer", "answerkey", "label", "gold", "cop", "correctoption", "correctanswer", "target"),
        *("正解", "正答", "答え", "解答", "正解番号", "output"),
    ),
    "context": ("context", "コンテキスト", "参照条文", "条文", "passage", "statute", "florespassage", "narrative"),
    "reasoning": ("reasoning", "rationale", "explanation", "cot", "exp", "解説", "理由", "根拠"),
    "source": ("source", "subject", "category", "subjectname", "法令名", "法令", "科目"),
    "article": ("article", "条"),
}
# The right answer once more: it is compared with the other, or taken where there is no other.
_AGAIN = (
    *("answerindex", "answeridx", "answerid", "answernum", "answerletter", "answerlabel", "answerchoice"),
    *("correctindex", "correctidx", "correctletter", "correctlabel", "correctanswerid", "correctanswernum"),
    *("correctanswerindex", "labelindex", "labelidx", "goldindex", "goldidx"),
)
# What a question cannot be answered without, and has no field here.
_PART_OF_THE_QUESTION = ("premise", "hypothesis", "dialogue", "dialog")
# RACE has whole texts in a column named like the place in a statute.
_LONG_ARTICLE = 100
Columns = Mapping[str, tuple[str, ...]]
"""The column of each field; `choices` may have several."""


@dataclass(slots=True)
class _Draft:
    """A row on its way to a question. again: the cells of the columns that repeat the right answer."""

    row: Row
    texts: dict[str, str] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    answer: Cell | None = None
    again: list[Cell | None] = field(default_factory=list)
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


def find_columns(names: Sequence[str], mapping: Columns, path: str, *, empty: Collection[str] = ()) -> Columns:
    """The column of each field: the mapped one, or else the one with a usual name.

    empty: columns without a value in any row, which are not found by their names. "again" has the columns that repeat the
    right answer. Raises SlimtuneError for a mapped column that is not there, and for a required field without a column.
    Also for a column that holds a part of the question and is not mapped.
    """
    problems: list[Problem] = []
    of: dict[str, tuple[str, ...]] = {}
    there = ", ".join(names)
    full = {name: _folded(name) for name in names if name not in empty}

    def usual(known: Sequence[str]) -> list[str]:
        return [name for one in known for name, folded in full.items() if folded == one]

    for name in FIELDS:
        wanted = mapping.get(name) or tuple(usual(_USUAL[name])[:1])
        if not wanted and name == "choices":
            wanted = choice_cells.columns_of(list(full))
        if not wanted and name == "correct":
            wanted = tuple(usual(_AGAIN)[:1])
        missing = [column for column in wanted if column not in names]
        if missing:
            what = f"there is no column {' or '.join(missing)}, which --map gives to '{name}'"
            problems.append(Problem(what, path, f"the columns are {there}"))
        elif wanted:
            of[name] = wanted
        elif name in _REQUIRED:
            fix = f"name it with --map {name}={'A,B,C,D' if name == 'choices' else 'COLUMN'}; the columns are {there}"
            problems.append(Problem(f"no column is known to hold the '{name}' of a question", path, fix))
    used = [column for columns in of.values() for column in columns]
    for column in usual(_PART_OF_THE_QUESTION):
        if column not in used:
            what = f"the column '{column}' would be left out, and the questions cannot be answered without it"
            problems.append(Problem(what, path, f"use it with --map context={column}, or write it into the question"))
    if problems:
        raise SlimtuneError(problems)
    again = tuple(column for column in usual(_AGAIN) if column not in used)
    return {**of, "again": again} if again else of


def from_rows(
    rows: Sequence[Row],
    columns: Columns,
    path: str,
    problems: list[Problem],
    *,
    first_answer: int | None = None,
    notes: list[str] | None = None,
) -> list[Question]:
    """The questions of a table. Labels of any kind become a, b, c …; the id is the file's name and the line unless given.

    A right answer is a label, the text of a choice, or a number, as the whole column shows; see right_answers.py. Numbers
    count from `first_answer` if it is given. Faults of rows go into `problems`, how answers were read into `notes`.
    Raises SlimtuneError if nothing tells from what the numbers count.
    """
    columns = _with_long_articles(rows, columns)
    drafts = [_draft(row, columns, path) for row in rows]
    correct = _right_labels(drafts, columns, path, first_answer, [] if notes is None else notes)
    questions: list[Question] = []
    for draft, label in zip(drafts, correct, strict=True):
        line = draft.row.line
        if not draft.problems:
            draft.problems += [
                Problem(what, f"{path}:{line}", fix) for what, fix in choice_faults(draft.choices, label)
            ]
        problems += draft.problems
        if not draft.problems:
            texts = {"id": f"{PurePath(path).stem}-{line}", "source": "", "article": "", "context": ""} | draft.texts
            questions.append(Question(**texts, choices=draft.choices, correct=label, path=path, line=line))
    return questions


def _right_labels(
    drafts: Sequence[_Draft], columns: Columns, path: str, first: int | None, notes: list[str]
) -> list[str]:
    """The label of each right choice, or the answer as it stands where it names none."""

    def report(row: int, what: str, fix: str) -> None:
        draft = drafts[row]
        draft.problems.append(Problem(what, f"{path}:{draft.row.line}", fix))

    cells = [draft.answer for draft in drafts]
    repeated = {
        column: [draft.again[place] for draft in drafts] for place, column in enumerate(columns.get("again", ()))
    }
    known: list[int | None] = [None] * len(drafts)
    for again in repeated.values():
        # Labels and texts among the repetitions tell from what numbers in the first column count, and the reverse.
        told = right_answers.read(
            [cell if cell and not cell.is_number else None for cell in again], path=path, report=_ignored
        )
        known = [one if one is not None else other for one, other in zip(known, told.places, strict=True)]
    read = right_answers.read(cells, path=path, first=first, known=known, report=report)
    if read.kinds:
        notes.append(f"{path}: '{columns['correct'][0]}' holds {read.kinds}")
    labels = [
        LABELS[place] if place is not None else str(cell.answer) if cell else ""
        for place, cell in zip(read.places, cells, strict=True)
    ]
    for column, again in repeated.items():
        told = right_answers.read(again, path=path, known=read.places, report=report)
        for row, (place, cell) in enumerate(zip(told.places, again, strict=True)):
            if cell and not drafts[row].problems and place != read.places[row] and read.places[row] is not None:
                means = f"choice {LABELS[place]}" if place is not None else "none of the choices"
                given = cells[row]
                what = f"'{columns['correct'][0]}' is {given.answer if given else ''!r} (choice {labels[row]}), but"
                what += f" '{column}' is {cell.answer!r} ({means})"
                report(row, what, f"correct one of the two; the column '{column}' holds {told.kinds or 'no answers'}")
        if told.kinds:
            notes.append(f"{path}: '{column}' repeats the answer: {told.kinds}")
    return labels


def _ignored(row: int, what: str, fix: str) -> None:
    """For a first look at a column whose faults are reported by the second."""


def _with_long_articles(rows: Sequence[Row], columns: Columns) -> Columns:
    """The columns, with the one of articles as the context where there is no other and it holds whole texts."""
    if "context" in columns or "article" not in columns:
        return columns
    texts = [value for row in rows if isinstance(value := row.value.get(columns["article"][0]), str)]
    if sum(len(text) > _LONG_ARTICLE for text in texts) * 2 <= len(texts):
        return columns
    return {("context" if name == "article" else name): own for name, own in columns.items()}


def _folded(name: str) -> str:
    """Equal for names of columns that differ in width, case, spaces and joining marks."""
    return normalised(name, "NFKC").casefold().translate({ord(mark): None for mark in " _-."})


def _draft(row: Row, columns: Columns, path: str) -> _Draft:
    draft = _Draft(row)

    def report(what: str, fix: str) -> None:
        draft.problems.append(Problem(what, f"{path}:{row.line}", fix))

    for name, (column, *_) in columns.items():
        if name in ("choices", "correct", "again"):
            continue
        value = row.value.get(column)
        if name == "id" and type(value) is int:
            value = str(value)
        if name in _REQUIRED or value not in (None, ""):
            draft.texts[name] = checked_text("" if value is None else value, f"'{column}'", report)
    texts, labels = choice_cells.read(row, columns["choices"], report)
    for label, text in zip(LABELS, texts, strict=False):
        draft.choices[label] = checked_text(text, f"choice {label}", report).strip()
    if len(texts) > len(LABELS):
        report(f"there are {len(texts)} choices", f"at most {len(LABELS)}")
    own = columns["choices"] if len(columns["choices"]) > 1 else ()

    def cell(column: str) -> Cell | None:
        answer = right_answers.answer_of(row.value.get(column))
        return None if answer is None else Cell(answer, list(draft.choices.values()), labels, own)

    draft.answer = cell(columns["correct"][0])
    if draft.answer is None:
        value = row.value.get(columns["correct"][0])
        state = "is empty" if value in (None, "") else f"is {type_name(value)}, not the answer"
        report(f"'{columns['correct'][0]}' {state}", "write the label of the right choice")
    draft.again = [cell(column) for column in columns.get("again", ())]
    return draft
