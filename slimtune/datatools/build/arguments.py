"""Reasoning from a template: what the context says, which choice goes with it, which words of the others it lacks.

Every claim can be checked: quotations stand in the context word for word, and a phrase called missing does not.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from slimtune.data.questions import Question
from slimtune.data.text import normalised
from slimtune.datatools.build.prompts import Language

_LONGEST_QUOTATION = 160
_STRETCH = 3
_SHORTEST_PHRASE = 2
_HEADING = re.compile(r"(?P<marks>#{1,6})\s+(?P<title>.+)")
_SENTENCE_ENDS = re.compile(r"。|[.!?](?=\s|$)")
_CLAUSE_ENDS = re.compile(r"、|[,;](?=\s)")
_OPENING, _CLOSING = "（(「『", "）)」』"
# A character of Japanese script, or a whole word or number of another one.
_UNIT = re.compile(r"[A-Za-zÀ-ɏ]+|\d+|\w")
# A choice that ends on a place of a law: 「金融商品取引法第2条第1項第5号」.
_CITATION = re.compile(r"第[\d一二三四五六七八九十百]+[条項号](?:の\d+)*[イロハニホヘト]?$")
# Kana before the first word of a phrase are the end of the word that it was cut from.
_REST_OF_A_WORD = re.compile(r"^[\u3041-\u309f、。・]+(?=[^\u3041-\u309f、。・])")
# 「誤っているものはどれか」: what is asked for is the choice that does not go with the text. 「…なければならないもの」 is not.
_ASKED_PART = re.compile(
    r"(?:誤って(?:い)?る|誤りで(?:ある|す)?|誤りの(?:ある)?|正しく(?:ない|ありません)|適切(?:では?|な)?ない|不適切な|妥当では?ない"
    r"|該当しない|当たらない|含まれない|必要のない|無関係の|異なる|(?<!ければ)(?<!ては)(?<!では)ならない)"
    r"(?:とされ(?:て(?:い)?)?る)?(?:の|もの|こと|事項|場合|者|条文|選択肢|記述|行為|説明|内容|は)"
    r"|誤りは(?:どれ|何)"
)
_NEGATIVE_ENGLISH = re.compile(
    r"\b(?:not|except|incorrect|false|wrong|untrue|least|never|inapplicable)\b|n't\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Words:
    """The sentences of a template in one language."""

    text: str
    says: str
    supports: str
    lacks: str
    in_text: str
    contradicts: str
    contradicts_with: str
    goes_with: str
    therefore: str
    between: str
    quotation_marks: tuple[str, str]


_WORDS: Mapping[Language, _Words] = {
    "ja": _Words(
        text="参照した文",
        says="{heading}は「{quotation}」としている。",
        supports="選択肢{label}はこれに沿う。",
        lacks="選択肢{label}の「{phrase}」は参照した文にない。",
        in_text="選択肢{label}の語は文にあるが、問われているものではない。",
        contradicts="選択肢{label}はこれに沿わない。",
        contradicts_with="選択肢{label}はこれに沿わない。「{phrase}」は参照した文にない。",
        goes_with="選択肢{label}については「{quotation}」とある。",
        therefore="したがって、答えは{label}である。",
        between="",
        quotation_marks=("「", "」"),
    ),
    "en": _Words(
        text="The text",
        says='{heading} says: "{quotation}"',
        supports="Choice {label} agrees with this.",
        lacks='The words "{phrase}" of choice {label} are not in the text.',
        in_text="The words of choice {label} are in the text, but they are not what is asked for.",
        contradicts="Choice {label} does not agree with this.",
        contradicts_with='Choice {label} does not agree with this: the words "{phrase}" are not in the text.',
        goes_with='On choice {label} the text says: "{quotation}"',
        therefore="So the answer is {label}.",
        between=" ",
        quotation_marks=('"', '"'),
    ),
}


class _Sentence(NamedTuple):
    heading: str
    text: str


def argue(question: Question, language: Language) -> str:
    """The argument for the right choice, a sentence or two a line. Empty where the question has no context."""
    sentences = list(_sentences(question.context))
    if not sentences:
        return ""
    words, negative = _WORDS[language], asks_for_the_wrong_one(question.question, language)
    right = question.choices[question.correct]
    heading, quotation = _nearest(sentences, right)
    named = heading or f"{question.source} {question.article}".strip() or words.text
    lines = [words.says.format(heading=named, quotation=_inside(quotation, words))]
    if negative:
        phrase = _missing_phrase(right, question.context)
        form = words.contradicts_with if phrase else words.contradicts
        lines.append(form.format(label=question.correct, phrase=_inside(phrase, words)))
    else:
        lines.append(words.supports.format(label=question.correct))
    others = [label for label in question.choices if label != question.correct]
    lines.append(words.between.join(_on_other(question, label, sentences, words, negative) for label in others))
    lines.append(words.therefore.format(label=question.correct))
    return "\n".join(lines)


def asks_for_the_wrong_one(text: str, language: Language) -> bool:
    """Whether a question asks for the choice that the text does not bear out (「誤っているものはどれか」, "EXCEPT")."""
    return bool((_NEGATIVE_ENGLISH if language == "en" else _ASKED_PART).search(text))


def _on_other(question: Question, label: str, sentences: Sequence[_Sentence], words: _Words, negative: bool) -> str:
    choice = question.choices[label]
    cited = _CITATION.search(_folded(choice)) is not None
    if negative or cited:
        return words.goes_with.format(label=label, quotation=_inside(_nearest(sentences, choice)[1], words))
    phrase = _missing_phrase(choice, question.context)
    form = words.lacks if phrase else words.in_text
    return form.format(label=label, phrase=_inside(phrase, words))


def _sentences(context: str) -> Iterator[_Sentence]:
    """The sentences below their Markdown headings, which become one trail: "民法 第5条 第2項"."""
    trail: list[tuple[int, str]] = []
    for line in context.split("\n"):
        heading = _HEADING.fullmatch(line.strip())
        if heading:
            level = len(heading["marks"])
            trail = [above for above in trail if above[0] < level] + [(level, heading["title"].strip())]
            continue
        for sentence in _parts(line, _SENTENCE_ENDS):
            if sentence.strip():
                yield _Sentence(" ".join(title for _, title in trail), sentence.strip())


def _nearest(sentences: Sequence[_Sentence], choice: str) -> tuple[str, str]:
    """Heading and text of the sentence that shares most pairs of units with a choice (cosine); a long one is cut.

    A choice that only cites a place of a law is compared with the headings instead.
    """
    wanted = _pairs(choice)
    cited = _CITATION.search(_folded(choice)) is not None

    def nearness(sentence: _Sentence) -> float:
        pairs = _pairs(sentence.heading if cited else sentence.text)
        return len(pairs & wanted) / max(len(pairs), 1) ** 0.5

    best = max(sentences, key=nearness)
    return best.heading, _excerpt(best.text, wanted)


def _excerpt(sentence: str, wanted: set[tuple[str, ...]]) -> str:
    """The sentence, or the clauses of it in a row that share most with what is wanted and are short enough."""
    if len(sentence) <= _LONGEST_QUOTATION:
        return sentence
    clauses = _parts(sentence, _CLAUSE_ENDS)
    windows: list[tuple[int, int, str]] = []
    for start in range(len(clauses)):
        for end in range(start + 1, len(clauses) + 1):
            text = "".join(clauses[start:end])
            if len(text) > _LONGEST_QUOTATION and end > start + 1:
                break
            windows.append((start, end, text))
    start, end, text = max(windows, key=lambda window: len(_pairs(window[2]) & wanted))
    best = _cut(text)
    before = "…" if start else ""
    after = "" if end == len(clauses) and sentence.endswith(best) else "…"
    return f"{before}{best.strip()}{after}"


def _parts(text: str, ends: re.Pattern[str]) -> list[str]:
    """The text cut behind each end that stands in no brackets."""
    parts: list[str] = []
    start = depth = seen = 0
    for match in ends.finditer(text):
        between = text[seen : match.start()]
        depth += sum(between.count(mark) for mark in _OPENING) - sum(between.count(mark) for mark in _CLOSING)
        seen = match.end()
        if depth <= 0:
            parts.append(text[start:seen])
            start, depth = seen, 0
    return [*parts, text[start:]] if start < len(text) else parts


def _cut(text: str) -> str:
    """The beginning of a text that is too long, up to where brackets are closed."""
    if len(text) <= _LONGEST_QUOTATION:
        return text
    depth, whole = 0, 0
    for place, character in enumerate(text[:_LONGEST_QUOTATION]):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth <= 0:
            whole = place + 1
    return text[:whole] or text[:_LONGEST_QUOTATION]


def _missing_phrase(choice: str, context: str) -> str:
    """The longest part of a choice that the context does not share with it and does not contain, or "".

    Shared is what belongs to `_STRETCH` units in a row that the context has too.
    """
    units = list(_UNIT.finditer(choice))
    known = set(_stretches(_UNIT.findall(context)))
    shared = [False] * len(units)
    for start, stretch in enumerate(_stretches([unit[0] for unit in units])):
        if stretch in known:
            shared[start : start + _STRETCH] = [True] * _STRETCH
    runs = itertools.groupby(range(len(units)), key=shared.__getitem__)
    for places in sorted((list(run) for is_shared, run in runs if not is_shared), key=len, reverse=True):
        first, last = places[0], places[-1]
        phrase = choice[units[first].start() : units[last].end()]
        # A short phrase may stand elsewhere in the context: then with its neighbours, with which it does not.
        wider = choice[units[max(first - 1, 0)].start() : units[min(last + 1, len(units) - 1)].end()]
        for candidate in (_REST_OF_A_WORD.sub("", phrase), phrase, wider):
            if len(candidate) >= _SHORTEST_PHRASE and candidate not in context:
                return candidate
    return ""


def _stretches(units: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(units[start : start + _STRETCH]) for start in range(len(units) - _STRETCH + 1)]


def _pairs(text: str) -> set[tuple[str, ...]]:
    units = _UNIT.findall(_folded(text).casefold())
    return set(itertools.pairwise(units))


def _folded(text: str) -> str:
    return normalised(text, "NFKC").strip()


def _inside(text: str, words: _Words) -> str:
    """Quotation marks within a quotation, as each language writes them."""
    opening, closing = words.quotation_marks
    if opening == closing:
        return text.replace('"', "'")
    return text.replace(opening, "『").replace(closing, "』")
