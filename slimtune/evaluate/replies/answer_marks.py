"""Where a reply names a choice: "Ｃ", "（ｃ）", "選択肢3", "③番", "ウ", "\\boxed{\\text{c}}" all become one mark. No torch.

A mark is a private-use character, so that the rules in `extract` are regular expressions over text in which a label
cannot be mistaken for a word. What only looks like a label is left as it is: the article "a", the "1" of 1文字, 第2条,
Bさん, A4, e.g.; and what is named only to be turned down, or as an example, becomes `REJECTED`.
"""

import re

from slimtune.evaluate.replies.reply_text import one_of

KANA = "アイウエオカキクケコ"

LETTERS, DIGITS = "\ue000-\ue00f", "\ue010-\ue01f"
"""Marks of labels written as letters or kana, and as digits; the last of each is for a label that this question does
not have: e or 5 of four."""
OPEN, CLOSE = "\ue020", "\ue021"
"""Around the marks of labels that are named together: "a または c"."""
LISTING = "\ue022"
"""All the labels, as an instruction names them: "a〜d"."""
REJECTED = "\ue023"
BOXED = "\ue024"
YES, NO, TICKED, UNTICKED = "\ue025", "\ue026", "\ue027", "\ue028"
"""Before a label: ✓ or ✗, as a verdict on it; ☑ or ☐, as in a list of boxes."""
ONE = rf"[{LETTERS}{DIGITS}]"
ANY = rf"(?:{ONE}|{OPEN}[^{CLOSE}]*{CLOSE})"
CONTENT = rf"\w{LETTERS}{DIGITS}{OPEN}"
"""Characters that say something, for use in a character class."""
SYMBOL = r"[^\w\s\ue000-\ue0ff]"

_FIRST_LETTER, _FIRST_DIGIT, _FOREIGN = 0xE000, 0xE010, 15


def positions(mark: str) -> list[int]:
    """The labels that a mark, or a group of marks, stands for: 0 for the first one; -1 for one that there is not."""
    numbers = [ord(char) % 16 for char in mark if char not in (OPEN, CLOSE)]
    return [-1 if number == _FOREIGN else number for number in numbers]


def position(name: str) -> int | None:
    """0 for "a", "A", "1" and "ア", 1 for "b" …, up to the tenth; None for any other text. Half width only."""
    if name.isascii() and name.isdecimal():
        return int(name) - 1 if len(name) < 3 and 1 <= int(name) <= 10 else None
    if len(name) != 1:
        return None
    found = KANA.find(name) if name in KANA else ord(name.lower()) - ord("a")
    return found if 0 <= found < 10 else None


def mark_labels(text: str, count: int) -> str:
    """Folded text without markup, in which the first `count` labels are marks and everything else is as it was."""
    text = _LABEL_LAST.sub(r"\1 \3 \2", _without_instructions(_without_markup(text)))
    if _TRUE.search(text):
        text = _TRUE_FALSE.sub(lambda match: "True" if match[0] in "Tt" else "False", text)
    text = _LABEL_AFTER_TEXT.sub(r"\2 \1", text)
    text = _MENTION.sub(lambda match: _mark(match, count), text)
    text = _EXAMPLE.sub(rf"\1{REJECTED}", _NUMBERING.sub("", text))
    return _reject(_group(text, count))


# Markup ---------------------------------------------------------------------------------------------------------------

_MARKUP = [
    (re.compile(pattern, re.IGNORECASE | re.MULTILINE), replacement)
    for pattern, replacement in (
        (r"~~[^~\n]{1,80}~~", ""),
        (r"^[ ]*```[\w-]*[ ]*$", ""),
        (r"<(b|i|u|em|strong|mark|code|span|p|div|big|small|su[bp]|font|h\d)\b[^<>]{0,80}>([^<>]{0,200})</\1>", r"\2"),
        (r"<br[ ]*/?>|</?(?:p|div|li|ul|ol|tr|td|th|table|details|summary)\b[^<>]{0,80}>|</[\w-]{1,30}>", "\n"),
        (r"<(?:pad|bos|unk|s)>", ""),
        (r"\\n(?![a-z])", "\n"),
        (r"\\f?boxed(?![a-z])", BOXED),
        # Twice: \textbf{\text{c}}.
        *[(r"\\(?:text\w{0,6}|math\w{0,6}|operatorname|mbox|bf|rm)[ ]*\{([^{}]*)\}", r"\1")] * 2,
        (r"\\therefore(?![a-z])", "∴"),
        (r"\\(?:right|long)\w{0,14}arrow(?![a-z])|\\(?:to|implies)(?![a-z])|[-=]{1,2}>|[⇒➡⟹⟶➜]", "→"),
        (r"\\[a-z]{1,20}|\\[,;:! ]|\$", " "),
        (r"\\[()\[\]]", "\n"),
        (r"(?<=[a-z0-9])(?:\*+|`+)(?=[a-z0-9])|_+", " "),
        (r"\*+|`+|\"+", ""),
    )
]
_BRACKETS = str.maketrans(
    dict.fromkeys("[{「『【〔〈《〖<⟨", "(") | dict.fromkeys("]}」』】〕〉》〗>⟩", ")") | {"･": "・"}
)
# Bullets, quotes, headings, emoji; not what a label may be wrapped in.
_LINE_START = re.compile(r"^[^\w\n('∴\ue000-\ue0ff]+", re.MULTILINE)


def _without_markup(text: str) -> str:
    """Markdown, LaTeX, HTML and JSON quoting taken away; every bracket is a round one."""
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return _LINE_START.sub("", _with_signs(text).translate(_BRACKETS))


_CHECKED, _PLAIN_SIGN = "[xX✓✔☑✗×●*]", "☑☒☐□■○◯〇◎⭕✓✔✅×✕✖✗✘❌●◉"
_BARE = rf"(?:[A-Ja-j]|10|[1-9]|[{KANA}])(?![A-Za-z0-9ァ-ヺー])"
_SIGN = rf"""(?:(?P<box>[\[【][ ]?{_CHECKED}[ ]?[\]】])|(?P<no_box>\[[ ]*\])|(?P<round>\({_CHECKED}\))|(?P<no_round>\([ ]?\))
    |(?P<sign>[{_PLAIN_SIGN}]))[ ]*(?=[ ('\[]{{0,6}}(?:(?:option|choice|選択[肢枝]|肢)[ ]*)?{_BARE})"""
_SIGNED = re.compile(_SIGN, re.VERBOSE | re.IGNORECASE)
_SIGNED_LINE = re.compile(
    rf"^(?:[^\w\n]*?|[ ]*\d+[.)][ ]*)(?={_SIGN})[^\n]+", re.VERBOSE | re.IGNORECASE | re.MULTILINE
)
# "b. [x]", and a line that begins with a verdict on the choice of the line above.
_BOX_BEHIND = re.compile(
    rf"(?<!\w)(?P<name>{_BARE}[ .):]{{0,3}})(?:\[[ ]?(?P<x>[xX✓✔☑])[ ]?\]|\[[ ]*\])(?=[ ]*(?:$|[,;|、]|{_BARE}))",
    re.MULTILINE,
)
_SIGN_ALONE = re.compile(r"^[^\w\n(]*?([○◯⭕✓✔✅×✕✖✗✘❌])(?=[ ]*\w)", re.MULTILINE)
_CROSSES = "☒×✕✖✗✘❌"


def _with_signs(text: str) -> str:
    """The text in which a sign before a label, in a line that begins with one, or before anything else in a line is a mark."""
    empty, empty_round = re.search(r"[☐□]|\[[ ]*\]", text), re.search(r"\([ ]?\)", text)
    radio = re.search("[●◉]", text) and re.search("[○◯]", text)
    ticks = "☑" + ("☒■" if empty else "") + ("●◉" if radio else "")
    empties = "☐□" + ("○◯" if radio else "")

    def mark(sign: re.Match[str]) -> str:
        kind, char = str(sign.lastgroup), sign["sign"] or " "
        if kind in ("round", "no_round"):
            return sign[0] if not empty_round else TICKED if kind == "round" else UNTICKED
        if kind == "box" or char in ticks:
            return TICKED
        if kind == "no_box" or char in empties:
            return UNTICKED
        if char in "●◉■":
            return sign[0]
        return NO if char in _CROSSES else YES

    signed = _SIGNED_LINE.sub(lambda line: _SIGNED.sub(mark, line[0]), text)
    if signed == text:
        signed = _BOX_BEHIND.sub(lambda box: (TICKED if box["x"] else UNTICKED) + box["name"], text)
    return _SIGN_ALONE.sub(lambda sign: NO if sign[1] in _CROSSES else YES, signed)


# Labels in running text -----------------------------------------------------------------------------------------------

# 1文字, 2つ, 第3条, 15日, 3 days: a number of something, no label.
_UNIT = one_of(
    "文字 字 語 通り 肢択 未満 パーセント ドル ページ ポイント か[月所国年条] [ヶヵケカ][月所国年条] 以[上下内] 番[地線手組館]",
    "つ(?!目の選択肢) [個条項号章節編款目日年月週時分秒人名者社件回度点枚本冊円万億千百割倍歳才級位階行段文種箇択問対次期世代]",
    r"-?(?:letter|character|word|day|year|month|week|hour|minute|person|point|option|choice|question|line|time)s?\b",
    r"-?(?:people|percent|of)\b",
)
_COUNTED = rf"(?![ ]*{_UNIT})"
_NAME = rf"(?:[A-Ja-j]|10|[1-9]|[{KANA}])"
_MENTION = re.compile(
    rf"""(?:
    # What says itself that a label follows: 選択肢ウ, 第3肢, option (b)
    (?: (?:選択[肢枝]|(?<![下上四義前後])肢|記号|番号)(?:番号)?の? | 第(?=[ ]*(?:10|[1-9])[ ]*(?:番|肢|の?選択肢))
        | (?<![A-Za-z])(?i:(?:answer[ ])?(?:option|choice|alternative|letter|statement|number|no\.)) | \#
      )[ ]*[('(]*[ ]*(?P<named>{_NAME})(?![A-Za-z0-9À-ӿァ-ヺー]){_COUNTED}(?:[ ]*[)']+)?
    | (?<![\d条項号第(])'?\(+[ ]*(?P<enclosed>{_NAME})[ ]*\)+'?{_COUNTED}
    | '(?P<quoted>{_NAME})'
    | (?<![A-Za-z0-9À-ӿァ-ヺー@])(?<![k-zK-Z]&)(?<![A-Za-z]')(?<![A-Za-z]\.)(?P<letter>[A-Ja-j])
      (?![A-Za-z0-9À-ӿァ-ヺー@])(?!'[A-Za-z])(?!\.[A-Za-z](?![A-Za-z]))(?!-[A-Za-z]{{2}})
      (?!さん|ちゃん|くん|さま|たち|ら[はがのにをも、])
      (?!(?![以又若及並番第選肢正誤不適妥該最一解理根問])[㐀-鿿々])  # A社, B案: a name, no label
    | (?<![ァ-ヺー0-9条項号])(?P<kana>[{KANA}])(?![ァ-ヺー])(?![月所国年条箇])
    | (?<![A-Za-z0-9第条項号¥$])(?<!\d\.)(?P<digit>10|[1-9])(?![0-9A-Za-z%°])(?!\.\d|,\d{{3}}|:\d\d){_COUNTED}
    )
    (?:[ ]*(?:つ目|番目?)(?![地線手組館号])(?:の(?:選択肢|肢))? | の(?:選択肢|肢) | 肢(?!択))?
    """,
    re.VERBOSE,
)
# Behind "a" as an English article stands a word that does not sound like a vowel, other than these.
_BEHIND_A_LABEL = re.compile(
    one_of(
        "because but was would which with since so the this that has does matches states says for from to through then",
        "than therefore thus not nor",
    )
)
_TEXT_BEHIND_BRACKET, _ARTICLE_NUMBER = re.compile("[㐀-鿿ァ-ヺ]"), re.compile("第")
_NEXT_WORD = re.compile(r"[ ]+(?:([A-Za-z]+)|\d+[- ]?[A-Za-z])")


def _mark(match: re.Match[str], count: int) -> str:
    kind = str(match.lastgroup)
    name = match[kind]
    if kind == "letter" and name in "aAiI" and _is_word(name, match.string, match.end("letter")):
        return match[0]
    index = position(name)
    number = _FOREIGN if index is None or index >= count else index
    mark = chr((_FIRST_DIGIT if name.isdecimal() else _FIRST_LETTER) + number)
    # 「②届出書」, 「c第5条」: the choice's text begins at once.
    text_follows = (_TEXT_BEHIND_BRACKET if kind == "enclosed" else _ARTICLE_NUMBER).match(match.string, match.end())
    return f"{mark} " if text_follows else mark


def _is_word(name: str, text: str, end: int) -> bool:
    """Whether an "a" or "I" that ends there is the English article or pronoun."""
    following = _NEXT_WORD.match(text, end)
    if not following:
        return False
    word = (following[1] or "").lower()
    if name in "iI":
        return len(word) > 1 and word not in ("is", "and", "or", "because", "since", "as")
    if not word:
        return True
    if len(word) == 1:
        return word not in "bcdefghij"
    sounds_like_consonant = word.startswith(("one", "eu", "uni", "use", "usu"))
    return not _BEHIND_A_LABEL.fullmatch(word) and (word[0] not in "aeiou" or sounds_like_consonant)


# "1. c", "1. 回答: c", "A: c": the question's number, and the "A" of "Q: …" that stands for answer.
_NUMBERING = re.compile(
    rf"""(?:(?<![^\s(:])[{DIGITS}][ ]*[.):、]?|^[ (]*\ue000:)[ ]*
        (?=[{LETTERS}][^\w\n\ue000-\ue0ff]*$ | (?:最終)?(?:回答|解答|答え|正解|正答|結論)[)]?[:は]
          | (?:the[ ]|final[ ]|correct[ ]){{0,3}}answer\b)""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
# "回答: 第5条の届出書（c）": the label comes before the text.
_LABEL_LAST = re.compile(
    rf"""((?:回答|解答|答え|正解|answer)[^\n:(]{{0,12}}(?:\([^()\n]{{0,30}}\))?[ ]*:)
        (?![ ]*(?:option|choice|letter|選択肢|肢)[ ]*\()([^\n:()]{{2,120}})(\(+(?:選択肢)?{_NAME}\)+)[ ]*[。.]?$""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
# A reply that is nothing but "第5条の届出書（c）".
_LABEL_AFTER_TEXT = re.compile(rf"\A\s*([^\n:()]{{1,120}}[一-鿿ァ-ヺ](?<![条項号肢]))(\({_NAME}\))[ ]*[。.]?\s*\Z")


# "A: T, B: F": true and false; without a T the F is a label.
_TRUE = re.compile(r"(?<=[:=→|)-])[ ]*T(?=[ ]*(?:$|[,.;|(/-]))", re.MULTILINE)
_TRUE_FALSE = re.compile(r"(?:(?<=[:=→|)-])|(?<=[:=→|)-][ ]))[TF](?=[ ]*(?:$|[,.;|(/-]))", re.MULTILINE)


# Labels named together ------------------------------------------------------------------------------------------------

_JOINT_WORD = one_of(
    r"と や か も または 又は 若しくは もしくは あるいは 及び および 並びに ならびに and/or or and nor vs\.?"
)
_JOINT = rf"[ ()]*(?:{_JOINT_WORD}[ ]*[,、]?|[,、/・|&+;][ ]*{_JOINT_WORD}?)[ ()]*(?:(?:maybe|perhaps|possibly)[ ])?"
_RANGE = re.compile(rf"({ONE})[ ()]*(?:[-~…]|\.{{2,3}}|から|to|through|thru|ないし|乃至)[ ()]*({ONE})", re.IGNORECASE)
_SPACED = re.compile(rf"[{LETTERS}](?:[ ]+[{LETTERS}])+|[{DIGITS}](?:[ ]+[{DIGITS}])+")
_JOINED = re.compile("|".join(f"[{kind}](?:{_JOINT}[{kind}])+" for kind in (LETTERS, DIGITS)), re.IGNORECASE)
# "正解は c、a と b は誤り": a new clause begins behind the comma.
_NEW_CLAUSE = re.compile(
    rf"((?:(?<!選択肢)は|[:→]|\bis)[ (]*{ONE}[ )]*)[,、;](?=[ ]*{ONE}(?:{_JOINT}{ONE}){{0,9}}[ )]*(?:[はも]|is\b|are\b))",
    re.IGNORECASE,
)


def _group(text: str, count: int) -> str:
    def together(marks: str) -> str:
        distinct = dict.fromkeys(positions(marks))
        if set(distinct) >= set(range(count)):
            return LISTING
        written = dict.fromkeys(re.findall(ONE, marks))
        return marks[0] if len(distinct) == 1 else OPEN + "".join(written) + CLOSE

    def whole_range(match: re.Match[str]) -> str:
        first, last = positions(match[1] + match[2])
        if first == 0 and last == -1:
            return LISTING
        if not 0 <= first < last:
            return match[0]
        return together("".join(chr(_FIRST_LETTER + index) for index in range(first, last + 1)))

    text = _NEW_CLAUSE.sub(r"\1。", _RANGE.sub(whole_range, text))
    text = _SPACED.sub(lambda match: together(match[0]), text)
    return _JOINED.sub(lambda match: together("".join(re.findall(ONE, match[0]))), text)


# Labels named to be turned down ---------------------------------------------------------------------------------------

_BUT_ANOTHER = re.compile(
    rf"(?:{ANY}(?:だけ|のみ)?[ ]*で(?:は|も)?[、,]?[ ]*){{1,10}}なく(?:て)?[、,]?[ ]*|{ANY}[ ]*(?:じゃなくて?|というより)[、,]?[ ]*"
    rf"|\b(?:not|neither)[ ]+(?:the[ ]+)?{ANY}[ ]*,?[ ]*but(?:[ ]+rather)?\b"
    rf"|(?:,[ ]*(?:and[ ]+|but[ ]+)?not|[ ](?:rather[ ]+than|instead[ ]+of))[ ]+{ANY}",
    re.IGNORECASE,
)
_DENIED = re.compile(
    rf"""{ANY}(?=(?:だけ|のみ)?[ 、]*(?:で(?:は|も)?|じゃ)[ ]*(?:な[いか]|あり(?:ません|得)|ござ|あるまい)
        (?!か|ろうか|でしょうか|だろうか|のでは|のだろうか)  # 「aではないでしょうか」 means a
      | [ ]*(?:以外|を除|は除|ということ[はも]な|とは(?:言|い|限)))""",
    re.VERBOSE,
)
_DENIED_EN = re.compile(
    rf"""((?:\b(?:not|cannot|never|neither|nor|than|except(?:[ ]for)?|excluding|without|unlike|ruled?s?[ ]out
        |ruling[ ]out|eliminat\w{{1,4}})|n't)[ ]+(?:(?:be|the|either|both)[ ]+){{0,3}}){ANY}""",
    re.VERBOSE | re.IGNORECASE,
)
# What others might take for the answer.
_SUPPOSED_EN = re.compile(
    rf"""((?:\b(?:you|one)[ ](?:might|may|could|would)[ ](?:think|say|assume|believe|argue|claim|guess)
          |\b(?:some|someone|somebody|people|many|most[ ]people|students|others|it[ ]is[ ]tempting[ ]to)[ ]
          (?:(?:might|may|could|would)[ ])?(?:think|say|assume|believe|argue|claim|guess|answer|choose|pick|select))\b
        [^.\n{LETTERS}{DIGITS}{OPEN}]{{0,40}}){ANY}""",
    re.VERBOSE | re.IGNORECASE,
)


# "b以外はすべて誤り", "All options except b are wrong": a verdict on each choice.
_ALL_BUT = re.compile(
    rf"""(?P<one>{ONE})以外(?:の(?:選択肢|記述|肢|もの))?[はが、]{{1,2}}(?:すべて|全て|いずれも|みな|どれも)
        (?:(?P<right>正しい(?=[。、\n]|です|で、|$)|(?:適切|妥当|正確)(?=で(?:す|あ)|[。、\n]|$))
          |(?P<wrong>(?:誤り|間違い|不適切|不適当)(?=で(?:す|あ)|[。、\n]|$)|(?:誤って|間違って)(?=い(?:る|ます))))
      | \ball[ ](?:of[ ])?(?:the[ ])?(?:other[ ])?(?:options|choices|statements|answers)[ ]except(?:[ ]for)?[ ](?P<but>{ONE})[ ]are[ ]
        (?:(?P<true>correct|right|true|accurate)|(?P<false>incorrect|wrong|false|inaccurate))\b""",
    re.VERBOSE | re.IGNORECASE,
)


def _all_but(match: re.Match[str]) -> str:
    if match["one"]:
        said, other = (match["right"], "誤り") if match["right"] else (match["wrong"], "正しい")
        return f"{match['one']}は{other}。その他は{said}"
    said, other = (match["true"], "incorrect") if match["true"] else (match["false"], "correct")
    return f"{match['but']} is {other}. The others are {said}"


def _reject(text: str) -> str:
    text = _ALL_BUT.sub(_all_but, text)
    text = _DENIED.sub(REJECTED, _BUT_ANOTHER.sub("", text))
    return _SUPPOSED_EN.sub(rf"\1{REJECTED}", _DENIED_EN.sub(rf"\1{REJECTED}", text))


# Instructions and examples --------------------------------------------------------------------------------------------

_VERB = one_of(
    "答え 回答し 解答し 回答を? 解答を? 選[びん] 選択し 出力し 記入し 記載し 記述し 入力し 示し 書[いき] 述べ 返し 従[いっ]"
)
_REQUEST = re.compile(
    rf"""{_VERB}[てで]?[ ]*{one_of("ください 下さい なさい くださ ほしい 欲しい いただ もらえ 願い")}
      | (?:答え|選択せ|回答せ|解答せ)よ | 選べ | (?:(?:回答|解答|選択|出力|記入|入力)を?する|答える|選ぶ|書く)こと(?=[。\n(]|$)""",
    re.VERBOSE,
)
_VERB_EN = one_of(
    "answer respond reply output choose select pick write provide give return enter indicate end conclude think use",
    "state",
)
_OBJECT_EN = one_of(
    "with only one the an by using from among your just in me back step exactly as between",
    "a_(?:single|letter|one|word|number|short|brief|choice|option|line)",
)
_REQUEST_EN = re.compile(
    rf"""(?:^|(?<=[.。!?)]))[ ('"]*(?:(?:please|now|then|finally|and)[ ,]+){{0,3}}
        {_VERB_EN}[ ]{_OBJECT_EN}\b[^.:\n]*[.: ]*""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_SENTENCE = re.compile(r"[^。\n]+[。\n]*")
_EXAMPLE = re.compile(
    rf"""((?:(?<![一-鿿ァ-ヺ])例えば?|(?<![一-鿿ァ-ヺ])例(?=[ ]*[:は)\d]|[ ]+)|たとえば|(?:回答|解答|出力|記入|入力|記載)例
        |\b(?:for[ ]example|example|e\.?g\.?))[^\n。{LETTERS}{DIGITS}{OPEN}]{{0,16}}(?:(?<=[:)])\n+)?[ ]*){ANY}""",
    re.VERBOSE | re.IGNORECASE,
)


def has_request(text: str) -> bool:
    """Whether a folded text repeats what it was asked to do."""
    return bool(_REQUEST.search(text) or _REQUEST_EN.search(text))


def _without_instructions(text: str) -> str:
    """Without what the reply was asked to do; what follows a request begins a new line."""

    def sentence(match: re.Match[str]) -> str:
        ends = [request.end() for request in _REQUEST.finditer(match[0])]
        return "\n" + match[0][ends[-1] :].lstrip(" :。.,、") if ends else match[0]

    return _REQUEST_EN.sub("\n", _SENTENCE.sub(sentence, text))
