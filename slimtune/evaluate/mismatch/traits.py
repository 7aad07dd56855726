"""What one row asks and answers, in the respects in which training and evaluation data can differ. No torch."""

import contextlib
import json
import re
from dataclasses import dataclass
from typing import Any

from slimtune.data.languages import spoken
from slimtune.data.prose import without_code
from slimtune.data.questions import asked_faults
from slimtune.data.records import Conversation
from slimtune.data.text import normalised, thought_and_answer
from slimtune.evaluate.replies.extract import extract, label_position

LABEL, ARGUED, CHOICE, JSON, CALL, TEXT = (
    *("a label", "an argument with a label", "the text of a choice"),
    *("JSON", "a tool call", "free text"),
)
"""What an answer is."""
QUESTION, OPEN = "multiple-choice questions", "open questions"
"""What a prompt is."""
NO_SYSTEM = ""

_LONGEST_LABEL, _LONGEST_LINE, _EDGE_LINES = 6, 100, 12
_SAMPLE = 4000
"""Characters that are looked at, at either end of a text."""
_LISTED = re.compile(
    r"^[ \t\u3000]*(?:[-*・][ ])?(?P<open>[(（\[【]?)(?P<label>[A-Ja-jＡ-Ｊａ-ｊ1-9１-９①-⑩アイウエオ])(?P<close>[)）\].．:：、,】]{1,2})(?=.)",
    re.MULTILINE,
)
_HEADING = re.compile(r"(?P<heading>[^\s:：。.?？][^:：。.?？\n]{0,23}[:：])[ \u3000]*\S")
_LETTERS = re.compile(r"[^\W\d_]")
_KANA, _LATIN = re.compile("[\u3041-\u309f\u30a1-\u30fa]"), re.compile("[A-Za-z\u00c0-\u024f]+")
_FEW_LETTERS = 8
_MARKDOWN = re.compile(r"^ {0,3}(?:#{1,6} |[-*] |\d+\. |```|\|.*\|)|\*\*[^*\n]+\*\*", re.MULTILINE)
_FENCE = re.compile(r"\A```\w*\n(.*)\n```\Z", re.DOTALL)
# The commonest ending by far, which needs no reading.
_ENDING = re.compile(r"(?:回答|答え|Answer)[:：][ ]?[^\s]{1,3}\Z")
_STOPS = "。．.!?！？"
_CLOSING = "」』）)\"'”’"
_LONG, _COMPARED = 8, 100
"""Characters of an answer that could end with a full stop."""


@dataclass(frozen=True, slots=True)
class Traits:
    """A row. asks, answer: see the names above; None where the row does not tell.

    label: the answer's label as it is written. said: both ends of the answer, for comparison. listing: how the prompt lists its choices ("a. …"). lines: short lines of
    the prompt, and what stands before a colon in them. size: of the answer without its reasoning, in UTF-8 bytes.
    sentence: whether the answer ends with a full stop; None for an answer that needs none.
    """

    where: str
    asks: str
    answer: str
    label: str
    said: str
    turns: str
    system: str
    prompt_language: str | None
    answer_language: str | None
    reasoning: bool
    markdown: bool
    sentence: bool | None
    size: int
    listing: str
    lines: frozenset[str]


def of(row: Conversation) -> Traits:
    """The traits of a row, from the last turn that is learned and the prompt before it."""
    learned = [place for place, turn in enumerate(row.messages) if turn.role == "assistant" and not turn.excluded]
    end = learned[-1] if learned else len(row.messages) - 1
    last = row.messages[end]
    asked = [message.content for message in row.messages[:end] if message.role == "user"]
    prompt = asked[-1] if asked else ""
    reasoning, text = thought_and_answer(last.content)
    text = text.strip()
    choices = {} if asked_faults(row.meta) else dict(row.meta["choices"])
    listing, labels = _listing(prompt, choices)
    answer, label = (CALL, "") if last.tool_calls else _answer(text, choices, len(choices) or labels, row.meta)
    # Numbered lines are choices where the answer is one of the numbers.
    numbered = bool(listing) and listing.strip("(（[【")[:1].isdecimal()
    question = bool(choices) or (bool(listing) and (not numbered or answer == LABEL))
    free = answer in (TEXT, CHOICE)
    return Traits(
        where=row.where,
        asks=QUESTION if question else OPEN,
        answer=answer,
        label=label,
        said=normalised(label, "NFKC").casefold()
        if answer == LABEL
        else text[:_COMPARED] + text[_COMPARED:][-_COMPARED:],
        turns="conversations of several turns" if len(asked) > 1 else "single questions",
        system=row.messages[0].content if row.messages[0].role == "system" else NO_SYSTEM,
        prompt_language=_language(prompt),
        answer_language=_language(text) if free or answer == ARGUED else None,
        reasoning=bool(reasoning.strip()),
        markdown=free and bool(_MARKDOWN.search(text[:_SAMPLE])),
        sentence=text.rstrip(_CLOSING)[-1:] in tuple(_STOPS) if free and len(text) > _LONG else None,
        size=len(text.encode("utf-8", "replace")),
        listing=listing if question else "",
        lines=frozenset(_lines(prompt)),
    )


def _language(text: str) -> str | None:
    """As `spoken`; of a text too short for it, by any kana or a few words in Latin letters."""
    text = text[:_SAMPLE]
    if found := spoken(text):
        return found
    if len(_KANA.findall(text)) > 1:
        return "Japanese"
    letters = "".join(_LETTERS.findall(without_code(text)))
    return "Latin script" if len(letters) >= _FEW_LETTERS and _LATIN.fullmatch(letters) else None


def _answer(text: str, choices: dict[str, str], count: int, meta: dict[str, Any]) -> tuple[str, str]:
    """What the answer is, and its label. count: choices of the question, 0 where none are known."""
    bare = text.strip("()（）[]【】「」*.。．:： \n") if len(text) <= _LONGEST_LABEL else ""
    place = label_position(bare) if bare else None
    named = bare and normalised(bare, "NFKC").casefold() in {normalised(one, "NFKC").casefold() for one in choices}
    # A lone digit may be a sum, and a letter needs no list.
    if named or (place is not None and (place < count or (not count and not bare.isdecimal()))):
        return LABEL, bare
    if choices and text in choices.values():
        return CHOICE, ""
    if text[:1] in ("{", "[", "`") and _is_json(text):
        return JSON, ""
    if meta.get("mode") == "cot" and _ENDING.search(text[-_LONGEST_LINE:]):
        return ARGUED, ""
    if count >= 2 or meta.get("mode") == "cot":
        ending = text[-_SAMPLE:]
        in_order = all(label_position(one) == index for index, one in enumerate(choices))
        known = tuple(choices) if 2 <= len(choices) <= 10 and in_order else min(max(count, 2), 10)
        if extract(ending, mode="cot", labels=known).answer is not None:
            return ARGUED, ""
    return TEXT, ""


def _is_json(text: str) -> bool:
    fenced = _FENCE.match(text)
    with contextlib.suppress(ValueError, RecursionError):
        return isinstance(json.loads(fenced[1] if fenced else text), dict | list)
    return False


def _listing(prompt: str, choices: dict[str, str]) -> tuple[str, int]:
    """How the last list of choices in the prompt is written, and how many there are; ("", 0) without one.

    Choices that `meta` names may also stand in one line.
    """
    found, run = "", 0
    for match in _LISTED.finditer(prompt[-_SAMPLE:]):
        place = label_position(match["label"])
        if place == 0:
            found, run = f"{match['open']}{match['label']}{match['close']} …", 1
        elif place == run:
            run += 1
    if run > 1:
        return found, run
    if choices:
        label, text = next(iter(choices.items()))
        pattern = rf"(?<![0-9A-Za-z])[(（\[【]?{re.escape(label)}[.．,、:：)）\]】」]*(?=[ \u3000]*{re.escape(text)})"
        inline = re.search(pattern, prompt)
        return (f"{inline[0]} …, in one line" if inline else "no labels"), len(choices)
    return "", 0


def _lines(prompt: str) -> set[str]:
    """Short lines of the prompt that may be the same in every row, at both of its ends, and what opens such lines."""
    lines = prompt[:_SAMPLE].splitlines()[:_EDGE_LINES] + prompt[-_SAMPLE:].splitlines()[-_EDGE_LINES:]
    found: set[str] = set()
    for line in map(str.strip, lines):
        if _LISTED.match(line):
            continue
        if 2 < len(line) <= _LONGEST_LINE and _LETTERS.search(line):
            found.add(line)
        if (heading := _HEADING.match(line)) and _LETTERS.search(line):
            found.add(heading["heading"])
    return found
