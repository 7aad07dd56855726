"""Which choice is right, decided by a whole column: are its cells labels, numbers from 0 or 1, or texts of choices?

One cell may be all three: of the choices "2", "B" and "3", "B" is a label and a text, and "2" a number too. Another cell
that can be read in one way only says how the column is meant.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from slimtune.core.errors import fail
from slimtune.data.text import normalised
from slimtune.evaluate.replies.extract import label_position

_NUMBER = re.compile(r"(?P<whole>\d{1,9})(?:\.0+)?")
_AROUND_A_LABEL = " \u3000()（）[]「」【】.．、:："


@dataclass(frozen=True, slots=True)
class Cell:
    """A right answer as the file writes it, and the choices of its row with the file's labels (() for none).

    columns: where each choice has a column, their names.
    """

    answer: str | int
    choices: Sequence[str]
    labels: Sequence[str] = ()
    columns: Sequence[str] = ()

    @property
    def text(self) -> str:
        return _plain(str(self.answer))

    @property
    def is_number(self) -> bool:
        return bool(_NUMBER.fullmatch(self.text))


@dataclass(frozen=True, slots=True)
class Column:
    """places: of the right choice in each row, from 0; None where a cell names none. kinds: what the cells are, in words."""

    places: list[int | None]
    kinds: str


@dataclass(frozen=True, slots=True)
class _Readings:
    """What a cell may mean: the number of a choice, or the place of a choice by its label or by its text."""

    number: int | None
    label: int | None
    text: int | None


def read(
    cells: Sequence[Cell | None],
    *,
    path: str,
    first: int | None = None,
    known: Sequence[int | None] = (),
    report: Callable[[int, str, str], None],
) -> Column:
    """The places that the cells of a column name. A cell is None where its row has none.

    first: the number of the first choice, if that is known. known: places from another column, which tell it otherwise.
    report: takes a row's place in `cells`, what is wrong with it, and what to do. Raises SlimtuneError where nothing tells
    from what the numbers count.
    """
    found = [_readings(cell) if cell else None for cell in cells]
    places: list[int | None] = [None] * len(cells)
    numbers = [row for row, one in enumerate(found) if one and one.number is not None]
    others = [row for row, one in enumerate(found) if one and one.number is None]
    kinds: list[str] = []
    by_label = [row for row in others if (one := found[row]) and one.label is not None and one.text is None]
    by_text = [row for row in others if (one := found[row]) and one.text is not None and one.label is None]
    for row in others:
        one, cell = found[row], cells[row]
        assert one and cell
        differ = one.label is not None and one.text is not None and one.label != one.text
        if differ and by_label and by_text:
            what = f"{str(cell.answer)!r} is a label and the text of another choice, and the column holds both kinds"
            report(row, what, "write the label of the right choice in every row")
        places[row] = one.text if one.label is None or (by_text and not by_label and differ) else one.label
    if others:
        kinds.append("texts of choices" if by_text and not by_label else "labels and texts" if by_text else "labels")
    if numbers:
        readings = {row: one for row in numbers if (one := found[row])}
        start = None if _are_texts(cells, readings, first) else _first(cells, readings, path, first, known)
        for row, one in readings.items():
            places[row] = one.text if start is None else (one.number or 0) - start
        kinds.append("texts of choices" if start is None else f"numbers that count from {start}")
    for row, place in enumerate(places):
        cell = cells[row]
        if place is not None and not (cell and 0 <= place < len(cell.choices)):
            places[row] = None
    return Column(places, " and ".join(dict.fromkeys(kinds)))


def answer_of(value: Any) -> str | int | None:
    """A cell that may be a right answer: a text, or a whole number, be it written as 2.0; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return normalised(value).strip() or None if isinstance(value, str) else value


def _readings(cell: Cell) -> _Readings:
    text = cell.text
    same = [place for place, choice in enumerate(cell.choices) if _plain(choice) == text]
    by_text = same[0] if len(same) == 1 else None
    number = _NUMBER.fullmatch(text)
    labels = [_plain(label) for label in cell.labels]
    counts = all(label.isdecimal() for label in labels) and labels[:1] in ([], ["0"], ["1"])
    if number and (counts or text not in labels):
        return _Readings(int(number["whole"]), None, by_text)
    for name in (text, text.strip(_AROUND_A_LABEL)):
        for own in (labels, [_plain(column) for column in cell.columns]):
            if name in own:
                return _Readings(None, own.index(name), by_text)
    label = label_position(text.strip(_AROUND_A_LABEL))
    if label is None and by_text is None:
        label = _label_before_text(cell)
    return _Readings(None, label if label is not None and label < len(cell.choices) else None, by_text)


def _label_before_text(cell: Cell) -> int | None:
    """The place of the choice that a cell names with label and text: "B. Paris"."""
    for place, choice in enumerate(cell.choices):
        before = cell.text.removesuffix(_plain(choice))
        if before != cell.text and label_position(before.strip(_AROUND_A_LABEL)) == place:
            return place
    return None


def _are_texts(cells: Sequence[Cell | None], readings: dict[int, _Readings], first: int | None) -> bool:
    """Whether numbers are the texts of choices: all of them are, and they are written as texts or count nothing."""
    if first is not None or any(one.text is None for one in readings.values()):
        return False
    given = [(cells[row], one.number or 0) for row, one in readings.items()]
    if all(cell and cell.text in map(_plain, cell.labels) for cell, _ in given):
        return False
    written = any(cell and isinstance(cell.answer, str) for cell, _ in given)
    return written or any(cell and number > len(cell.choices) for cell, number in given)


def _first(
    cells: Sequence[Cell | None],
    readings: dict[int, _Readings],
    path: str,
    first: int | None,
    known: Sequence[int | None],
) -> int:
    """The number of the first choice: as given, as other columns show, as a 0 or a last number shows, as labels say."""
    if first is not None:
        return first
    counted = [
        (number, len(cell.choices))
        for row, one in readings.items()
        if (cell := cells[row]) and (number := one.number) is not None
    ]
    told = [(one.number, known[row]) for row, one in readings.items() if known and known[row] is not None]
    agreeing = [
        sum(number == place + start for number, place in told if number is not None and place is not None)
        for start in (0, 1)
    ]
    if agreeing[0] != agreeing[1]:
        return agreeing.index(max(agreeing))
    zero = any(number == 0 for number, _ in counted)
    last = any(number == count for number, count in counted)
    labels = [
        int(cell.labels[0]) for row in readings if (cell := cells[row]) and cell.labels and cell.labels[0] in ("0", "1")
    ]
    if labels and (zero == last or all(cell.text in cell.labels for row in readings if (cell := cells[row]))):
        return min(labels)
    if zero == last and told:
        return 0  # rows that disagree with the other column are reported
    if zero == last:
        seen = ", ".join(map(str, sorted({number for number, _ in counted})[:12]))
        what = f"the answers are the numbers {seen}: nothing tells whether they count from 0 or from 1"
        raise fail(what, where=path, fix="say it with --first-answer 0 or --first-answer 1")
    return 0 if zero else 1


def _plain(text: str) -> str:
    """Equal for texts that differ in width and outer space only."""
    return normalised(text, "NFKC").strip()
