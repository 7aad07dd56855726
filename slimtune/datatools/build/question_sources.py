"""A path or a Hugging Face id to questions, whatever layout it has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.data import questions
from slimtune.data.json_rows import Row
from slimtune.data.problems import bad_data, repeated_ids
from slimtune.data.questions import Question
from slimtune.data.sources import read_rows
from slimtune.datatools.build import columns as tables
from slimtune.datatools.build import lawqa

QuestionLayout = Literal["auto", "lawqa", "questions", "columns"]


@dataclass(frozen=True, slots=True)
class Sources:
    """questions: in the order of the files. notes: how each file was read, a sentence each, for the terminal."""

    questions: list[Question]
    notes: tuple[str, ...]


def read(
    paths: Sequence[str],
    *,
    layout: QuestionLayout = "auto",
    mapping: Mapping[str, tuple[str, ...]] | None = None,
    first_answer: int | None = None,
) -> Sources:
    """The questions of all files together.

    layout: `lawqa` (selection.json of lawqa_jp, also as CSV), `questions` (files of our own, see data/questions.py),
    `columns` (any table, see columns.py), or what each file's first row shows. A `mapping` means `columns`.

    Raises SlimtuneError with every problem of every file, and for an id that is used twice.
    """
    problems: dict[str, list[Problem]] = {}
    found: list[Question] = []
    notes: list[str] = []
    for path in paths:
        own = problems.setdefault(path, [])
        try:
            rows = read_rows(path, own)
            if rows:
                found += _questions(rows, path, layout, mapping or {}, first_answer, own, notes)
        except SlimtuneError as error:
            own += error.problems
    for problem in repeated_ids(found, "question"):
        problems.setdefault(problem.where.rpartition(":")[0], []).append(problem)
    if any(problems.values()):
        raise bad_data(problems)
    return Sources(found, tuple(notes))


def _questions(
    rows: list[Row],
    path: str,
    layout: QuestionLayout,
    mapping: Mapping[str, tuple[str, ...]],
    first_answer: int | None,
    problems: list[Problem],
    notes: list[str],
) -> list[Question]:
    if layout == "auto":
        layout = "columns" if mapping else _layout_of(rows[0])
    if layout == "lawqa":
        return lawqa.from_rows(rows, path, problems)
    if layout == "questions":
        return questions.from_rows(rows, path, problems)
    names = list(dict.fromkeys(name for row in rows for name in row.value))
    columns = tables.find_columns(names, mapping, path)
    notes.append(f"{path}: {columns}")
    if columns.unused:
        notes.append(f"{path}: not used: {', '.join(columns.unused)}")
    return tables.from_rows(rows, columns, path, problems, first_answer=first_answer)


def _layout_of(row: Row) -> QuestionLayout:
    if lawqa.is_lawqa(row):
        return "lawqa"
    return "questions" if questions.is_question(row) else "columns"
