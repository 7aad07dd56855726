"""Replies that go through the choices: lists that only repeat them. No torch."""

import re

from slimtune.evaluate.replies.answer_marks import DIGITS, LETTERS, ONE, OPEN, REJECTED, SYMBOL, positions
from slimtune.evaluate.replies.answer_rules import FLAGS, TEXT

_LEAD = re.compile(rf"^[ (']*(?P<label>[{LETTERS}{DIGITS}])(?:(?P<alone>[ )']*+{SYMBOL}*[ ]*$)|[ ']*{TEXT})", FLAGS)
_ENTRY = re.compile(rf"(?P<label>{ONE})(?P<text>[ ']*{TEXT})?", FLAGS)


def without_lists(marked: str, count: int) -> str:
    """The labels of mere lists turned down: lines that begin a, b, c …, or one line with every choice and its text."""
    chars = list(marked)
    for start in [*_in_one_line(marked, count), *_line_by_line(marked)]:
        chars[start] = REJECTED
    return "".join(chars)


def _in_one_line(text: str, count: int) -> list[int]:
    """Where the labels of lines stand that name every choice in order, each with its text."""
    starts: list[int] = []
    for line in re.finditer(r"[^\n]+", text):
        entries = list(_ENTRY.finditer(line[0]))
        in_order = [positions(entry["label"])[0] for entry in entries] == list(range(count))
        if in_order and all(entry["text"] for entry in entries) and OPEN not in line[0]:
            starts += [line.start() + entry.start() for entry in entries]
    return starts


def _line_by_line(text: str) -> list[int]:
    """Where lines begin with the first, second, third … label: alone, or all with text; the last may be cut off."""
    runs: list[list[re.Match[str]]] = [[]]
    end = len(text.rstrip())
    for lead in _LEAD.finditer(text):
        run = runs[-1]
        follows = bool(run) and positions(lead["label"])[0] == positions(run[-1]["label"])[0] + 1
        cut_off = lead["alone"] is not None and lead.end() >= end
        if follows and ((lead["alone"] is None) == (run[0]["alone"] is None) or cut_off):
            run.append(lead)
        else:
            runs.append([lead] if positions(lead["label"]) == [0] else [])
    return [lead.start("label") for run in runs if len(run) > 1 for lead in run]
