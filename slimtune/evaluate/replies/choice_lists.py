"""Replies that go through the choices: lists that only repeat them, and what is said of each. No torch."""

import re

from slimtune.evaluate.replies.answer_marks import ANY, DIGITS, LETTERS, LISTING, ONE, OPEN, REJECTED, SYMBOL, positions
from slimtune.evaluate.replies.answer_rules import FAULTY, FLAGS, PART, RIGHT, SUPPOSED, TEXT, UNMARKED, WRONG
from slimtune.evaluate.replies.reply_text import one_of

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


_CALLED_RIGHT = one_of(RIGHT, "正(?=[_。、,)\n]|$) [✓✔✅] correct right true")
_CALLED_WRONG = one_of(WRONG, r"incorrect wrong false (?:not|n't|cannot|never)_[^.\n]{0,12}(?:correct|right|true)")
_JUDGED = re.compile(
    rf"""(?P<labels>{ANY}){PART}[ )]*(?:(?P<the_one>が{FAULTY})
      | (?:[はもが:.→、,|-]|is|was|[ ])*{UNMARKED}{{0,12}}?(?:(?P<wrong>{_CALLED_WRONG})|(?P<right>{_CALLED_RIGHT})))
      {SUPPOSED}""",
    FLAGS,
)


def only_one_named(marked: str) -> int | None:
    """The only label that is named, where it is called right or 「cが誤り」 means it; a lone digit may be anything."""
    named = {index for mark in re.findall(ONE, marked) for index in positions(mark)}
    if len(named) != 1 or LISTING in marked or re.search(f"[{DIGITS}]", marked):
        return None
    judged = [match["wrong"] is None for match in _JUDGED.finditer(marked)]
    (index,) = named
    return index if judged and all(judged) and index >= 0 else None


def odd_one_out(marked: str, count: int) -> int | None:
    """The position of the choice that is called otherwise than all others, where each is called right or wrong."""
    verdicts: dict[int, set[bool]] = {}
    for match in _JUDGED.finditer(marked):
        for index in positions(match["labels"]):
            verdicts.setdefault(index, set()).add(match["right"] is not None)
    if count < 3 or set(verdicts) != set(range(count)) or any(len(said) > 1 for said in verdicts.values()):
        return None
    sides = [[index for index, said in verdicts.items() if said == {right}] for right in (True, False)]
    return next((side[0] for side in sides if len(side) == 1), None)
