"""A path to the table in it, whatever kind of file it is."""

from collections.abc import Collection
from pathlib import Path, PurePath
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError, bad_data, fail
from slimtune.core.units import plural
from slimtune.data.json_rows import Row
from slimtune.data.sources import is_hub_id, read_rows, table_row
from slimtune.datatools.new import delimited, names, workbook
from slimtune.datatools.new.grid import Table, as_table

_TEXTS = (".md", ".markdown", ".txt", ".text", ".rst")
_KEYED = (".json", ".jsonl", ".ndjson", ".parquet")
_MOST_FILES = 100_000
# From so many keys on, an object that has only texts pairs questions with answers.
_FEWEST_PAIRS = 4


def read(path: str, *, sheet: str | None = None, wanted: Collection[str] | None = None) -> Table:
    """The table in a file.

    sheet: of a workbook. wanted: names of columns that somebody maps, which tells where the heading is; None
    where nobody maps any: then cells with JSON are read as it.
    Raises SlimtuneError, with every problem that is found, for plain text, for a folder, and for what cannot be read.
    """
    if is_hub_id(path):
        what = "no such file; a data set on the hub cannot be read here"
        raise fail(what, where=path, fix="save it as a file first, for example with  slimtune data import")
    if inputs.is_folder(path):
        raise _of_folder(Path(path))
    head = b""
    if inputs.exists(path):
        with inputs.opened(Path(path)) as file:
            head = file.read(4)
    suffix = PurePath(path).suffix.lower()
    if workbook.is_workbook(head) and suffix != ".parquet":
        return _parsed(as_table(workbook.read(path, sheet), wanted or ()), wanted is None)
    if sheet is not None:
        raise fail("the file is not a workbook, and has no sheets", where="--sheet", fix="leave the option out")
    if not head or suffix in _KEYED or head.startswith(b"PAR1"):
        return _keyed(path)
    grid = delimited.read(path)
    if grid is None and suffix not in _TEXTS:
        return _keyed(path)
    if grid is None:
        raise plain_text(path, "plain text without columns")
    return _parsed(as_table(grid, wanted or ()), wanted is None)


def plain_text(path: str, what: str) -> SlimtuneError:
    """The error for text in which nobody asks and nobody answers."""
    told = f"this is {what}: supervised fine-tuning (train.method: sft) needs questions with their answers"
    fix = (
        "write a table with a column of questions and one of answers about this text; to let a model read the text "
        f"beside each question, use it with  slimtune data build … --context retrieved --corpus {path}"
    )
    return fail(told, where=path, fix=fix)


def _of_folder(folder: Path) -> SlimtuneError:
    with inputs.reading(folder):
        found = sorted(entry for entry in folder.iterdir() if inputs.is_file(entry))[:_MOST_FILES]
    tables = [str(entry) for entry in found if entry.suffix.lower() in (*_KEYED, ".csv", ".tsv", *workbook.SUFFIXES)]
    if tables:
        several = "" if len(tables) == 1 else "; one file at a time: "
        fix = f"name a file in it: {several.removeprefix('; ')}{', '.join(tables[:5])}"
        return fail("this is a folder, not a table", where=str(folder), fix=fix)
    texts = [entry for entry in found if entry.suffix.lower() in _TEXTS]
    if texts:
        return plain_text(str(folder), f"a folder of plain text ({plural(len(texts), 'file')})")
    return fail(
        "this folder holds no table and no text", where=str(folder), fix="name a CSV, Excel, JSON or Parquet file"
    )


def _parsed(table: Table, wanted: bool) -> Table:
    """The table with what its cells hold as JSON: turns, tools, `meta`. Raises SlimtuneError for broken ones."""
    if not wanted:
        return table
    problems: list[Problem] = []
    table.rows = [parsed for row in table.rows for parsed in table_row(row.value, table.path, row.line, problems)]
    if problems:
        raise bad_data({table.path: problems})
    return table


def _keyed(path: str) -> Table:
    """Rows that name their columns themselves: JSON, JSONL, Parquet."""
    problems: list[Problem] = []
    rows = read_rows(path, problems)
    if problems:
        raise bad_data({path: problems})
    notes: list[str] = []
    rows = _unfolded(rows, notes) if len(rows) == 1 else rows
    if len({row.line for row in rows}) < len(rows):  # several on one line
        rows = [Row(number, row.value) for number, row in enumerate(rows, start=1)]
    return Table(path, list(dict.fromkeys(name for row in rows for name in row.value)), rows, notes=notes)


def _unfolded(rows: list[Row], notes: list[str]) -> list[Row]:
    """One object that holds a whole table: columns as lists or as objects, or each question with its answer."""
    line, value = rows[0].line, rows[0].value
    columns: dict[str, list[Any]] = {}
    for name, content in value.items():
        if isinstance(content, dict):
            content = list(content.values())
        if isinstance(content, list) and content and not any(isinstance(one, dict | list) for one in content):
            columns[name] = content
    if len(columns) == len(value) >= 2 and len({len(content) for content in columns.values()}) == 1:
        notes.append("the file holds one object, whose values are the columns")
        cells = zip(*columns.values(), strict=True)
        return [Row(line, dict(zip(columns, row, strict=True))) for row in cells]
    texts = all(isinstance(content, str) for content in value.values())
    if len(value) >= _FEWEST_PAIRS and texts and not any(map(names.is_known, value)):
        notes.append("the file holds one object: each key is read as a question, and its text as the answer")
        return [Row(line, {"question": key, "answer": content}) for key, content in value.items()]
    return rows
