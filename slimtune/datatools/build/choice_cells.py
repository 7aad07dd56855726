"""The choices of a row of a table, in every way in which published sets and people's tables write them."""

import ast
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from slimtune.core import inputs
from slimtune.data.json_rows import Row, type_name
from slimtune.data.text import normalised
from slimtune.evaluate.replies.extract import label_position

# "A", "choice0", "option_b", "opa", "選択肢1", "肢ア": a column for each choice.
_COLUMN = re.compile(
    r"(?:(?:choice|option|opt|op|sol|ending|mc_answer|answer|ans|選択肢|肢)[ _.]?)?(?P<label>[A-J]|[0-9]|10|[ア-コ])",
    re.IGNORECASE,
)
_LABEL = r"(?P<label>10|[A-Ja-jＡ-Ｊａ-ｊ0-9０-９ア-コ①-⑩])"
_LABELLED_LINE = re.compile(rf"[(（\[]?{_LABEL}(?:\s?[)）\].．、,:：]|[ \u3000])[ \u3000]*(?P<text>.*)", re.DOTALL)
# Several on one line: "a ) 38 , b ) 27 , c ) 30".
_IN_A_LINE = re.compile(rf"(?:^|[\s,;、；])[(（\[]?{_LABEL}\s?[)）\]．.:：]\s*")
_BETWEEN = " \u3000,;、；"
_LONGEST_LIST = 100_000  # characters of a list that is written as text


def label_of(column: str) -> str:
    """The label in a column's name: "b" of "option_b"; the name itself where it has none."""
    match = _COLUMN.fullmatch(column)
    return match["label"] if match else column


def columns_of(names: Sequence[str]) -> tuple[str, ...]:
    """The columns whose names are labels in order; () where fewer than two are."""
    labelled = [(name, match["label"]) for name in names if (match := _COLUMN.fullmatch(name))]
    for start in (0, 1):
        # "choice0" is the first choice where there is one, and no label that `label_position` knows.
        places = [int(label) - start if label.isdecimal() else label_position(label) for _, label in labelled]
        if len(labelled) >= 2 and places == list(range(len(labelled))):
            return tuple(name for name, _ in labelled)
    return ()


def read(row: Row, columns: Sequence[str], report: Callable[[str, str], None]) -> tuple[list[str], tuple[str, ...]]:
    """The texts of a row's choices and the labels that the file gives them, () for none.

    From several columns, lines "a …", a list, an object, a list of objects, or texts beside labels. Empty choices behind
    the last one are left out: a question may have fewer than the table has places.
    """
    if len(columns) > 1:
        labelled = [(label_of(column), row.value.get(column)) for column in columns]
    else:
        labelled = _of_cell(row.value.get(columns[0]))
    while labelled and (labelled[-1][1] is None or str(labelled[-1][1]).strip() == ""):
        labelled.pop()
    texts = [_text(value) for _, value in labelled]
    if not texts or None in texts:
        cell = row.value.get(columns[0])
        what = (
            f"'{columns[0]}' is empty"
            if cell in ("", None, [])
            else f"'{columns[0]}' is {type_name(cell)} without texts"
        )
        report(what, 'write lines "a …", ["…", "…"] or {"a": "…"}')
        return [], ()
    plain = [text or "" for text in texts]
    labels = tuple(label for label, _ in labelled)
    return (plain, labels) if all(labels) else _without_labels(plain)


def _of_cell(value: Any) -> list[tuple[str, Any]]:
    """Label and text of each choice; the label is "" where the file gives none."""
    if isinstance(value, str):
        listed = _list_in_text(value)
        if listed is None:
            return list(_lines(normalised(value)))
        value = listed
    if isinstance(value, dict) and {"text", "label"} == set(value):
        texts, labels = value["text"], value["label"]
        if isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels):
            return list(zip(map(str, labels), texts, strict=True))
        return []
    if isinstance(value, list):
        if value and all(isinstance(one, dict) and {"text", "label"} <= set(one) for one in value):
            return [(str(one["label"]), one["text"]) for one in value]
        return [("", one) for one in value]
    return [(str(label), text) for label, text in value.items()] if isinstance(value, dict) else []


def _list_in_text(text: str) -> Any:
    """The list or object that a table's cell holds as JSON or as Python writes it; None for anything else."""
    if text[:1] + text.rstrip()[-1:] not in ("[]", "{}") or len(text) > _LONGEST_LIST:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            inputs.require_shallow(text)
            value = parse(text)
        except (*inputs.FAULTS, SyntaxError):
            continue
        return value if isinstance(value, (list, dict)) else None
    return None


def _text(value: Any) -> str | None:
    """A choice as text; None for what is neither a text nor a number."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _without_labels(texts: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """A list whose texts begin with their labels ("A)21", "(B) …"): texts and labels apart."""
    found = [_LABELLED_LINE.fullmatch(text.strip()) for text in texts]
    matches = [match for match in found if match and match["text"].strip()]
    in_order = [label_position(one["label"]) for one in matches] == list(range(len(texts)))
    # "1 000", "2 000" and "A man", "B vitamins": without a sign behind it, it is no label.
    if in_order and all(not one[0].removeprefix(one["label"])[0].isspace() for one in matches):
        return [one["text"] for one in matches], tuple(one["label"] for one in matches)
    return texts, ()


def _lines(text: str) -> list[tuple[str, str]]:
    """Lines "a …", "(1) …" or "ア．…"; a line without the next label continues the choice above it.

    Where the first line has no label, every line is a choice. One line may hold all of them.
    """
    lines = text.strip().split("\n")
    if len(lines) == 1 and len(inline := _in_a_line(lines[0])) > 1:
        return inline
    found: list[tuple[str, str]] = []
    for line in lines:
        match = _LABELLED_LINE.fullmatch(line.strip())
        if match and label_position(match["label"]) == len(found):
            found.append((match["label"], match["text"]))
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{line}")
        else:
            return [("", line) for line in lines if line.strip()]
    return found


def _in_a_line(line: str) -> list[tuple[str, str]]:
    """The choices of a line that begins with the first label and holds the next ones, in order."""
    places: list[re.Match[str]] = []
    for match in _IN_A_LINE.finditer(line):
        if label_position(match["label"]) == len(places) and (places or match.start() == 0):
            places.append(match)
    ends = [*(place.start() for place in places[1:]), len(line)][: len(places)]
    return [(place["label"], line[place.end() : end].strip(_BETWEEN)) for place, end in zip(places, ends, strict=True)]
