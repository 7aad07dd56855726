"""What a reply says of each choice: right, wrong, or nothing; and the answer that follows from all of it. No torch.

"a: 誤り。b: 正しい。…", "✗ a / ✓ b", a table, a paragraph for each choice: a choice's verdict stands directly behind its
label, or is the only one said until the next choice begins. A verdict on something else (「正しい届出先」), a supposition
(「正しいとすれば」) and one that another label stands before say nothing.
"""

import re
from dataclasses import dataclass, field

from slimtune.evaluate.replies.answer_marks import (
    ANY,
    DIGITS,
    LETTERS,
    LISTING,
    NO,
    ONE,
    REJECTED,
    SYMBOL,
    UNTICKED,
    YES,
    positions,
)
from slimtune.evaluate.replies.answer_rules import FAULTY, FLAGS, MOST, PART, PARTLY, SUPPOSED, THEREFORE
from slimtune.evaluate.replies.demand import Demand
from slimtune.evaluate.replies.reply_text import one_of

# Words of judgement ---------------------------------------------------------------------------------------------------

_MARKS = "\ue000-\ue0ff"
# 正しい記述です, 誤りである, 妥当でないため: the clause ends with the verdict, or gives its reason.
_JA_END = (
    r"(?:(?:[なの]|である)?(?:記述|内容|選択肢|肢|説明|文))?(?=[ )']*(?:"
    + one_of(
        "です であ でし でござ で[、,] だ(?!と) だと(?:判断|考え|思) と(?:な[るり]|い[えう]|言[えう]|判断|考え|思(?!われが)|評価)",
        r"(?:の|な)?(?:ため|ので) から(?!は) し[、,] $",
    )
    + rf"|[。.、,;:|/!\n]|{SYMBOL}|[ ]|[{_MARKS}]))"
    + SUPPOSED
)
_VERB = "(?:[すし](?:る|た|ます|ている|ています|ており)?|り|る|ります|って(?:いる|います|おり)|った|い|く|かった)?"
_JA_NOT = rf"[^。\n、,(){_MARKS}]{{0,6}}?(?:な[いくか]|なし|ありません|ません|がたい|難い)"
# What may be said of an answer, whatever the question wants.
_JA_CHOSEN = "(?:正解|正答|該当|当てはま|あてはま)"
_JA_RIGHT = rf"(?<![不未])(?:正し(?=[いく])|正確|適切|適当|妥当|合致|一致|適合|条文(?:どおり|通り)|{_JA_CHOSEN})"
_JA_WRONG = "(?:誤(?=[りっ])|誤答|間違(?=[いっ])(?!いな[くい])|不(?:正解|適切|適当|正確|一致|合致|適)|に反(?=[すし])|違反|と矛盾|と異な)"
_JA_SHORT = rf"(?=[ ]*(?:$|[。.、,;:|/!\n()]|{SYMBOL}|[ ]|[{_MARKS}]))"
_TICK, _CROSS = "[○◯〇◎⭕✓✔☑✅]", "[×✕✖✗✘❌]"
_ALONE = r"(?<![\w○◯〇×])(?:{})(?![\w○◯〇×])"
_EN_END = (
    r"(?=[ )']*(?:[.,;:!(|/\n→-]|$|"
    + one_of("because since as and but while whereas according under by per for due given in")
    + rf"\b|[^\x00-\x7f]|[ ][(]|[ ]{ONE}[ ]))"
)
_EN_STATED = "(?:[ ](?:statement|description))?"
_EN_RIGHT = rf"(?:correct|right|true|accurate|valid|appropriate|proper){_EN_STATED}{_EN_END}"
_EN_WRONG = rf"(?:incorrect|wrong|false|untrue|inaccurate|invalid|inappropriate|improper|unsupported|inconsistent){_EN_STATED}{_EN_END}"
_EN_FITS = rf"(?:(?:match(?:es)?|fits?)|supported[ ]by|consistent[ ]with)\b(?![^.\n]{{0,12}}{ANY})(?![^.\n]{{0,120}}\b{PARTLY}\b)"
_EN_CLASHES = rf"(?:contradict(?:s|ed)?|conflicts?[ ]with|violates?)\b(?![^.\n]{{0,12}}{ANY})"
_YES_EN, _NO_EN = (rf"\b{word}(?=[ ]*(?:[.,;:!|\n]|$))" for word in ("yes", "no"))
_EN_NOT = r"(?:\b(?:not|never|nor|cannot|hardly|neither)|n't)[ ](?:[a-z]+[ ]){0,2}"
_EN_HEDGED = (
    rf"\b{one_of('partially partly half somewhat mostly almost if whether would_be might_be could_be may_be seems')}[ ]"
    rf"(?:[a-z]+[ ]){{0,2}}(?:{_EN_RIGHT}|{_EN_WRONG}|{_EN_FITS}|{_EN_CLASHES})"
)
_REST = (
    r"(?:その他|それ以外|残り|他|ほか)(?:の(?:選択肢|記述|肢|もの))?(?=[はもが])"
    r"|\b(?:the[ ]|all[ ]){0,2}(?:others|other[ ](?:options|choices|statements)|rest)\b"
)
_TOKEN = re.compile(
    rf"""(?P<sign>[{YES}{NO}])[ ('"]*(?P<signed>{ANY}) | (?P<label>{ANY}) | (?P<rest>{_REST})
      | (?P<nothing>{_EN_HEDGED})
      | (?P<right>{_JA_WRONG}{_JA_NOT}(?<!え[なま]い)(?<!えません)(?<!限らない){_JA_END}
          | {_EN_NOT}(?:{_EN_WRONG}|{_EN_CLASHES}))
      | (?P<wrong>{_JA_RIGHT}{_JA_NOT}(?<!限らない){_JA_END} | {_EN_NOT}(?:{_EN_RIGHT}|{_EN_FITS})
          | {_JA_WRONG}{_VERB}{_JA_END} | \b(?:{_EN_WRONG}|{_EN_CLASHES}) | {_ALONE.format(_CROSS)} | {NO} | {_NO_EN}
          | (?<![一-鿿])誤{_JA_SHORT})
      | (?P<is_right>{_JA_RIGHT}{_VERB}{_JA_END} | \b(?:{_EN_RIGHT}|{_EN_FITS}) | {_ALONE.format(_TICK)} | {YES} | {_YES_EN}
          | (?<![一-鿿])正{_JA_SHORT})
      | (?P<end>[。\n;]|[.!?](?=\s|$))""",
    FLAGS,
)
_MARKED = re.compile(f"{_TICK}|正解|正答")
_OF_AN_ANSWER, _FAULTY = re.compile(f"不?{_JA_CHOSEN}|(?:yes|no)$", re.IGNORECASE), re.compile(FAULTY)
# What may stand before a choice that a verdict follows, from the end of the sentence or verdict before.
_BEFORE = re.compile(
    rf"(?:[^\w]|{THEREFORE}|"
    + one_of(
        "また 一方 他方 次に さらに そして ただし なお 同様に まず 最後に 選択肢 肢 記述 について",
        "and but while whereas finally also only the first second third fourth next similarly however statement option choice",
    )
    + ")*",
    FLAGS,
)
# Between a label and the verdict that is surely its own.
_DIRECTLY = re.compile(
    rf"(?:{PART}|)[ )':.、,|=→(>-]*(?:の?(?:記述|内容|選択肢)?[はもが]|こそが?|は、?すべて|is|are|was|were|(?:looks|must)[ ]be)?"
    rf"[、, :]*{MOST}(?:[ ]*{one_of('also both all clearly simply therefore thus the a an completely entirely 判定 どちらも いずれも すべて 全て 条文')})*"
    r"[にと]?[ :(]*",
    FLAGS,
)


@dataclass(slots=True)
class _Segment:
    """From a choice's label to the next one. sure: its verdict stands directly behind the label; else all that is `said`."""

    labels: tuple[int, ...]
    start: int
    end: int
    sure: bool | None = None
    said: set[bool] = field(default_factory=set)
    unsure: bool = False
    is_the_one: bool = False
    is_marked: bool = False

    def verdict(self, *, digits: bool) -> bool | None:
        if self.sure is not None or digits or self.unsure or len(self.said) != 1:
            return self.sure
        return next(iter(self.said))


@dataclass(frozen=True, slots=True)
class Verdicts:
    """each: what is said of every choice that is judged. at: the verdict of each label, by the offset of its mark.

    closing: the choices of the last segment that has a verdict, if no label is named behind it. is_the_one: some choice is
    called wrong with が, as the one that is. marked: in a list of all choices, the only one of which anything is said, by ✓.
    """

    each: dict[int, set[bool]]
    at: dict[int, bool]
    closing: tuple[int, ...]
    is_the_one: bool
    marked: int | None

    def called(self, verdict: bool) -> tuple[int, ...]:
        """The choices of which this and nothing else is said, in order."""
        return tuple(sorted(index for index, said in self.each.items() if said == {verdict}))


def verdicts(marked: str, count: int, demand: Demand) -> Verdicts:
    """What a marked reply says of its choices, to a question that asks for `demand`."""
    segments = _segments(marked, demand)
    digits = not re.search(f"[{LETTERS}]", marked)
    each: dict[int, set[bool]] = {}
    at: dict[int, bool] = {}
    rest: set[bool] = set()
    closing: tuple[int, ...] = ()
    for segment in segments:
        verdict = segment.verdict(digits=digits)
        closing = segment.labels if verdict is not None else ()
        if verdict is None or -1 in segment.labels:
            continue
        at[segment.start] = verdict
        if not segment.labels:
            rest.add(verdict)
        for index in segment.labels:
            each.setdefault(index, set()).add(verdict)
    if each and len(rest) == 1:
        each |= {index: set(rest) for index in range(count) if index not in each}
    listed = [segment.labels for segment in segments] == [(index,) for index in range(count)]
    alone = next(iter(each)) if listed and len(each) == 1 else None
    marked_alone = (
        alone is not None
        and segments[alone].is_marked
        and not any(one.said for one in segments if one.labels != (alone,))
    )
    return Verdicts(each, at, closing, any(segment.is_the_one for segment in segments), alone if marked_alone else None)


def _segments(text: str, demand: Demand) -> list[_Segment]:
    has_letters = bool(re.search(f"[{LETTERS}]", text))
    segments: list[_Segment] = []
    current: _Segment | None = None
    start, foreign = 0, False  # where the clause began; whether it names a choice that is not its subject
    for token in _TOKEN.finditer(text):
        kind = str(token.lastgroup)
        if kind == "end":
            start, foreign = token.end(), False
        elif kind in ("label", "signed", "rest"):
            if has_letters and kind == "label" and re.fullmatch(f"[{DIGITS}]", token[0]):
                continue
            if not (kind == "signed" or _BEFORE.fullmatch(text, start, token.start())):
                foreign = True
                continue
            labels = () if kind == "rest" else tuple(positions(token[kind]))
            current = _Segment(labels, token.start(kind), token.end())
            segments.append(current)
            if kind == "signed":
                current.sure = token["sign"] == YES
            start = token.end()
        elif kind == "nothing" or current is None or (demand == "wrong" and _OF_AN_ANSWER.match(token[0])):
            continue
        else:
            _say(current, text, token, kind != "wrong", foreign=foreign)
            start = token.end()
    return segments


def _say(segment: _Segment, text: str, token: re.Match[str], verdict: bool, *, foreign: bool) -> None:
    """Adds a verdict that stands in a segment."""
    if segment.sure is not None:
        return
    segment.is_marked = verdict and bool(_MARKED.fullmatch(token[0]))
    between = text[segment.end : token.start()]
    is_reply = token[0].lower() in ("yes", "no")
    if len(between) <= 40 and _DIRECTLY.fullmatch(between):
        segment.sure = verdict
        segment.is_the_one = between.rstrip(" 、").endswith("が") and bool(_FAULTY.match(token[0]))
    elif foreign:
        segment.unsure = True
    elif not is_reply:
        segment.said.add(verdict)


# Answers --------------------------------------------------------------------------------------------------------------


def answer(found: Verdicts, count: int, demand: Demand, *, truncated: bool) -> tuple[tuple[int, ...], str]:
    """The choices that the verdicts leave as the answer, and the rule; none, one, or several that cannot all be it.

    Where each choice is judged, it is the only one that is called what the question wants, or otherwise than all others.
    Where some are not, the only one that is called so must be the last that a whole reply names.
    """
    if demand == "several" or any(len(said) > 1 for said in found.each.values()):
        return (), ""
    if found.marked is not None and demand != "wrong" and not truncated:
        return (found.marked,), "odd one out"
    right, wrong = found.called(True), found.called(False)
    wanted = {"right": right, "wrong": wrong}.get(demand)
    if set(found.each) == set(range(count)):
        if wanted is None:
            sides = [side for side in (right, wrong) if len(side) == 1 and count > 2]
            wanted = sides[0] if len(sides) == 1 else max(right, (), key=len)
        return (wanted, "odd one out") if len(wanted) < count else ((), "")
    if wanted is None or (len(wanted) == 1 and (truncated or found.closing != wanted)):
        return (), ""
    return wanted, f"called {demand}"


def only_one_named(found: Verdicts, marked: str, demand: Demand) -> int | None:
    """The only label that is named, where it is called what the question wants, or 「cが誤り」 means it.

    A lone digit may be anything.
    """
    named = {index for mark in re.findall(ONE, marked) for index in positions(mark)}
    if len(named) != 1 or set(found.each) != named or re.search(f"[{DIGITS}{LISTING}]", marked):
        return None
    (index,) = named
    wants = {True} if demand != "wrong" else {False}
    meant = found.each[index] == wants or (not demand and found.is_the_one and found.each[index] == {False})
    return index if meant and index >= 0 and demand != "several" else None


def without_signs(marked: str) -> str:
    """The text without ✓ before labels, in which the labels are turned down that have a cross or an empty box."""
    turned_down = _TURNED_DOWN.sub(lambda match: REJECTED * len(match[0]), marked)
    return turned_down.replace(YES, " ").replace(NO, " ")


_TURNED_DOWN = re.compile(rf"[{NO}{UNTICKED}][ ('\"]{{0,6}}{ANY}")


def is_against(match: re.Match[str], demand: Demand) -> bool:
    """Whether a sentence that names an answer calls it the opposite of what the question wants."""
    if demand not in ("right", "wrong"):
        return False
    # The match may begin behind the verdict (「誤っている選択肢: c」), and end within its word.
    before = match.string[max(match.start() - 12, 0) : match.start()]
    start = match.start() - len(_CLAUSE.split(before)[-1])
    words = _CALLED.finditer(match.string, start, match.end() + 12)
    said = [word.lastgroup == "called_right" for word in words if word.start() < match.end()]
    return bool(said) and said[-1] != (demand == "right")


_CLAUSE = re.compile(r"[。\n、,;.]")
_CALLED = re.compile(
    rf"""(?P<called_wrong>{_JA_RIGHT}{_JA_NOT}|{_JA_WRONG}(?!{_JA_NOT})
        |\b(?:incorrect|wrong|false|untrue|inaccurate|invalid|inappropriate|improper|unsuitable)\b
        |{_EN_NOT}(?:correct|right|true|accurate|valid|appropriate)\b|{_CROSS})
      | (?P<called_right>(?<![不未])(?:正し(?=[いく])|正確|適切|適当|妥当|合致|一致|適合|条文(?:どおり|通り))|{_JA_WRONG}{_JA_NOT}
        |\b(?:correct|right|true|accurate|valid|appropriate|proper|suitable)\b(?![ ](?:answer|option|choice|one|response))
        |\b(?:match|fits|corresponds|aligns|agrees|supported|consistent)|[◎○◯])""",
    FLAGS,
)
