"""The rules that find where a marked reply (`answer_marks`) commits itself to a label, and the words they are made of.

Each rule is one regular expression whose group `answer` is a mark or a group of marks. What has to stand behind the
label is part of it, so that 「正解はA社」, 「答えはaのように」 or "So A, the seller, may …" say nothing. All expressions are
for `FLAGS`, over folded text: a space is written `[ ]`, or `_` inside `one_of`.
"""

import re
from dataclasses import dataclass
from typing import Literal

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
    TICKED,
)
from slimtune.evaluate.replies.reply_text import one_of

FLAGS = re.VERBOSE | re.IGNORECASE | re.MULTILINE

_MARKS = f"{LETTERS}{DIGITS}{OPEN}{LISTING}"
UNMARKED = rf"[^。\n{_MARKS}]"
UNMARKED_CLAUSE = rf"[^。\n()はが{_MARKS}]"
UNMARKED_EN = rf"[^.\n:;{_MARKS}]"

# What may stand behind a label ----------------------------------------------------------------------------------------

# cです, cとなる, cだと思う; not 「cであるとすると」, 「cだとしても」, 「cと思われがち」.
IS = one_of(
    "です であ(?:る(?!なら|とす|場合|と仮|かのよ)|り|ろ|った) でし[たょ] でござ でお願 で[、,] だ(?!と(?:す|し|仮|は限))",
    "では?(?:ない|あるまい)[かでだの] ではなかろう じゃない[かで] でしょ だろ っぽい 一択 のみ だけ",
    "とな[るりっ] と考え(?!られがち) と思(?!われがち) と判断 と結論 と[言い]え という(?:こと|結論|答) としま とする(?![とな])",
    r"と[推解見] にな[りる] にし(?:ます|た) に決 かと[思考] か[なも] か[?。] か_*$ [よねな][。!\n]",
    r"のよう(?:です|だ|に思) のはず の\( のみ の方 のほう",
)
COPULA = one_of(IS, "と答え と回答 と解答 が[正適最答妥該当合選] があて がふさ を選 を正解 を回答 を解答")
# 「回答: c」の形で: an example of how to answer.
_NO_FORM = rf"(?![ )']*{one_of('の形 のごと の書式 のような のように(?!思) という形 というよう など といった')})"
PARTICLE = "[はがもにをへのとやでか]"
# Behind "回答: c": nearly anything but a particle that makes the label the subject of something else.
LOOSE = rf"{_NO_FORM}(?=[ ]*(?:{COPULA}|$|{SYMBOL})|[ ]+(?!{PARTICLE})\S|{BOXED})"
# Behind "よってc": the sentence ends; behind "正しいのはc" more may be said of it.
CLOSED = rf"{_NO_FORM}(?=[ )']*(?:{COPULA}|[。.!?]|$))"
ENDED = rf"{_NO_FORM}(?=[ )']*(?:{COPULA}|[。.!?、,:(-]|$))"
# Behind "the answer is c": the clause ends, or the choice's text follows.
CLAUSE_END = rf"""(?=[ )]*(?:$|[.。,;:!?(→-]
    |{one_of("because since as for which that and with given based due according under by so")}\b
    |[ ](?-i:[A-Z\d])|[^\x00-\x7f{LETTERS}{DIGITS}]))"""
# Behind a label that begins its line: the choice's text, or a reason.
TEXT = rf"(?:[.):,、。;→(-]|[ ](?!{PARTICLE}|(?-i:[a-z]))(?=\S)|[ ]{one_of('because since as')}\b)"
# cの記述, cという選択肢, c（第5条）
PART = rf"(?:[ ]*(?:(?:の|という){one_of('選択肢 記述 肢 内容 方 ほう 説明 もの')}|の?\([^()\n]{{0,80}}\)))?"

# What introduces an answer --------------------------------------------------------------------------------------------

_HEDGE = one_of(
    "おそらく 恐らく たぶん 多分 きっと もちろん 明らかに やはり 当然 ずばり [次以]下?の(?:通り|とおり)",
    "therefore thus then clearly obviously probably likely most definitely indeed simply also certainly maybe perhaps",
    "either the option choice letter answer it is be",
)
FILLER = rf"(?:[ 、,:(]|{_HEDGE}){{0,8}}"
LINK = rf"(?:[ \n:=→()|、,.・\-'はがの是为為{LISTING}]|とは|としては?|的に|{_HEDGE}){{0,16}}"
# "（1文字のみ）" behind a marker, however badly it was copied.
NOTE = rf"""(?:[ ]*\([^()\n]{{0,40}}\) | [ ]*{LISTING} | [ ]*[{DIGITS}](?=[ ]*:)
    | [ (:]*[^。\n:はを{_MARKS}]{{0,12}}{one_of("文字 のみ だけ 以内")}[ )のみ]*(?=[:は\n]))?"""
_OPTION = "(?:option|choice|letter|statement|alternative)"
MARKER = rf"""(?<![不未誤])(?:最[終後](?:的な?|の)?[ ]*)?
    {one_of("回答 解答 答え こたえ 答案 答 正解 正答 正确答案 結論 结论")}の?{one_of("選択肢 記号 番号 肢 文字 ラベル 欄")}?"""
MARKER_EN = rf"""(?<![A-Za-z])(?:answers?|ans|solution|correct(?=[ ][{LETTERS}{DIGITS}])
      |{one_of("correct right best final chosen selected")}[ ](?:answer|one|response|selection|{_OPTION}))
    (?![A-Za-z])(?:[ ](?:key|number|label|{_OPTION}))?"""
# Weaker words, which count with a colon and a label that ends the line.
FIELD = "(?<![A-Za-z])" + one_of(
    "選択(?:肢)? 記号 番号 判定 判断 予測 予想 出力 結果 解",
    "letter final option choice selection selected response prediction predicted label output result conclusion",
    "verdict decision pick solution",
)
THEREFORE = one_of(
    "よって したがって 従って ゆえに 故に それゆえ ∴ このことから これらから これより そのため そこで だから つまり すなわち",
    "以上(?:より|から|により|のことから|の(?:こと|理由|点|検討)(?:から|より|により)|を踏まえ(?:ると|て)?|によれば)?",
    "結局 結論として 消去法(?:で|により|から|的に) (?:選ぶ|挙げる|言う|いう|答える)(?:なら|とすれば|と) (?:言え|いえ|挙げれ)ば",
    r"\b(?:therefore|thus|hence|consequently|accordingly|in_conclusion|so)\b 因此 所以 故",
)
OPENING = (
    one_of(
        "は(?=_|、) はい (?:お答え|ご?回答)(?:いた)?します 承知(?:しま|いたしま)した かしこまりました 了解(?:です|しました)?",
        "(?:わか|分か)ら?(?:り?ません|ない)(?:が|けど|けれど|ので) もちろん(?:です)? それでは では ええ うーん 私は これは それは おそらく 恐らく たぶん 多分 きっと やはり",
        "sure ok(?:ay)? certainly of_course yes well hmm so probably likely maybe must_be",
        "i_(?:think|believe|guess|would_say|say)(?:_that)? i'd_say (?:it|that|this)(?:_i|')s",
        "(?:it|that|this)(?:_(?:must|would|should))?_be",
    )
    + "[ 、,.!:。]*"
)
ASKED = one_of("文字 記号 回答 解答 答え 選択肢 letter answer option choice")

# Sentences that name the answer ---------------------------------------------------------------------------------------

# 正しいのは, 誤っているものは, 届出が要るものは
WANTED = one_of(
    "正し 誤[っり] 間違 適切 不適切 妥当 適当 該当 当ては あては 合致 一致 合[うっ] 沿[うっ] ふさわし 適合 正確 矛盾 反す",
    "選ぶべき 選択すべき 最も近い 違反 正解でない",
)
THING = one_of("もの 選(?:ぶ|択す)べき 選択肢 記述 肢 番号 記号 組み?合わ?せ")
WANTED_EN = (
    one_of(
        "correct incorrect right wrong best true false inaccurate accurate appropriate inappropriate invalid valid",
        "suitable unsuitable improper proper closest odd",
    )
    + f"(?:[ ](?:answer|one|selection|description|response|item|{_OPTION}))?"
)
MOST = rf"(?:[、, ]|{one_of('唯一の? 最も もっとも 一番 明らかに 正に まさに 本問の この(?:問題|設問|中)の? 問題の')}){{0,6}}"
RIGHT = (
    one_of(
        "正し[いく](?![なはも]) 正解 正答 正確 答え 回答 解答 適切 適当 妥当 該当 当てはま あてはま 合致 一致 適合 ふさわし 最適",
        "条文(?:どおり|通り) [◎○◯] 選択(?:すべき|される) 選ばれ",
    )
    + r"(?![^。\n]{0,4}(?:な[いくか]|ません|ず))"
)
FAULTY = "(?:誤|間違|不適)"
WRONG = one_of(FAULTY, "正しくない 適切では?ない 妥当では?ない 該当しない 違反 [×✗✕❌]")
# 「cが正しいとすると」, 「cが正しいように見える」
SUPPOSED = (
    r"(?![^。\n]{0,3}"
    + one_of(
        "よう ともい とも言 とすれ とする(?!の) とした と仮定 とは限 とは言 と考えられがち と思われがち と誤解 という(?!こと|結論)",
        "なら 場合 とき か(?:どうか|否か|、) かもしれ とされ と主張 と述べ が、",
    )
    + ")"
)
_CHOSEN = one_of("選び(?!ません|た[いくが]) 選ぶ 選ん(?:だ|で(?!は)) 選択し(?!ません|ない) 選択す 選択肢と")
_ANSWERED = r"(?:回答|解答|答え|正解)(?:と?し(?!ません|ない)|と?する|ます|る)"
CHOOSE = rf"(?:{_CHOSEN}|{_ANSWERED})(?!{one_of('と べきでは?な 場合 人 ことはでき ことができ のは のも')})"
CHOOSE_EN = r"(?<!not[ ])(?<!n't[ ])(?<!never[ ])\b" + one_of(
    "cho(?:ose|osing|se) select(?:ed|ing)? pick(?:ed|ing)? go(?:ing)?_with went_with opt(?:ed|ing)?_for vote_for",
    "my_(?:choice|pick|vote)_is",
)
_VERY = one_of(
    "to_be clearly obviously therefore thus probably likely indeed definitely actually most",
    "the our my only single final best one",
)
IS_EN = one_of("is was (?:would|must|should)_be has_to_be")
IS_RIGHT = rf"""(?:{IS_EN}|seems|appears|looks)(?:[ ]{_VERY}){{0,5}}
    [ ]{one_of("correct right answer best appropriate accurate true valid suitable proper choice option")}\b
    (?![ ]{one_of("if when to only_if")}\b)"""

# The rules -----------------------------------------------------------------------------------------------------------

Place = Literal["anywhere", "first line", "last line", "closing line", "last sentence", "nowhere"]


@dataclass(frozen=True, slots=True)
class Rule:
    """name: as `extract` documents it. direct, cot: where it must stand to count in that mode; see `extract`.

    marker: an explicit answer marker, which in cot mode outweighs every other rule. judges: it may call the answer right
    or wrong, which must be what the question wants. only_one: of several labels that it finds none is the answer.
    """

    name: str
    pattern: re.Pattern[str]
    direct: Place = "anywhere"
    cot: Place = "anywhere"
    marker: bool = False
    judges: bool = False
    only_one: bool = False

    @property
    def own(self) -> bool:
        """Whether it says itself that the label is the answer, whatever is said of the label behind it."""
        return self.judges or (self.marker and not self.only_one)


_ANSWER = rf"(?P<answer>{ANY})"
_LETTER = rf"(?P<answer>[{LETTERS}]|{OPEN}[{LETTERS}][^{CLOSE}]*{CLOSE})"
_FITS = one_of(
    "match(?:es) fits corresponds_to aligns_with agrees_with points_to is_(?:best_|fully_|directly_|clearly_)?supported_by",
    "is_consistent_with is_in_line_with",
)
_CLOSELY = one_of("best exactly precisely clearly directly perfectly closely most_closely")
_GIVEN = one_of("described stated given listed covered reflected") + "[ ](?:in|by|as)"
PARTLY = one_of("only part partly partially half but however except not if unless")
_FINDING = (
    r"(?<!\bif[ ])(?<!whether[ ])(?<!unless[ ])(?<![A-Za-z])"
    + one_of("that this it which the_(?:statute|law|text|article|provision|rule|description|passage|context)")
    + "[ ]"
)
_DECLARED = one_of("ため ので と(?:判断|考え) こと")
CORRECTION = one_of(
    r"\b(?:no,?_)?wait\b \bactually\b \bcorrection\b scratch_that on_second_thought \bi_meant?\b \bor_rather\b let_me_correct_(?:that|myself)",
    "訂正(?:します|すると)? いや いえ すみません 失礼(?:しました)? 間違え(?:た|ました) やはり やっぱり 正しくは",
)
_DIGIT = rf"(?P<answer>[{DIGITS}]|{OPEN}[{DIGITS}][^{CLOSE}]*{CLOSE})"
# Possessive: a long run of brackets has one reading, not one for each way to share it out.
_START = rf"^[ (']*+(?:{OPENING}){{0,3}}[ (']*+"
_PREDICATE = rf"[ )']*{PART}(?:{IS}{UNMARKED}{{0,12}})"
_REST = rf"(?:{SYMBOL}|[ ])*"


def _marker(
    pattern: str, name: str = "marker", direct: Place = "anywhere", *, judges: bool = False, only_one: bool = False
) -> Rule:
    return Rule(name, re.compile(pattern, FLAGS), direct, marker=True, judges=judges, only_one=only_one)


def _rule(
    name: str, pattern: str, direct: Place = "anywhere", cot: Place = "anywhere", *, judges: bool = False
) -> Rule:
    return Rule(name, re.compile(pattern, FLAGS), direct, cot, judges=judges)


def _fit(pattern: str) -> Rule:
    """Of a choice that fits what was found; another part may fit another choice."""
    return Rule("sentence", re.compile(pattern, FLAGS), "last sentence", "last sentence", judges=True, only_one=True)


# Of several rules that find the same answer, the first one names it.
RULES = (
    _marker(rf"{BOXED}[ \n(]*{_ANSWER}{LOOSE}", "boxed"),
    # - [x] c
    _marker(rf"{TICKED}[ (']*{_ANSWER}(?=[ )']*(?:{SYMBOL}*[ ]*$|[{TICKED}\ue028]|[.):、,。;→(-]|[ ](?!{PARTICLE}|(?-i:[a-z]))))", "ticked box", only_one=True),
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
    _marker(rf"{FIELD}{NOTE}[ ]*[:=→)][ :(]*{_ANSWER}(?=[ )'。.,]*$)", judges=True),
    # 問1: c
    _marker(rf"^[ (]*(?:問題?|q(?:uestion)?)[ ]*(?:[1{DIGITS}][ ]*)?[:.)][ ]*{_ANSWER}(?=[ )'。.]*$)"),
    # Wait, no, it's b. 訂正: b
    _marker(
        rf"""{CORRECTION}[ \n、,.:…!-]*(?:(?:{CORRECTION}|{OPENING}|no\b|it's|it[ ]is|that's|it[ ]should[ ]be|正しくは|正解は|答えは|回答は)[ \n、,:]*){{0,3}}
        [(']*{_ANSWER}(?=[ )']*(?:{COPULA}|[。.!]|$|{one_of("because since")}\b))""",
        "correction",
        direct="nowhere",
    ),
    # よってc。
    _rule("conclusion", rf"{THEREFORE}[ \n、,:(]*(?:选|選|{FILLER}){_ANSWER}{CLOSED}"),
    # したがって、cが誤り
    _rule("conclusion", rf"{THEREFORE}[ \n、,:(]*{FILLER}{_ANSWER}{PART}[ )]*が{MOST}(?:{RIGHT}|{WRONG}){SUPPOSED}", judges=True),
    # Therefore, C is correct
    _rule("conclusion", rf"{THEREFORE}[ \n,:(]*{FILLER}{_ANSWER}[ )]*{IS_RIGHT}", judges=True),
    # 正しいのはc, 届出が要るものはc
    _rule("sentence", rf"(?:{THING}|{WANTED}{UNMARKED}{{0,10}}の)(?:は|が|:|→|=)、?{FILLER}{_ANSWER}{ENDED}", judges=True),
    # 誤り: c
    _rule("sentence", rf"(?:(?:正しい|誤り|間違い|不?適切)(?:は|:)|[正誤][ ]*:)、?{FILLER}(?P<answer>{ONE}){ENDED}", judges=True),
    # cが最も適切
    _rule("sentence", rf"{_ANSWER}{PART}[ )]*(?:こそが?|が){MOST}{RIGHT}{SUPPOSED}", cot="last sentence", judges=True),
    # cを選びます
    _rule("sentence", rf"{_ANSWER}{PART}[ )]*(?:を|と)、?{CHOOSE}"),
    # 选C
    _rule("sentence", rf"(?:选择?|选项|選擇)[ :是]*{_ANSWER}{CLOSED}"),
    # The incorrect statement is C
    _rule("sentence", rf"\b{WANTED_EN}[ ]*(?:{IS_EN}|[:=→-])[ :(]*{FILLER}{_ANSWER}{CLAUSE_END}", judges=True),
    # I would choose option (c)
    _rule("sentence", rf"{CHOOSE_EN}[ :]+(?:(?:the|answer|option|choice|letter)[ ]+)*[(]*{_ANSWER}{CLAUSE_END}"),
    # C is the best answer
    _rule("sentence", rf"(?<!\bif[ ])(?<!whether[ ])(?<!unless[ ]){_ANSWER}[ )]*{IS_RIGHT}", cot="last sentence", judges=True),
    # That matches option b
    _fit(
        rf"""{_FINDING}(?:{_CLOSELY}[ ])?(?:{_FITS}|is[ ](?:{_CLOSELY}[ ])?what|(?:is|was)[ ]{_GIVEN})[ ](?:the[ ])?[(']*{_ANSWER}
        (?:[ )]*(?:{_CLOSELY}|says|states|describes))?(?=[ )']*(?:[.!。]|$|{one_of("because since")}\b))"""
    ),
    # Option b matches the statute
    _fit(rf"(?<!\bif[ ])(?<!whether[ ]){_ANSWER}[ )]*(?:{_CLOSELY}[ ])?(?:is[ ]the[ ](?:one|option|choice)[ ]that[ ])?{_FITS}\b(?![^.\n]{{0,120}}\b{PARTLY}\b)[^.\n]{{0,120}}(?=[.!]|$)"),
    # これはcと一致する
    _fit(
        rf"""(?:は|が|、|^|から)[ ]*{_ANSWER}{PART}[ )]*[にと](?:合致|一致|対応|該当)(?:する|します|している)?
        (?=[ ]*(?:[。.!]|$|{_DECLARED}))"""
    ),
    # c, はい、cです。
    _rule("bare label", rf"{_START}{_LETTER}{_PREDICATE}?{_REST}(?:$|。)", cot="last line"),
    # お答えします。cです。
    _rule("bare label", rf"(?<=[。!?])[ (']*{_ANSWER}(?:{_PREDICATE}{_REST}(?:$|。)|[ )']*。)", cot="last line"),
    # It's not A. It's B.
    _rule("bare label", rf"(?<=[.!?][ ])(?:{OPENING}){{1,3}}[ (']*{_ANSWER}[ )']*(?:[.!。]|$)", cot="last line"),
    # A digit in a line of its own numbers what follows, unless it stands at the beginning, apart at the end, or behind
    # words about the answer.
    _rule("bare label", rf"{_START}{_DIGIT}{_PREDICATE}?{_REST}(?:$|。)", direct="first line", cot="closing line"),
    _rule("bare label", rf"{_START}{_DIGIT}{_PREDICATE}?{_REST}(?:$|。)", direct="closing line", cot="nowhere"),
    _rule("bare label", rf"{ASKED}[^\n]{{0,80}}\n+{_START}{_DIGIT}{_PREDICATE}?{_REST}(?:$|。)", cot="last line"),
    _rule("first line", rf"{_START}{_LETTER}{_PREDICATE}?{_REST}$", direct="nowhere", cot="first line"),
    # C. 第5条の届出書
    _rule(
        "label with text",
        rf"^[ ('?!]*{_LETTER}[ ']*{TEXT}(?![^\n]*という(?:選択肢|記述)[もが]あ)",
        direct="first line",
        cot="closing line",
    ),
    _rule("label with text", rf"^[ ('?!]*{_DIGIT}[ ']*{TEXT}", direct="first line", cot="nowhere"),
)  # fmt: skip
