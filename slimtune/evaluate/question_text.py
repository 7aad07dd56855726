"""What a row asks, without what it is dressed in: its question and its choices, as texts that can be compared. No torch."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Between digits a mark belongs to the number or the sum: 3.5 is not 35, 12-3 not 123.
_NOISE = re.compile(r"(?<!\d)[\W_]|[\W_](?!\d)")


def _heading(words: str) -> re.Pattern[str]:
    """【問題】 anywhere, "Question 3:" at the beginning of a line."""
    words = rf"(?:{words}) ?\d* ?"
    return re.compile(rf"[【\[]{words}[】\]]:?|^[ \t#*]*{words}[:.)]\**", re.MULTILINE | re.IGNORECASE)


_QUESTION_HEADING = _heading("問題|質問|設問|問|question|q")
_CHOICES_HEADING = _heading("選択肢|choices|options")
_HEADING_MARK = "\x02"  # no letter, so that `_letters` takes it away
_LABEL_FAMILIES = ("abcdefghij", "123456789", "アイウエオカキクケコ")
_FIRST_LABELS = {family[0] for family in _LABEL_FAMILIES}
_LABELS, _MARKS = "[a-j1-9ア-コ]", r"[)\]】>」.:,、]"
_LABELLED_LINE = re.compile(rf"\s*[(\[【<「]?({_LABELS})(?:{_MARKS}+\s*|\s+)(?=\S)")


@dataclass(frozen=True, slots=True)
class Asked:
    """text: as it stands. question, choices: as `letters`; no choices where none are known.

    question: without instructions, headings and passages as far as these can be told from it. answer: where it is part
    of what tells one row from another, else "".
    """

    text: str
    question: str
    choices: tuple[str, ...] = ()
    answer: str = ""

    @property
    def stem(self) -> tuple[str, ...]:
        """What is asked, choices apart."""
        return tuple(part for part in (self.question, self.answer) if part)

    @property
    def parts(self) -> tuple[str, ...]:
        return (*self.stem, *self.choices)

    @property
    def options(self) -> tuple[str, ...]:
        """The choices in an order of their own, equal for questions that differ in order or labels only."""
        return tuple(sorted(self.choices))


def letters(text: str) -> str:
    """The letters and digits of a text in NFKC and lower case, with marks between digits; equal for decorated texts."""
    return _letters(_squeezed(text))


def read(text: str, answer: str = "", choices: Any = None) -> Asked:
    """What a prompt asks. answer: the assistant's. choices: the row's `meta.choices`, label to text, if it has any.

    With choices the question is what stands before them, after the last heading such as 【問題】; behind them stands
    the instruction, which is left out. Where the row names no choices (or the text has others), labelled lines
    ("b. …") are choices if the answer names one of them: a numbered list in a prompt is not a question's choices.
    """
    marked = _CHOICES_HEADING.sub("", _QUESTION_HEADING.sub(_HEADING_MARK, _folded(text)))
    plain = "".join(marked.split())
    options = _stated(choices)
    found = _around(plain, list(options.values())) if options else None
    if found is None:
        options = _labelled_lines(marked, answer)
        found = _around(plain, list(options.values())) if options else None
    if found is None:
        return Asked(text, _question(plain))
    before, after = found
    label = re.escape(next(iter(options)))
    before = re.sub(rf"[(\[【<「]?(?:{label}{_MARKS}*|{_LABELS}{_MARKS}+)$", "", before)
    return Asked(text, _question(before) or _question(after), tuple(map(_letters, options.values())))


def excerpt(text: str, length: int) -> str:
    """The text on one line from its question's heading on, cut to `length` characters."""
    headings = list(_QUESTION_HEADING.finditer(text))
    return cut(" ".join(text[headings[-1].end() if headings else 0 :].split()), length)


def cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _squeezed(text: str) -> str:
    return "".join(_folded(text).split())


def _letters(squeezed: str) -> str:
    # A text of marks alone is told from another by its marks.
    return _NOISE.sub("", squeezed) or squeezed


def _question(plain: str) -> str:
    return _letters(plain.rpartition(_HEADING_MARK)[2])


def _stated(choices: Any) -> dict[str, str]:
    if not isinstance(choices, Mapping):
        return {}
    options = {_squeezed(str(label)): _squeezed(str(text)) for label, text in choices.items()}
    return options if len(options) >= 2 and all(options.values()) else {}


def _around(plain: str, options: Sequence[str]) -> tuple[str, str] | None:
    """The text before and after the choices, which stand in it in this order; None if they do not."""
    start = len(plain)
    for option in reversed(options):
        # From the end: a short choice may well occur in the question, too.
        start = plain.rfind(option, 0, start)
        if start < 0:
            return None
    return plain[:start], plain[plain.rfind(options[-1]) + len(options[-1]) :]


def _labelled_lines(folded: str, answer: str) -> dict[str, str]:
    """Label to squeezed text of the last lines that are labelled in order and of which the answer names one."""
    runs: list[dict[str, str]] = []
    label = ""
    for line in folded.splitlines():
        match = _LABELLED_LINE.match(line)
        if match and runs and match[1] == _following(runs[-1]):
            label = match[1]
            runs[-1][label] = _squeezed(line[match.end() :])
        elif match and match[1] in _FIRST_LABELS:
            label = match[1]
            runs.append({label: _squeezed(line[match.end() :])})
        elif not line.strip():
            label = ""
        elif label:
            runs[-1][label] += _squeezed(line)
    named = [run for run in runs if len(run) >= 2 and _names(answer, run)]
    return named[-1] if named else {}


def _following(run: Mapping[str, str]) -> str:
    """The label that continues a run, "" after the last one."""
    family = next(family for family in _LABEL_FAMILIES if family[0] in run)
    return family[len(run) : len(run) + 1]


def _names(answer: str, options: Mapping[str, str]) -> bool:
    """Whether an answer's last line ends with a label or with a choice."""
    lines = _folded(answer).strip().splitlines()
    last = lines[-1] if lines else ""
    if _squeezed(last).endswith(tuple(options.values())):
        return True
    return any(re.search(rf"(?<![a-z0-9]){label}\W*$", last) for label in options)
