"""The rules that find where a marked reply (`answer_marks`) commits itself to a label. No torch.

Each rule is one regular expression whose group `answer` is a mark or a group of marks. What has to stand behind the
label is part of it, so that 「正解はA社」, 「答えはaのように」 or "So A, the seller, may …" say nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from slimtune.data.records import Mode
from slimtune.evaluate.replies.answer_marks import (
    ANY,
    BOXED,
    CLOSE,
    DIGITS,
    LETTERS,
    LISTING,
    ONE,
    OPEN,
    SYMBOL,
    positions,
)
from slimtune.evaluate.replies.answer_words import (
    ASKED,
    CHOOSE,
    CHOOSE_EN,
    CLAUSE_END,
    CLOSED,
    ENDED,
    FIELD,
    FILLER,
    IS,
    IS_EN,
    IS_RIGHT,
    LINK,
    LOOSE,
    MARKER,
    MARKER_EN,
    MOST,
    NOTE,
    OPENING,
    PART,
    RIGHT,
    SUPPOSED,
    TEXT,
    THEREFORE,
    THING,
    UNMARKED,
    UNMARKED_CLAUSE,
    UNMARKED_EN,
    WANTED,
    WANTED_EN,
    WRONG,
)
from slimtune.evaluate.replies.choice_lists import without_lists

Place = Literal["anywhere", "first line", "last line", "closing line", "last sentence", "nowhere"]


@dataclass(frozen=True, slots=True)
class Rule:
    """name: as `extract` documents it. direct, cot: where it must stand to count in that mode; see `_Places`.

    marker: an explicit answer marker, which in cot mode outweighs every other rule.
    """

    name: str
    pattern: re.Pattern[str]
    direct: Place = "anywhere"
    cot: Place = "anywhere"
    marker: bool = False


@dataclass(frozen=True, slots=True)
class Commitment:
    """labels: their positions, several for 「aまたはc」, -1 for a label that the question does not have."""

    labels: tuple[int, ...]
    rule: str
    marker: bool = False


_FLAGS = re.VERBOSE | re.IGNORECASE | re.MULTILINE
_ANSWER = rf"(?P<answer>{ANY})"
_LETTER = rf"(?P<answer>[{LETTERS}]|{OPEN}[{LETTERS}][^{CLOSE}]*{CLOSE})"
_DIGIT = rf"(?P<answer>[{DIGITS}]|{OPEN}[{DIGITS}][^{CLOSE}]*{CLOSE})"
_START = rf"^[ (']*(?:{OPENING}){{0,3}}[ (']*"
_COPULA = rf"[ )']*{PART}(?:{IS}{UNMARKED}{{0,12}})"
_REST = rf"(?:{SYMBOL}|[ ])*"


def _marker(pattern: str, name: str = "marker") -> Rule:
    return Rule(name, re.compile(pattern, _FLAGS), marker=True)


def _rule(name: str, pattern: str, direct: Place = "anywhere", cot: Place = "anywhere") -> Rule:
    return Rule(name, re.compile(pattern, _FLAGS), direct, cot)


# Of several rules that find the same answer, the first one names it.
RULES = (
    _marker(rf"{BOXED}[ \n(]*{_ANSWER}{LOOSE}", "boxed"),
    # 回答: c, 正解は「c」です
    _marker(rf"{MARKER}{NOTE}{LINK}{_ANSWER}{LOOSE}"),
    # 正解は、第2条によりcとなる
    _marker(rf"{MARKER}(?:は|として){UNMARKED_CLAUSE}{{0,30}}{_ANSWER}{CLOSED}"),
    # Answer: C
    _marker(rf"{MARKER_EN}{NOTE}[ )']*[:=→\n-]{LINK}{_ANSWER}{LOOSE}"),
    # Answer (C)
    _marker(rf"{MARKER_EN}{NOTE}[ .,)]+(?:[(]|{LISTING})*{_ANSWER}{CLAUSE_END}"),
    # The answer to this question is therefore C
    _marker(rf"{MARKER_EN}{UNMARKED_EN}{{0,60}}?\b(?:is|was|be|are)\b{LINK}{_ANSWER}{CLAUSE_END}"),
    # Choice: c
    _marker(rf"{FIELD}{NOTE}[ ]*[:=→)][ :(]*{_ANSWER}(?=[ )'。.,]*$)"),
    # 問1: c
    _marker(rf"^[ (]*(?:問題?|q(?:uestion)?)[ ]*(?:[1{DIGITS}][ ]*)?[:.)][ ]*{_ANSWER}(?=[ )'。.]*$)"),
    # よってc。
    _rule("conclusion", rf"{THEREFORE}[ \n、,:(]*(?:选|選|{FILLER}){_ANSWER}{CLOSED}"),
    # したがって、cが誤り
    _rule("conclusion", rf"{THEREFORE}[ \n、,:(]*{FILLER}{_ANSWER}{PART}[ )]*が{MOST}(?:{RIGHT}|{WRONG}){SUPPOSED}"),
    # Therefore, C is correct
    _rule("conclusion", rf"{THEREFORE}[ \n,:(]*{FILLER}{_ANSWER}[ )]*{IS_RIGHT}"),
    # 正しいのはc, 届出が要るものはc
    _rule("sentence", rf"(?:{THING}|{WANTED}{UNMARKED}{{0,10}}の)(?:は|が|:|→|=)、?{FILLER}{_ANSWER}{ENDED}"),
    # 誤り: c
    _rule("sentence", rf"(?:(?:正しい|誤り|間違い|不?適切)(?:は|:)|[正誤][ ]*:)、?{FILLER}(?P<answer>{ONE}){ENDED}"),
    # cが最も適切
    _rule("sentence", rf"{_ANSWER}{PART}[ )]*(?:こそが?|が){MOST}{RIGHT}{SUPPOSED}", cot="last sentence"),
    # cを選びます
    _rule("sentence", rf"{_ANSWER}{PART}[ )]*(?:を|と)、?{CHOOSE}"),
    # 选C
    _rule("sentence", rf"(?:选择?|选项|選擇)[ :是]*{_ANSWER}{CLOSED}"),
    # The incorrect statement is C
    _rule("sentence", rf"\b{WANTED_EN}[ ]*(?:{IS_EN}|[:=→-])[ :(]*{FILLER}{_ANSWER}{CLAUSE_END}"),
    # I would choose option (c)
    _rule("sentence", rf"{CHOOSE_EN}[ :]+(?:(?:the|answer|option|choice|letter)[ ]+)*[(]*{_ANSWER}{CLAUSE_END}"),
    # C is the best answer
    _rule("sentence", rf"{_ANSWER}[ )]*{IS_RIGHT}", cot="last sentence"),
    # c, はい、cです。
    _rule("bare label", rf"{_START}{_LETTER}{_COPULA}?{_REST}(?:$|。)", cot="last line"),
    # お答えします。cです。
    _rule("bare label", rf"(?<=[。!?])[ (']*{_ANSWER}(?:{_COPULA}{_REST}(?:$|。)|[ )']*。)", cot="last line"),
    # It's not A. It's B.
    _rule("bare label", rf"(?<=[.!?][ ])(?:{OPENING}){{1,3}}[ (']*{_ANSWER}[ )']*(?:[.!。]|$)", cot="last line"),
    # A digit in a line of its own numbers what follows, unless it stands at the beginning, apart at the end, or behind
    # words about the answer.
    _rule("bare label", rf"{_START}{_DIGIT}{_COPULA}?{_REST}(?:$|。)", direct="first line", cot="closing line"),
    _rule("bare label", rf"{_START}{_DIGIT}{_COPULA}?{_REST}(?:$|。)", direct="closing line", cot="nowhere"),
    _rule("bare label", rf"{ASKED}[^\n]{{0,80}}\n+{_START}{_DIGIT}{_COPULA}?{_REST}(?:$|。)", cot="last line"),
    _rule("first line", rf"{_START}{_LETTER}{_COPULA}?{_REST}$", direct="nowhere", cot="first line"),
    # C. 第5条の届出書
    _rule("label with text", rf"^[ ('?!]*{_LETTER}[ ']*{TEXT}", direct="first line", cot="closing line"),
    _rule("label with text", rf"^[ ('?!]*{_DIGIT}[ ']*{TEXT}", direct="first line", cot="nowhere"),
)  # fmt: skip


def commitments(marked: str, count: int, mode: Mode, *, fresh: bool) -> list[Commitment]:
    """Every place where the reply commits itself as `mode` wants it, in order.

    fresh: the text is a reply from its beginning; the first line of anything else says nothing.
    """
    text = without_lists(marked, count)
    places = _Places.of(text, fresh)
    found: dict[int, Commitment] = {}
    for rule in RULES:
        place = rule.direct if mode == "direct" else rule.cot
        for match in rule.pattern.finditer(text):
            start = match.start("answer")
            if start not in found and places.hold(place, start):
                found[start] = Commitment(tuple(positions(match["answer"])), rule.name, rule.marker)
    return [found[start] for start in sorted(found)]


_CONTENT = re.compile(rf"[\w{LETTERS}{DIGITS}{OPEN}]")
_OPENINGS = re.compile(rf"[^\w{LETTERS}{DIGITS}{OPEN}]*(?:(?:{OPENING})[^\w{LETTERS}{DIGITS}{OPEN}]*){{0,3}}", _FLAGS)


@dataclass(frozen=True, slots=True)
class _Places:
    """Offsets: where the first line that says something ends, and where the last line and the last sentence begin.

    closing_line: the last line's, if it is the only one or has an empty one before it.
    """

    first_line_end: int
    last_line: int
    closing_line: int
    last_sentence: int

    @classmethod
    def of(cls, text: str, fresh: bool) -> _Places:
        end = len(text)
        while end and not _CONTENT.match(text, end - 1):
            end -= 1
        last_line = text.rfind("\n", 0, end) + 1
        apart = text[:last_line].endswith("\n\n") or (fresh and not text[:last_line].strip())
        opening = _OPENINGS.match(text)
        first_line_end = f"{text}\n".find("\n", opening.end() if opening else 0)
        return cls(
            first_line_end=first_line_end if fresh else 0,
            last_line=last_line,
            closing_line=last_line if apart else len(text),
            last_sentence=max((match.end() for match in re.finditer(r"[。\n]|[.!?]\s", text[:end])), default=0),
        )

    def hold(self, place: Place, start: int) -> bool:
        return {
            "anywhere": True,
            "first line": start < self.first_line_end,
            "last line": start >= self.last_line,
            "closing line": start >= self.closing_line,
            "last sentence": start >= self.last_sentence,
            "nowhere": False,
        }[place]
