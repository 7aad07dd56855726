"""JSON text to rows, each with the line on which it starts: JSONL, arrays, and an object around one array.

Stricter than `json.loads`, which keeps the last of two equal keys: RFC 8259 leaves duplicate keys undefined (section 4)
and has no NaN or Infinity (section 6), so they are refused.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import Problem

# So many faults of an array's elements are told; each costs a look at the whole file, and the next ones say the same.
_MOST_FAULTS = 1000
# A single object with one of these is a row, not a wrapper around rows, even if its one list holds objects.
_ROW_KEYS = (
    *("messages", "conversations", "instruction", "input", "output", "prompt", "question", "query", "response"),
    *("chosen", "rejected", "completion", "preferred_output"),
)
# TRL's keys, which hold a text or a list of turns. What another key has as JSON may be meant as a text.
TURNS_OR_TEXT = ("prompt", "completion")
_SPACE = re.compile(r"[ \t\n]*")
_FIRST_KEY_OF_TURNS = re.compile(r"\s*\[\s*\{\s*(['\"])(role|content|from|value)\1\s*:")
_OTHER_KEY = {"role": "content", "content": "role", "from": "value", "value": "from"}
_TYPE_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    bytes: "binary data",
    int: "a number",
    float: "a number",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One example as the file has it. line: 1-based line where it starts; for Parquet and the hub, the row's number."""

    line: int
    value: dict[str, Any]


def type_name(value: object) -> str:
    """What people call a JSON value's type: "a number", "a list", "null"."""
    return "null" if value is None else _TYPE_NAMES.get(type(value), f"a {type(value).__name__}")


def turns_as_text(text: str) -> str:
    """The quotes of a text that is a whole list of turns: " where it is JSON, ' where Python wrote it; "" for any other."""
    first = _FIRST_KEY_OF_TURNS.match(text)
    if first is None:
        return ""
    quote, key = first.groups()
    return quote if f"{quote}{_OTHER_KEY[key]}{quote}" in text else ""


class StrictDecoder:
    """`json.JSONDecoder` that also says what standard JSON does not allow in the value it read last."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=self._constant,
            parse_float=self._float,
            parse_int=inputs.whole_number,
        )

    def decode(self, text: str) -> Any:
        """The one value in `text`. Raises ValueError where there is none or something follows it, RecursionError where
        it is nested more than 100 deep."""
        self.complaints.clear()
        inputs.require_shallow(text)
        return self._decoder.decode(text)

    def raw_decode(self, text: str, start: int) -> tuple[Any, int]:
        """The value that begins at `start` and the position behind it. Raises as `decode`."""
        self.complaints.clear()
        value, end = self._decoder.raw_decode(text, start)
        if text.count("[", start, end) + text.count("{", start, end) > inputs.MAX_DEPTH:
            inputs.require_shallow(text[start:end])
        return value, end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            twice = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
            self.complaints += [f"the key {key!r} occurs twice in one object" for key in twice]
        return value

    def _float(self, text: str) -> float:
        value = float(text)
        if math.isinf(value):
            self.complaints.append(f"the number {text[:20]} is too large")
        return value

    def _constant(self, name: str) -> None:
        self.complaints.append(f"{name} is not a JSON value")


def read_json(text: str, path: str, bad_lines: frozenset[int], problems: list[Problem]) -> list[Row]:
    """The rows of JSON text; which of the three layouts it is shows in its first line that is not blank."""
    first, _, rest = text.lstrip().partition("\n")
    first, one_line = first.strip().lstrip("\ufeff"), not rest.strip()
    named_lines = PurePath(path).suffix.lower() in (".jsonl", ".ndjson")
    whole_object = first == "{" or (not named_lines and (one_line or not first.endswith("}")))
    if first.startswith("[") and not (named_lines and not one_line and _is_json(first)):
        return _read_array(text, path, problems)
    if first.startswith("{") and whole_object:
        return _read_object(text, path, problems)
    return read_lines(text, path, bad_lines, problems)


def read_lines(
    text: str, path: str, bad_lines: frozenset[int], problems: list[Problem], *, first_line: int = 1
) -> list[Row]:
    """JSONL: one object a line; blank lines are skipped, and so are `bad_lines`, which have been reported already.

    first_line: the number of the first line in the file, where `text` is only a part of it.
    """
    decoder = StrictDecoder()
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), start=first_line):
        if number in bad_lines or not line.strip():
            continue
        try:
            # Files that were concatenated have a BOM in the middle.
            rows += _accepted(decoder.decode(line.lstrip("\ufeff")), decoder, path, number, problems)
        except inputs.FAULTS as error:
            problems.append(_broken(error, path, number))
    return rows


def _read_array(text: str, path: str, problems: list[Problem]) -> list[Row]:
    """The objects of an array that nothing may follow."""
    rows, end = _elements(text, text.index("["), path, problems)
    rest = _skip(text, end)
    if rest < len(text):
        fix = "keep one array per file, or write one object per line (JSONL)"
        problems.append(_at(text, rest, path, "more text after the end of the array", fix))
    return rows


def _read_object(text: str, path: str, problems: list[Problem]) -> list[Row]:
    """A single object: the rows of its one list (`{"samples": [{…}, …]}`) or, if it wraps none, itself the only row."""
    decoder = StrictDecoder()
    start = text.index("{")
    line = 1 + text.count("\n", 0, start)
    try:
        value, end = decoder.raw_decode(text, start)
    except inputs.FAULTS as error:
        problems.append(_broken(error, path, line))
        return []
    rest = _skip(text, end)
    if rest < len(text):
        fix = "write one object per line (JSONL), or put all of them into one array"
        problems.append(_at(text, rest, path, "more text after the end of the first object", fix))
        return []
    wrapper = _wrapper_key(value)
    if wrapper is None:
        return _accepted(value, decoder, path, line, problems)
    starts = [position for key, position in _members(text, start) if key == wrapper]
    if len(starts) > 1:
        what = f"the key {wrapper!r} occurs twice in one object"
        problems.append(_at(text, starts[1], path, what, "keep one of them"))
        return []
    return _elements(text, starts[0], path, problems)[0]


def _elements(text: str, start: int, path: str, problems: list[Problem]) -> tuple[list[Row], int]:
    """The objects of the array whose `[` is at `start`, and the position behind its `]` (the end, if it is broken).

    After a broken element, reading goes on at the next line that is indented as that element's first line was.
    """
    decoder, known = StrictDecoder(), len(problems)
    rows: list[Row] = []
    line, counted = 1, 0  # lines are counted on from the last element: an array may be long
    first = _skip(text, start + 1)
    if text.startswith("]", first):
        return rows, first + 1
    position: int | None = first
    while position is not None:
        line += text.count("\n", counted, position)
        counted = position
        if len(problems) - known >= _MOST_FAULTS:
            fix = "correct these faults first"
            problems.append(Problem("the rest of the array is not read: it has too many faults", f"{path}:{line}", fix))
            return rows, len(text)
        try:
            value, end = decoder.raw_decode(text, position)
        except inputs.FAULTS as error:
            problems.append(_broken(error, path, line))
            position = _next_element(text, position)
            continue
        rows += _accepted(value, decoder, path, line, problems)
        position = _skip(text, end)
        mark = text[position : position + 1]
        if mark == "]":
            return rows, position + 1
        if mark == ",":
            position = _skip(text, position + 1)
            if text.startswith("]", position):
                problems.append(_at(text, position, path, "a comma before the closing ]", "delete the comma"))
                return rows, position + 1
        elif mark == "{":
            problems.append(_at(text, position, path, "a comma is missing before this element", "put a comma here"))
        elif not mark:
            problems.append(_at(text, end, path, "the array is never closed", "the file looks cut off: get it again"))
            return rows, end
    return rows, len(text)


def _wrapper_key(value: dict[str, Any]) -> str | None:
    """The key of the one list in an object that wraps rows; None if the object is a row itself."""
    lists = [key for key, content in value.items() if isinstance(content, list)]
    if len(lists) != 1 or any(key in value for key in _ROW_KEYS):
        return None
    elements = value[lists[0]]
    return lists[0] if not elements or any(isinstance(element, dict) for element in elements) else None


def _members(text: str, start: int) -> Iterator[tuple[str, int]]:
    """Each key of the valid object at `start`, and where its value begins."""
    decoder = json.JSONDecoder()
    position = _skip(text, start + 1)
    while text[position] != "}":
        key, position = decoder.raw_decode(text, position)
        position = _skip(text, _skip(text, position) + 1)
        yield key, position
        _, position = decoder.raw_decode(text, position)
        position = _skip(text, position)
        if text[position] == ",":
            position = _skip(text, position + 1)


def _accepted(value: Any, decoder: StrictDecoder, path: str, line: int, problems: list[Problem]) -> list[Row]:
    where = f"{path}:{line}"
    if decoder.complaints:
        fix = "keep one of them; write a missing number as null or leave its key out"
        problems.extend(Problem(complaint, where, fix) for complaint in dict.fromkeys(decoder.complaints))
        return []
    if not isinstance(value, dict):
        what = f"the row is {type_name(value)}, not an object"
        problems.append(Problem(what, where, 'write {"input": …, "output": …}'))
        return []
    return [Row(line, value)]


def _broken(error: ValueError | RecursionError | MemoryError, path: str, line: int) -> Problem:
    if not isinstance(error, json.JSONDecodeError):
        return Problem(f"broken JSON: {inputs.reason(error)}", f"{path}:{line}", "write the row again")
    # In JSONL the text was this line alone; in an array it was the file, and the error may be lines below the start.
    line = max(line, error.lineno)
    fix = "write one object per line, nothing before or after it" if error.msg == "Extra data" else "correct the line"
    return Problem(f"broken JSON at column {error.colno}: {error.msg}", f"{path}:{line}", fix)


def _at(text: str, position: int, path: str, what: str, fix: str) -> Problem:
    line = 1 + text.count("\n", 0, position)
    column = position - text.rfind("\n", 0, position)
    return Problem(f"{what} (column {column})", f"{path}:{line}", fix)


def _next_element(text: str, position: int) -> int | None:
    """Where the next line with the indent of the one before `position` has a `{`."""
    indent = text[text.rfind("\n", 0, position) + 1 : position]
    if indent.strip():
        return None
    found = re.compile(rf"^{indent}(?=\{{)", re.MULTILINE).search(text, position + 1)
    return found.end() if found else None


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except inputs.FAULTS:
        return False
    return True
