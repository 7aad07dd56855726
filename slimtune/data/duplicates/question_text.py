"""What a row asks: its question and its choices, as texts that can be compared. No torch."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimtune.data.text import normalised

# Characters that NFKC leaves as they are, whatever stands beside them, marks apart: ASCII, kana, the usual punctuation
# and Chinese characters, that is nearly all of a Japanese text.
STABLE = "\0-\x7f、。〈-】〔-〛ぁ-ゖァ-ヺー-ヾ一-鿿"
# What joins the character before it: accents, and the marks of が and ぱ, also of half width.
MARKS = "\u0300-\u036f\u3099\u309a\uff9e\uff9f"
_UNSTABLE, _MARKS = re.compile(f"[^{STABLE}]+"), re.compile(f"[{MARKS}]")

# Between digits a mark belongs to the number or the sum: 3.5 is not 35, 12-3 not 123.
_NOISE = re.compile(r"(?<!\d)[\W_]|[\W_](?!\d)")
# Headings, in NFKC and lower case: "Question 3:" at the beginning of a line, 【問題】 anywhere in a text without spaces.
_QUESTION_LINE = re.compile(r"^[ \t#*]*(?:問題|質問|設問|問|question|q) ?\d* ?[:.)]\**", re.MULTILINE | re.IGNORECASE)
_QUESTION_BRACKETS = re.compile(r"[【\[](?:問題|質問|設問|問|question)\d*[】\]]:?")
_CHOICES_LINE = re.compile(r"^[ \t#*]*(?:選択肢|choices|options) ?:\**", re.MULTILINE)
_CHOICES_BRACKETS = re.compile(r"[【\[](?:選択肢|choices|options)[】\]]:?")
_QUESTION_FOLLOWS = "\x02"  # no letter, so that `_letters` takes it away

_LABEL_FAMILIES = ("abcdefghij", "123456789", "アイウエオカキクケコ")
_FIRST_LABELS = {family[0] for family in _LABEL_FAMILIES}
_LABEL, _OPENING, _CLOSING = "[a-j1-9ア-コ]", r"[(\[【<「]", r"[)\]】>」.:,、]"
_LABELLED_LINE = re.compile(rf"\s*{_OPENING}?({_LABEL})(?:{_CLOSING}+\s*|\s+)(?=\S)")


@dataclass(frozen=True, slots=True)
class Asked:
    """text: the prompt as it is. question, choices: as `letters`; choices is empty where none are known.

    question excludes instructions, headings and passages as far as they can be recognised. answer: set only if it tells
    one row from another.
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
    return _letters(squeezed(text))


def squeezed(text: str) -> str:
    """A text in NFKC and lower case without white space: equal for texts that differ in width, case or spacing."""
    return "".join(_folded(text).split())


def nfkc(text: str) -> str:
    """`unicodedata.normalize("NFKC", text)`, several times as fast for Japanese."""
    if _MARKS.search(text):
        return normalised(text, "NFKC")
    return _UNSTABLE.sub(lambda run: unicodedata.normalize("NFKC", run.group()), text)


def read(text: str, answer: str = "", choices: Any = None) -> Asked:
    """What a prompt asks. answer: the assistant's. choices: the row's `meta.choices`, label to text, if any.

    The question is the text between the last heading, such as 【問題】 or "Question:", and the choices. If the text does
    not contain the row's choices, its labelled lines ("b. …") are the choices. If the row has none, they count only if
    the answer names one: not every numbered list is a set of choices.
    """
    folded = _folded(text)
    plain = _plain(folded)
    options = _stated(choices)
    around = _around(plain, options)
    if around is None:
        runs = _labelled_lines(folded)
        options = next((run for run in reversed(runs) if options or _names(answer, run)), {})
        around = _around(plain, options)
    if around is None:
        return Asked(text, _question(plain) or _letters(plain))
    before, behind = around
    label = re.escape(next(iter(options)))
    before = re.sub(rf"{_OPENING}?(?:{label}{_CLOSING}*|{_LABEL}{_CLOSING}+)$", "", before)
    return Asked(text, _question(before) or _question(behind), tuple(map(_letters, options.values())))


def excerpt(text: str, length: int) -> str:
    """The text on one line from the heading of its question on, cut to `length` characters."""
    headings = [*_QUESTION_LINE.finditer(text), *_QUESTION_BRACKETS.finditer(text)]
    start = max((heading.end() for heading in headings), default=0)
    return cut(" ".join(text[start:].split()), length)


def cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _folded(text: str) -> str:
    return nfkc(text).casefold()


def _plain(folded: str) -> str:
    """The text without white space and headings, a mark where a question follows."""
    lines = _CHOICES_LINE.sub("", _QUESTION_LINE.sub(_QUESTION_FOLLOWS, folded))
    return _CHOICES_BRACKETS.sub("", _QUESTION_BRACKETS.sub(_QUESTION_FOLLOWS, "".join(lines.split())))


def _letters(plain: str) -> str:
    # A text of marks alone is told from another by its marks.
    return _NOISE.sub("", plain) or "".join(filter(str.isprintable, plain))


def _question(plain: str) -> str:
    return _letters(plain.rpartition(_QUESTION_FOLLOWS)[2])


def _stated(choices: Any) -> dict[str, str]:
    """Label to text of `meta.choices`, without white space; nothing if they cannot be a question's choices."""
    if not isinstance(choices, Mapping):
        return {}
    options = {squeezed(str(label)): squeezed(str(text)) for label, text in choices.items()}
    return options if len(options) >= 2 and all(map(_letters, options.values())) else {}


def _around(plain: str, options: Mapping[str, str]) -> tuple[str, str] | None:
    """The text before and behind the choices if it holds them all in their order."""
    texts = list(options.values())
    if not texts:
        return None
    start = len(plain)
    for text in reversed(texts):
        # From the end: a short choice may well occur in the question, too.
        start = plain.rfind(text, 0, start)
        if start < 0:
            return None
    return plain[:start], plain[plain.rfind(texts[-1]) + len(texts[-1]) :]


def _labelled_lines(folded: str) -> list[dict[str, str]]:
    """Label to text without white space, for each run of at least two lines that are labelled in order."""
    runs: list[dict[str, str]] = []
    label = ""
    for line in folded.splitlines():
        match = _LABELLED_LINE.match(line)
        if match and runs and match[1] == _following(runs[-1]):
            label = match[1]
            runs[-1][label] = "".join(line[match.end() :].split())
        elif match and match[1] in _FIRST_LABELS:
            label = match[1]
            runs.append({label: "".join(line[match.end() :].split())})
        elif not line.strip():
            label = ""
        elif label:
            runs[-1][label] += "".join(line.split())
    return [run for run in runs if len(run) >= 2]


def _following(run: Mapping[str, str]) -> str:
    """The label that continues a run, "" after the last one."""
    family = next(family for family in _LABEL_FAMILIES if family[0] in run)
    return family[len(run) : len(run) + 1]


def _names(answer: str, options: Mapping[str, str]) -> bool:
    """Whether an answer's last line ends with a label or with a choice."""
    lines = _folded(answer).strip().splitlines()
    last = lines[-1] if lines else ""
    if squeezed(last).endswith(tuple(options.values())):
        return True
    return any(re.search(rf"(?<![a-z0-9]){label}\W*$", last) for label in options)
