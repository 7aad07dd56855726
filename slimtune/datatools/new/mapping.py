"""`--map question=COLUMN,answer=COLUMN`: what a person says of the columns."""

import difflib
import re
from collections.abc import Mapping, Sequence

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.datatools.new import names
from slimtune.datatools.new.grid import Table

FIELDS = (*names.FIELDS, "choices")
_PARTS = re.compile(rf",(?=\s*(?:{'|'.join(FIELDS)})\s*=)")
_OPTION = "--map"
Mapped = Mapping[str, tuple[str, ...]]
"""The columns of each field; only `choices` has several."""


def parse(options: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`question=質問,answer=回答` to field and columns. Raises SlimtuneError with every part that says nothing."""
    problems: list[Problem] = []
    mapped: dict[str, tuple[str, ...]] = {}
    for part in (part for option in options for part in _PARTS.split(option)):
        name, _, text = part.partition("=")
        name = name.strip()
        columns = tuple(one.strip() for one in (text.split("|") if name == "choices" else [text]) if one.strip())
        if name not in FIELDS or not columns:
            fix = f"write FIELD=COLUMN; the fields are {', '.join(FIELDS)}; choices may have several: choices=A|B|C"
            problems.append(Problem(f"'{part.strip()}' maps no column to a field", _OPTION, fix))
        elif name in mapped:
            problems.append(Problem(f"the field '{name}' is mapped twice", _OPTION, "map it once"))
        mapped[name] = columns
    for name, needs in (("answer", "question"), ("choices", "answer")):
        if not problems and name in mapped and needs not in mapped:
            fix = f"add {needs}=COLUMN"
            problems.append(Problem(f"'{name}' is mapped, and '{needs}' is not", _OPTION, fix))
    if problems:
        raise SlimtuneError(problems)
    return mapped


def names_in(mapped: Mapped) -> list[str]:
    """The names of columns in a mapping; numbers may count columns instead."""
    return [column for columns in mapped.values() for column in columns if not column.isdecimal()]


def on(table: Table, mapped: Mapped) -> dict[str, tuple[str, ...]]:
    """The mapping with names of columns only: "2" is the second one. Raises SlimtuneError for one that is not there."""
    problems: list[Problem] = []
    found: dict[str, tuple[str, ...]] = {}
    for field, columns in mapped.items():
        named = []
        for column in columns:
            number = int(column) if re.fullmatch("[0-9]{1,5}", column) else 0
            if column in table.columns:
                named.append(column)
            elif 1 <= number <= len(table.columns):
                named.append(table.columns[number - 1])
            else:
                near = difflib.get_close_matches(column, table.columns, n=1)
                hint = f"did you mean '{near[0]}'? " if near else ""
                fix = f"{hint}the columns are {', '.join(table.columns) or '(none)'}"
                problems.append(
                    Problem(f"there is no column '{column}', which {_OPTION} gives to '{field}'", table.path, fix)
                )
        found[field] = tuple(named)
    if problems:
        raise SlimtuneError(problems)
    return found
