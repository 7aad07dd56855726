"""Whether a passage of a corpus is the context that a question was written from, however either is headed.

A corpus and a question file are rarely written alike: one has 「民法 第5条」 as a title, the other 「民法」 and
「第五条（…）」 as lines of the text. Headings are therefore left out of the comparison, and compared by what they name: the
number of an article and the name of a law must not differ. The text below them must be the same, but for white space,
character width, case, kinds of brackets, and numbers of articles in kanji or digits.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from slimtune.data.text import normalised

# What is shorter, such as 「削除」, is in a longer text by chance.
_LEAST_WITHIN = 4
_DIGITS = dict(zip("〇一二三四五六七八九", range(10), strict=True))
_UNITS = {"十": 10, "百": 100, "千": 1000}
_KANJI = f"[{''.join(_DIGITS)}{''.join(_UNITS)}]+"
_PLACE = re.compile(
    rf"第\s*(?P<first>{_KANJI}|\d+)\s*(?P<kind>[条項号編章節款目])(?P<more>(?:\s*の\s*(?:{_KANJI}|\d+))*)"
)
_NUMBER = re.compile(rf"{_KANJI}|\d+")
_BRACKETS = str.maketrans({**dict.fromkeys("〔【「『〈《[{", "("), **dict.fromkeys("〕】」』〉》]}", ")")})
_MARKS = r"[\s#*>|:,.・、/_~=–—-]*"
_CAPTION = rf"(?:{_MARKS}\([^()\n]{{1,60}}\))?"
_ARTICLE = r"第(?P<ja>\d+)条(?P<ja_more>(?:の\d+)*)"
_ARTICLE_EN = r"(?:article|art\.|section|sec\.|§+)\s*(?P<en>\d+(?:[.-]\d+)*[a-z]?)"
# 「第5条の規定により」 begins a sentence: behind the number that heads a text stands a space, a bracket or nothing.
_HEADS_TEXT = r"(?:第\d+[項号](?:の\d+)*)*(?=[\s():.,|>]|$)"
_HEADING = re.compile(rf"{_CAPTION}{_MARKS}\(?(?:{_ARTICLE}|{_ARTICLE_EN}){_HEADS_TEXT}{_CAPTION}\)?{_MARKS}")
_SUBHEADING = re.compile(rf"{_MARKS}\(?第\d+[項号編章節款目](?:の\d+)*{_HEADS_TEXT}{_CAPTION}\)?{_MARKS}")
_NAME = re.compile(
    r"[^\s()。、]*(?:法|法律|憲法|令|規則|規程|規約|条例|約款|基準)"
    r"|(?:[a-z'&,]+ )*(?:act|code|law|rules|regulations?|constitution|treaty)(?: of \d{4})?"
)
_ITEM = re.compile(rf"(?:\(?(?:\d{{1,3}}|[ア-ンイロハa-z])\)|\d{{1,3}}[.、)]|\d{{1,3}}(?=\s)|{_KANJI}(?=[\s、.]))\s*")


@dataclass(frozen=True, slots=True)
class _Text:
    """whole, headed: the key of all of a text, without and with its title. lines: the keys of those that are no headings.

    articles, names: what the headings name.
    """

    whole: str
    headed: str
    lines: tuple[str, ...]
    articles: frozenset[str]
    names: frozenset[str]

    @property
    def body(self) -> str:
        return "".join(self.lines)

    def holds(self, other: "_Text") -> bool:
        """Whether every line of the other is in this one."""
        body = self.body
        return bool(other.lines) and all(line in body or line in self.whole for line in other.lines)

    def is_headed_otherwise(self, other: "_Text") -> bool:
        """Whether both name an article, or a law, and not the same one."""
        apart = bool(self.articles and other.articles) and not self.articles & other.articles
        names = self.names and other.names
        return apart or bool(names and not any(one in two or two in one for one in self.names for two in other.names))


def key(text: str) -> str:
    """Equal for texts that differ in white space, width, case, kinds of brackets, and how 第1条 is written, only."""
    return "".join(_folded(text).split())


def matcher() -> Callable[[str, str, str], bool]:
    """A function of a passage's title and text and a question's context: whether the passage shows it or is part of it.

    It keeps what it has read of each text.
    """
    read = functools.cache(_read)

    def is_gold(title: str, text: str, context: str) -> bool:
        wanted = read("", context)
        if not wanted.whole:
            return False
        shown = read(title, text)
        if wanted.whole in shown.whole or wanted.whole in shown.headed:
            return True
        if wanted.is_headed_otherwise(shown):
            return False
        if shown.holds(wanted):
            return True
        return len(shown.body) >= _LEAST_WITHIN and (shown.whole in wanted.whole or wanted.holds(shown))

    return is_gold


def _folded(text: str) -> str:
    return _PLACE.sub(_in_digits, normalised(text, "NFKC").casefold().translate(_BRACKETS))


def _in_digits(place: re.Match[str]) -> str:
    more = "".join(f"の{_value(number)}" for number in _NUMBER.findall(place["more"]))
    return f"第{_value(place['first'])}{place['kind']}{more}"


def _value(number: str) -> str:
    """A whole number in digits: 二十一 and 二一 are 21."""
    if number.isdecimal():
        return number.lstrip("0") or "0"
    if not any(character in _UNITS for character in number):
        return "".join(str(_DIGITS[character]) for character in number)
    total, digit = 0, 1
    for character in number:
        if character in _DIGITS:
            digit = _DIGITS[character]
        else:
            total, digit = total + digit * _UNITS[character], 1
    return str(total + digit if number[-1] in _DIGITS else total)


def _read(title: str, text: str) -> _Text:
    folded, heading = _folded(text), _folded(title)
    articles: set[str] = set()
    names: set[str] = set()
    _without_heads(heading, (), articles, names)
    pieces = tuple(sorted({heading, *re.split(r"[\s>|/:]+", heading)} - {""}, key=len, reverse=True))
    lines = []
    for line in folded.split("\n"):
        rest = _without_heads(line, pieces, articles, names)
        if rest and not line.lstrip().startswith("#"):
            lines.append("".join(rest.split()))
    whole = "".join(folded.split())
    headed = f"{''.join(heading.split())}{whole}"
    return _Text(whole, headed, tuple(filter(None, lines)), frozenset(articles), frozenset(names))


def _without_heads(line: str, pieces: tuple[str, ...], articles: set[str], names: set[str]) -> str:
    """A line behind its headings and its number; what the headings name is added to `articles` and `names`.

    pieces: further headings, the longest first.
    """
    rest = line.strip()
    while rest:
        before = rest
        rest = re.sub(rf"\A{_MARKS}", "", rest)
        if found := _HEADING.match(rest):
            articles.add(f"{found['ja']}{found['ja_more']}" if found["ja"] else found["en"])
            rest = rest[found.end() :]
        elif found := _SUBHEADING.match(rest):
            rest = rest[found.end() :]
        else:
            rest = _without_name(rest, pieces, names)
        if rest == before:
            break
    if re.fullmatch(r"\([^()]{1,60}\)", rest) and "。" not in rest:
        return ""
    return _ITEM.sub("", rest, count=1) if _ITEM.match(rest) else rest


def _without_name(line: str, pieces: tuple[str, ...], names: set[str]) -> str:
    """A line behind the name of a law, or a piece of the title, that stands alone or before the number of an article."""
    opened = line.removeprefix("(")
    for name in (found[0] if (found := _NAME.match(opened)) else "", *pieces):
        if not name or not opened.startswith(name):
            continue
        rest = opened[len(name) :]
        alone = re.fullmatch(rf"{_CAPTION}\)?{_MARKS}", rest)
        if alone or _HEADING.match(rest) or (name in pieces and rest[:1] in (" ", "\u3000", ":", ">", "|", ")")):
            if _NAME.fullmatch(name):
                names.add("".join(name.split()))
            return "" if alone else rest.removeprefix(")")
    return line
