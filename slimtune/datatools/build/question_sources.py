"""A path or a Hugging Face id to questions, whatever layout it has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from slimtune.core.errors import Problem, SlimtuneError, bad_data
from slimtune.data import questions
from slimtune.data.json_rows import Row
from slimtune.data.questions import Question, repeated_ids
from slimtune.data.sources import read_rows
from slimtune.datatools.build import lawqa
from slimtune.datatools.build.columns import Columns, find_columns, from_rows

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
    mapping: Columns | None = None,
    first_answer: int | None = None,
) -> Sources:
    """The questions of all files together.

    layout: `lawqa` (selection.json of lawqa_jp, also as CSV), `questions` (files of our own, see data/questions.py),
    `columns` (any table, see columns.py), or what each file's first row shows. A `mapping` means `columns`. Raises
    SlimtuneError with every problem of every file, and for an id that is used twice.
    """
    problems: dict[str, list[Problem]] = {}
    found: list[Question] = []
    notes: list[str] = []
    for path in paths:
        own = problems.setdefault(path, [])
        try:
            rows = read_rows(path, own)
            kind = _layout_of(rows[0], mapping) if rows and layout == "auto" else layout
            if kind == "lawqa":
                found += lawqa.from_rows(rows, path, own)
            elif kind == "questions":
                found += questions.from_rows(rows, path, own)
            elif rows:
                rows = [_flat(row) for row in rows]
                names = list(dict.fromkeys(name for row in rows for name in row.value))
                empty = {name for name in names if all(row.value.get(name) in (None, "") for row in rows)}
                columns = find_columns(names, mapping or {}, path, empty=empty)
                notes += _on_columns(names, columns, path)
                found += from_rows(rows, columns, path, own, first_answer=first_answer, notes=notes)
        except SlimtuneError as error:
            own += error.problems
    for problem in repeated_ids(((one.id, one.where) for one in found), "question"):
        problems.setdefault(problem.where.rpartition(":")[0], []).append(problem)
    if any(problems.values()):
        raise bad_data(problems)
    return Sources(found, tuple(notes))


def _layout_of(row: Row, mapping: Columns | None) -> QuestionLayout:
    if mapping:
        return "columns"
    if lawqa.is_lawqa(row):
        return "lawqa"
    return "questions" if questions.is_question(row) else "columns"


def _flat(row: Row) -> Row:
    """A row whose question is an object with its stem and its choices, as in ARC's own files, with these as columns."""
    asked = row.value.get("question")
    if not isinstance(asked, dict) or not {"stem", "choices"} <= asked.keys():
        return row
    return Row(row.line, {**row.value, "question": asked["stem"], "choices": asked["choices"]})


def _on_columns(names: Sequence[str], columns: Columns, path: str) -> list[str]:
    taken = [f"{name} from {' '.join(own)}" for name, own in columns.items() if name != "again"]
    notes = [f"{path}: {', '.join(taken)}"]
    unused = [name for name in names if not any(name in own for own in columns.values())]
    return [*notes, f"{path}: not used: {', '.join(unused)}"] if unused else notes
