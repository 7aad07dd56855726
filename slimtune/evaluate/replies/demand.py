"""What a question asks for: the statement that is right, the one that is wrong, or several together. No torch."""

import re
from typing import Literal

from slimtune.evaluate.replies import reply_text
from slimtune.evaluate.replies.reply_text import one_of

Demand = Literal["right", "wrong", "several", ""]
"""Which of its choices a question wants. several: a number or a combination of statements, so that a verdict on one of
them answers nothing. "": it does not say."""

_SENTENCE = re.compile(r"[^。.?!\n]+[。.?!]?")
_ASKS = re.compile(one_of("どれ どちら いずれか 何か [はを]$ は[。?]$"))
_REQUESTS = re.compile(one_of("選[びんべ] 選択し 答え 回答し 解答し 挙げ 指摘 示[しせ]"))
# What statements are called. 「正しい選択肢」 and "the correct answer" may be said of any question.
_THING = one_of("もの 記述 説明 内容 文章 文(?!字) 発言 見解 解釈 の(?=は)")
_WRONG = re.compile(
    one_of(
        "誤って[いる]{1,2} 誤った 間違って[いる]{1,2} 間違った 正しくない 不(?:適切|適当|正確)な (?:誤|間違)り?い?の(?:ある)?(?!で)",
        "(?:適切|適当|妥当|正確)で(?:は)?ない (?:適切|適当|妥当|正確|正しい)とは?(?:言|い)えない",
        "(?:合致|一致|適合)し(?:てい)?ない",
    )
    + f"(?:{_THING}|選択肢|肢)|(?:誤り|間違い)(?:は|である|を含む)"
)
_RIGHT = re.compile(f"(?<!不)(?:正しい|適切な|適当な|妥当な|正確な|(?:合致|一致|適合)(?:する|している)){_THING}")
_COMBINED = re.compile(one_of("いくつ 何個 幾つ 個数 組み?合わ?せ すべて(?:選|挙) 全て(?:選|挙)"))

_ASKS_EN = re.compile(r"\b(?:which|what|except)\b", re.IGNORECASE)
_REQUESTS_EN = re.compile(r"\b(?:identify|select|choose|pick|find|mark|indicate)\b", re.IGNORECASE)
_TRUE = one_of("correct true right accurate appropriate valid proper supported consistent")
_WRONG_EN = re.compile(
    rf"""\b(?:incorrect|false|wrong|untrue|inaccurate|inappropriate|improper|invalid|inconsistent|unsupported
        |(?:least[ ]{_TRUE}))\b
      | (?:\bnot|n't|\bnever)[ ](?:[a-z]+[ ]){{0,2}}{_TRUE}\b""",
    re.VERBOSE | re.IGNORECASE,
)
_RIGHT_EN = re.compile(
    rf"\b(?:is|are|be|was|were|the)[ ](?:most[ ]|best[ ])?{_TRUE}\b(?![ ](?:answer|letter|option|choice|response|one\b))",
    re.IGNORECASE,
)
_EXCEPT = re.compile(r"\bexcept\b", re.IGNORECASE)
_COMBINED_EN = re.compile(
    r"\bhow[ ]many\b[^\n]{0,40}\bstatements?\b|\b(?:combination|pair|set)s?[ ]of[ ][^\n]{0,30}statements", re.IGNORECASE
)
_MOST = 6_000
"""Characters at the end of a prompt that are searched: the question stands there, behind any excerpt."""


def demand(question: str) -> Demand:
    """What the text of a question, or its whole prompt, asks for; "" where it says nothing, or both.

    A question (「どれか」, "which") counts more than a request (「選べ」, "choose"), which may belong to any question.
    """
    asked, requested = set[Demand](), set[Demand]()
    for sentence in _SENTENCE.findall(reply_text.fold(question[-_MOST:])):
        said = _said(sentence)
        if "several" in said:
            return "several"
        if _ASKS.search(sentence) or _ASKS_EN.search(sentence):
            asked |= said
        elif _REQUESTS.search(sentence) or _REQUESTS_EN.search(sentence):
            requested |= said
    found = asked or requested
    return found.pop() if len(found) == 1 else ""


def _said(sentence: str) -> set[Demand]:
    found = set[Demand]()
    wrong = _WRONG.search(sentence) or _WRONG_EN.search(sentence)
    right = _RIGHT.search(sentence) or (None if wrong else _RIGHT_EN.search(sentence))
    if right and _EXCEPT.search(sentence):
        wrong, right = right, None
    if _COMBINED_EN.search(sentence) or ((wrong or right) and _COMBINED.search(sentence)):
        return {"several"}
    if wrong:
        found.add("wrong")
    if right:
        found.add("right")
    return found
