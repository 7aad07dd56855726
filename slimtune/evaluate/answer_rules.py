"""The rules that find where a marked reply (`answer_marks`) commits itself to a label. No torch.

Each rule is one regular expression whose group `answer` is a mark or a group of marks. What has to stand behind the
label is part of it, so that 「正解はA社」, 「答えはaのように」 or "So A, the seller, may …" say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from slimtune.evaluate.answer_marks import (
    ANY,
    BOXED,
    DIGITS,
    LETTERS,
    LISTING,
    ONE,
    OPEN,
    REJECTED,
    SYMBOL,
    positions,
)
from slimtune.evaluate.items import Mode

Place = Literal["anywhere", "first line", "last line", "last sentence", "nowhere"]


@dataclass(frozen=True, slots=True)
class Rule:
    """name: as `extract` documents it. direct, cot: where it must stand to count in that mode.

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


# What may stand behind a label ----------------------------------------------------------------------------------------

# cです, cとなる, cだと思う, but not 「cであるとすると」, 「cだとしても」.
_IS = r"""(?:で(?:す|あ(?:る(?!なら|とす|場合|と仮|かのよ)|り|ろ|った)|し[たょ]|ござ|は?(?:ない|あるまい)(?:か|で|だ|の)|はなかろう|[、,])
    |だ(?!と(?:す|し|仮|は限))|と(?:な[るりっ]|考え(?!られがち)|思(?!われがち)|判断|結論|言え|いえ|いう(?:こと|結論|答)|しま|する(?![とな])|推|解|見)
    |に(?:な[りる]|決)|か(?:と[思考]|な|も|[?。]|[ ]*$)|の(?:よう(?:です|だ|に思)|はず|\(|み|方|ほう)|のみ|だけ|でしょ|だろ|っぽい|一択
    |[よねな][。!\n]|じゃない(?:か|で))"""
_COPULA = rf"(?:{_IS}|と(?:答え|回答|解答)|が(?:正|適|最|答|妥|該|当|あて|合|ふさ|選)|を(?:選|正解|回答|解答))"
_NO_FORM = r"(?![ )']*(?:の(?:形|よう(?!です|だ|に思)|ごと|書式)|という(?:形|よう)|など|といった|の[ ]*ような))"
_PARTICLE = r"[はがもにをへのとやでか]"
# Behind "回答: c": nearly anything but a particle that makes the label the subject of something else.
_LOOSE = rf"{_NO_FORM}(?=[ ]*(?:{_COPULA}|$|{SYMBOL})|[ ]+(?!{_PARTICLE})\S|[{BOXED}])"
# Behind "the answer is c": the clause ends.
_CLAUSE_END = rf"""(?=[ )]*(?:$|[.。,;:!?(→-]|(?:because|since|as|for|which|that|and|with|given|based|due|according|under|by|so)\b|[ ](?-i:[A-Z\d])
    |[^\x00-\x7f{LETTERS}{DIGITS}]))"""
_CLOSED = rf"{_NO_FORM}(?=[ )']*(?:{_COPULA}|[。.!?]|$))"
_END_EN = r"(?=[ )']*(?:[.!。]|$))"

# What may stand around it ---------------------------------------------------------------------------------------------

_ANSWER = rf"(?P<answer>{ANY})"
_HEDGE = r"""(?:おそらく|恐らく|たぶん|多分|きっと|もちろん|明らかに|やはり|当然|ずばり|次の(?:通り|とおり)|以下の(?:通り|とおり)|therefore|thus|then|clearly
    |obviously|probably|likely|most|definitely|indeed|simply|also|certainly|either|the|option|choice|letter|answer|it|is|be)"""
_FILLER = rf"(?:[ 、,:(]|{_HEDGE}){{0,8}}"
_LINK = rf"(?:[ \n:=→()|、,.・\-'{LISTING}]|は|が|とは|として(?:は)?|的に|の|是|为|為|{_HEDGE}){{0,16}}"
_NOTE = rf"(?:[ ]*\([^()\n]{{0,40}}\)|[ ]*{LISTING})?"
_UNMARKED = rf"[^。\n{LETTERS}{DIGITS}{OPEN}{LISTING}]"
_UNMARKED_CLAUSE = rf"[^。\n()はが{LETTERS}{DIGITS}{OPEN}{LISTING}]"
_UNMARKED_EN = rf"[^.\n:;{LETTERS}{DIGITS}{OPEN}{LISTING}]"
_PART = r"(?:の(?:選択肢|記述|肢|内容|方|ほう|説明|\([^()\n]{0,80}\)))?"

_MARKER = r"""(?<![不未誤])(?:(?:最終|最後)(?:的な?|の)?[ ]*)?(?:回答|解答|答え|こたえ|答案|答|正解|正答|正确答案|結論|结论)
    (?:の)?(?:選択肢|記号|番号|肢|文字|ラベル|欄)?"""
_MARKER_EN = r"""(?<![A-Za-z])(?:answers?|ans|solution|(?:correct|right|best|final|chosen|selected)[ ](?:answer|option|choice|letter|statement|alternative|one|response
    |selection))(?![A-Za-z])(?:[ ](?:letter|choice|option|key|number|label))?"""
_FIELD = r"""(?<![A-Za-z])(?:letter|final|選択(?:肢)?|記号|番号|判定|判断|予測|予想|出力|結果|解|option|choice|selection|selected|response|prediction|predicted|label|output
    |result|conclusion|verdict|decision|pick|solution)"""
_WANTED = r"""(?:正し|誤[っり]|間違|適切|不適切|妥当|適当|該当|当ては|あては|合致|一致|ふさわし|適合|正確|矛盾|反す|選ぶべき|選択すべき|最も近い|違反|正解でない)"""
_RIGHT = r"""(?:正し(?:い|く)(?!な|は|も)|正解|正答|正確|答え|回答|解答|適切|適当|妥当|該当|当てはま|あてはま|合致|一致|適合|ふさわし|最適|条文(?:どおり|通り)|[◎○◯]
    |選択(?:すべき|される)|選ばれ)(?![^。\n]{0,4}(?:な[いくか]|ません|ず))"""
_FAULTY = "(?:誤|間違|不適)"
_WRONG = rf"(?:{_FAULTY}|正しくない|適切では?ない|妥当では?ない|該当しない|違反|[×✗✕❌])"
_SUPPOSED = r"""(?![^。\n]{0,3}(?:よう|と(?:もい|も言|すれ|する(?!の)|した|仮定|は限|は言|考えられがち|思われがち|誤解|いう(?!こと|結論))|なら|場合|とき|か(?:どうか|否か|、)
    |かもしれ|とされ|と主張|と述べ|が、))"""
_WANTED_EN = r"""(?:correct|incorrect|right|wrong|best|true|false|inaccurate|accurate|appropriate|inappropriate|invalid|valid|suitable|unsuitable|improper|proper|closest|odd)
    (?:[ ](?:answer|option|choice|statement|one|alternative|letter|selection|description|response|item|description))?"""
_THEREFORE = r"""(?:よって|したがって|従って|ゆえに|故に|それゆえ|∴|以上(?:より|から|により|のことから|の(?:こと|理由|点|検討)(?:から|より|により)|を踏まえ(?:ると|て)?|によれば)?
    |このことから|これらから|これより|そのため|そこで|だから|つまり|すなわち|結局|結論として|\b(?:therefore|thus|hence|consequently|accordingly|in[ ]conclusion|so)\b
    |消去法(?:で|により|から|的に)|(?:選ぶ|挙げる|言う|いう|答える)(?:なら|とすれば|と)|(?:言え|いえ|挙げれ)ば|因此|所以|故)"""
_MOST = r"(?:[、, ]|唯一の?|最も|もっとも|一番|明らかに|正に|まさに|本問の|この(?:問題|設問|中)の?|問題の){0,6}"
_VERY = r"(?:[ ](?:to[ ]be|clearly|obviously|therefore|thus|probably|likely|indeed|definitely|actually|most|the|our|my|only|single|final|best|one)){0,5}"
_OPENING = r"""(?:は(?=[ 、])|はい|承知(?:しま|いたしま)した|かしこまりました|了解(?:です|しました)?|もちろん(?:です)?|それでは|では|ええ|うーん|私は|これは|それは|おそらく|恐らく|たぶん
    |多分|きっと|やはり|sure|ok(?:ay)?|certainly|of[ ]course|yes|well|hmm|so|probably|likely|maybe|i[ ](?:think|believe|guess|would[ ]say|say)(?:[ ]that)?
    |i'd[ ]say|it(?:[ ]i|')s|(?:it|that|this)(?:[ ](?:must|would|should))?[ ]be|that(?:[ ]i|')s|must[ ]be)[ 、,.!:。]*"""
_THING = "(?:もの|選(?:ぶ|択す)べき|選択肢|記述|肢|番号|記号|組み?合わ?せ)"
_CHOOSE = r"""(?:選(?:び(?!ません)|ぶ|ん[だで]|択(?:し(?!ません|ない)|す|肢と))|(?:回答|解答|答え|正解)(?:と?し(?!ません|ない)|と?する|ます|る))
    (?!と|べきでは?な|場合|人|こと(?:は|が)でき|のは|のも)"""
_CHOOSE_EN = r"""(?<!not[ ])(?<!n't[ ])(?<!never[ ])\b(?:cho(?:ose|osing|se)|select(?:ed|ing)?|pick(?:ed|ing)?|go(?:ing)?[ ]with|went[ ]with
    |opt(?:ed|ing)?[ ]for|vote[ ]for|my[ ](?:choice|pick|vote)[ ]is)"""
_IS_RIGHT = rf"""(?:is|(?:would|must|should)[ ]be|has[ ]to[ ]be|seems|appears|looks){_VERY}[ ](?:correct|right|answer|best|appropriate|accurate|true|valid|suitable
    |proper|choice|option)\b(?![ ](?:if|when|to|only[ ]if)\b)"""
# Behind a label that begins its line: the choice's text, or a reason.
_TEXT = rf"(?:[.):,、。;→(-]|[ ](?!{_PARTICLE}|(?-i:[a-z]))(?=\S)|[ ](?:because|since|as)\b)"


_CONTENT = re.compile(rf"[\w{LETTERS}{DIGITS}{OPEN}]")
_FLAGS = re.VERBOSE | re.IGNORECASE | re.MULTILINE


def _marker(pattern: str) -> Rule:
    return Rule("marker", re.compile(pattern, _FLAGS), marker=True)


def _rule(name: str, pattern: str, direct: Place = "anywhere", cot: Place = "anywhere") -> Rule:
    return Rule(name, re.compile(pattern, _FLAGS), direct, cot)


_ALONE = rf"[ (']*(?P<answer>{ANY})[ )']*(?:{_IS}{_UNMARKED}{{0,12}})?(?:{SYMBOL}|[ ])*"
# Of several rules that find the same answer, the first one names it.
RULES = (
    Rule("boxed", re.compile(rf"{BOXED}[ \n(]*{_ANSWER}{_LOOSE}", _FLAGS), marker=True),
    # 回答: c, 正解は「c」です
    _marker(rf"{_MARKER}{_NOTE}{_LINK}{_ANSWER}{_LOOSE}"),
    # 正解は、第2条によりcとなる
    _marker(rf"{_MARKER}(?:は|として){_UNMARKED_CLAUSE}{{0,30}}{_ANSWER}{_CLOSED}"),
    # Answer: C
    _marker(rf"{_MARKER_EN}{_NOTE}[ )']*[:=→\n-]{_LINK}{_ANSWER}{_LOOSE}"),
    # Answer (C)
    _marker(rf"{_MARKER_EN}{_NOTE}[ .)]+(?:[(]|{LISTING})*{_ANSWER}{_CLAUSE_END}"),
    # The answer to this question is therefore C
    _marker(rf"{_MARKER_EN}{_UNMARKED_EN}{{0,60}}?\b(?:is|was|be|are)\b{_LINK}{_ANSWER}{_CLAUSE_END}"),
    # Choice: c
    _marker(rf"{_FIELD}{_NOTE}[ ]*[:=→][ \n(]*{_ANSWER}(?=[ )'。.,]*$)"),
    # 問1: c
    _marker(rf"^[ (]*(?:問題?|q(?:uestion)?)[ ]*(?:1[ ]*)?[:.)][ ]*{_ANSWER}(?=[ )'。.]*$)"),
    # よってc。
    _rule("conclusion", rf"{_THEREFORE}[ \n、,:(]*(?:选|選|{_FILLER}){_ANSWER}{_CLOSED}"),
    # したがって、cが誤り
    _rule(
        "conclusion", rf"{_THEREFORE}[ \n、,:(]*{_FILLER}{_ANSWER}{_PART}[ )]*が{_MOST}(?:{_RIGHT}|{_WRONG}){_SUPPOSED}"
    ),
    # Therefore, C is correct
    _rule("conclusion", rf"{_THEREFORE}[ \n,:(]*{_FILLER}{_ANSWER}[ )]*{_IS_RIGHT}"),
    # 正しいのはc, 届出が要るものはc
    _rule("sentence", rf"(?:{_THING}|{_WANTED}{_UNMARKED}{{0,10}}の)(?:は|が|:|→|=)、?{_FILLER}{_ANSWER}{_CLOSED}"),
    # 誤り: c
    _rule("sentence", rf"(?:正しい|誤り|間違い|不?適切)(?:は|:)、?{_FILLER}(?P<answer>{ONE}){_CLOSED}"),
    # cが最も適切
    _rule("sentence", rf"{_ANSWER}{_PART}[ )]*(?:こそ)?が{_MOST}{_RIGHT}{_SUPPOSED}", cot="last sentence"),
    # cを選びます
    _rule("sentence", rf"{_ANSWER}{_PART}[ )]*(?:を|と)、?{_CHOOSE}"),
    # 选C
    _rule("sentence", rf"(?:选择?|选项|選擇)[ :是]*{_ANSWER}{_CLOSED}"),
    # The incorrect statement is C
    _rule(
        "sentence",
        rf"\b{_WANTED_EN}[ ]*(?:is|was|(?:would|must|should)[ ]be|[:=→-])[ :(]*{_FILLER}{_ANSWER}{_CLAUSE_END}",
    ),
    # I would choose option (c)
    _rule("sentence", rf"{_CHOOSE_EN}[ :]+(?:(?:the|answer|option|choice|letter)[ ]+)*[(]*{_ANSWER}{_CLAUSE_END}"),
    # C is the best answer
    _rule("sentence", rf"{_ANSWER}[ )]*{_IS_RIGHT}", cot="last sentence"),
    _rule("bare label", rf"^[ (']*(?:{_OPENING}){{0,3}}{_ALONE}(?:$|。)", cot="last line"),
    # … Within a line no digit that begins a text there: 「。1. まず」.
    _rule(
        "bare label",
        rf"(?<=[。!?])[ (']*(?:{_OPENING}){{0,3}}(?![ (']*[{DIGITS}](?![ )']*(?:{_IS}|$))){_ALONE}(?:$|。)",
        cot="last line",
    ),
    _rule("first line", rf"^[ (']*(?:{_OPENING}){{0,3}}{_ALONE}$", direct="nowhere", cot="first line"),
    _rule("label with text", rf"^[ ('?!]*(?P<answer>{ONE})[ ']*{_TEXT}", direct="first line", cot="last line"),
)


def commitments(marked: str, count: int, mode: Mode) -> list[Commitment]:
    """Every place where the reply commits itself as `mode` wants it, in order."""
    text = _without_lists(marked, count)
    places = _Places.of(text)
    found: dict[int, Commitment] = {}
    for rule in RULES:
        place = rule.direct if mode == "direct" else rule.cot
        for match in rule.pattern.finditer(text):
            start = match.start("answer")
            if start not in found and places.holds(place, start):
                found[start] = Commitment(tuple(positions(match["answer"])), rule.name, rule.marker)
    return [found[start] for start in sorted(found)]


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the first line with content ends, and where the last line and the last sentence begin."""

    first_line_end: int
    last_line: int
    last_sentence: int

    @classmethod
    def of(cls, text: str) -> _Places:
        content = _CONTENT.search(text)
        if not content:
            return cls(0, 0, 0)
        first_line_end = text.find("\n", content.start())
        end = len(text)
        while not _CONTENT.match(text, end - 1):
            end -= 1
        sentences = [match.end() for match in re.finditer(r"[。\n]|[.!?]\s", text[:end])]
        return cls(
            first_line_end if first_line_end >= 0 else len(text),
            text.rfind("\n", 0, end) + 1,
            max(sentences, default=0),
        )

    def holds(self, place: Place, start: int) -> bool:
        if place == "first line":
            return start < self.first_line_end
        if place == "last line":
            return start >= self.last_line
        if place == "last sentence":
            return start >= self.last_sentence
        return place == "anywhere"


# Lists of the choices -------------------------------------------------------------------------------------------------

_LEAD = re.compile(rf"^[ (']*(?P<label>[{LETTERS}{DIGITS}])(?:(?P<alone>[ )']*{SYMBOL}*[ ]*$)|[ ']*{_TEXT})", _FLAGS)
_ENTRY = re.compile(rf"(?P<label>{ONE})(?P<text>[ ']*{_TEXT})?", _FLAGS)


def _without_lists(text: str, count: int) -> str:
    """The choices themselves turned down: lines that begin a, b, c …, or one line that has them all."""
    listed = [start for line in _lines(text) for start in _choices_in(*line, count)]
    run: list[tuple[int, int, bool]] = []
    for match in [*_LEAD.finditer(text), None]:
        lead = (
            (match.start("label"), positions(match["label"])[0], match["alone"] is not None) if match else (0, 0, True)
        )
        if match and run and lead[1] == run[-1][1] + 1 and lead[2] == run[-1][2]:
            run.append(lead)
            continue
        if len(run) > 1:
            listed += [start for start, _, _ in run]
        run = [lead] if lead[1] == 0 else []
    chars = list(text)
    for start in listed:
        chars[start] = REJECTED
    return "".join(chars)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.split("\n"):
        yield start, line
        start += len(line) + 1


def _choices_in(start: int, line: str, count: int) -> list[int]:
    entries = list(_ENTRY.finditer(line))
    in_order = [positions(entry["label"])[0] for entry in entries] == list(range(count))
    complete = in_order and all(entry["text"] for entry in entries) and OPEN not in line
    return [start + entry.start() for entry in entries] if complete else []


def lists_choices(marked: str, count: int) -> bool:
    return _without_lists(marked, count) != marked


# What is said of each choice ------------------------------------------------------------------------------------------

_JUDGED = re.compile(
    rf"(?P<labels>{ANY}){_PART}[ )]*(?:(?P<the_one>が{_FAULTY})|(?:[はもが:.→、,|-]|is|was|[ ])*{_UNMARKED}{{0,12}}?"
    rf"(?:(?P<wrong>{_WRONG}|incorrect|wrong|false|not[ ]correct)|(?P<right>{_RIGHT}|[✓✔✅]|correct|right|true))){_SUPPOSED}",
    _FLAGS,
)


def by_judgement(marked: str, count: int) -> Commitment | None:
    """The choice that is called otherwise than all others, or the only one named where it is called right."""
    verdicts: dict[int, set[str]] = {}
    for match in _JUDGED.finditer(marked):
        # 「cが誤り」 says that it is the one, 「cは誤り」 only something about it.
        said = "right" if match["right"] else "the wrong one" if match["the_one"] else "wrong"
        for index in positions(match["labels"]):
            verdicts.setdefault(index, set()).add(said)
    named = {index for mark in re.findall(ONE, marked) for index in positions(mark)}
    if len(named) == 1 and LISTING not in marked:
        (index,) = named
        clear = verdicts.get(index) in ({"right"}, {"the wrong one"})
        return Commitment((index,), "only one named") if clear and index >= 0 else None
    if count < 3 or set(verdicts) != set(range(count)):
        return None
    for side in ("right", "wrong"):
        alone = [index for index, said in verdicts.items() if ("right" in said) == (side == "right")]
        if len(alone) == 1 and all(len(said) == 1 for said in verdicts.values()):
            return Commitment((alone[0],), "odd one out")
    return None
