"""A raw reply as plain text: one width, no hidden reasoning, parted from what follows its answer. No torch."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from slimtune.data.text import normalised
from slimtune.models import families


def one_of(*words: str) -> str:
    """A group of alternatives, given with spaces between them; "_" stands for a space within one."""
    return f"(?:{'|'.join(' '.join(words).split())})".replace("_", r"\x20")


_CIRCLED = {
    chr(first + number): f"({number + 1})"
    for first in (0x2460, 0x2776, 0x2780, 0x278A, 0x24F5)  # ① ❶ ➀ ➊ ⓵
    for number in range(10)
} | {
    chr(first + number): f"({chr(ord('a') + number)})"
    for first in (0x1F150, 0x1F170)  # 🅐 🅰
    for number in range(10)
}
# Other compatibility characters stay: folded too, ² would be the label 2, ½ a list of two and Ⅰ the label i.
_FOLDED_KINDS = ("<wide>", "<narrow>", "<circle>", "<font>")
_PARENTHESISED = range(0x2474, 0x24B6)  # ⑴ ⒈ ⒜
_DASHES, _WAVES, _QUOTES = "‐‑‒–—―−", "〜∼", "“”„«»"
_LINE_ENDS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_KEYCAP = "\ufe0f\u20e3"


class _Folding(dict[int, str]):
    """For `str.translate`: each character is folded when it is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = folded = _fold(chr(code))
        return folded


def _fold(char: str) -> str:
    if char in _CIRCLED:
        return _CIRCLED[char]
    if char in _LINE_ENDS:
        return "\n"
    for kind, plain in ((_DASHES, "-"), (_WAVES, "~"), (_QUOTES, '"'), ("‘’", "'"), (_KEYCAP, "")):
        if char in kind:
            return plain
    category = unicodedata.category(char)
    # Private-use characters are what labels are written with later on.
    if category in ("Co", "Cs", "Zs"):
        return " "
    if category == "Cf":
        return ""
    kind = unicodedata.decomposition(char).partition(" ")[0]
    if kind == "<circle>":
        return f"({unicodedata.normalize('NFKC', char)})"
    if kind in _FOLDED_KINDS or ord(char) in _PARENTHESISED:
        return unicodedata.normalize("NFKC", char)
    return char


_FOLDING = _Folding()
_SPACES = re.compile(r"[ \t]+")
_BLANK_LINES = re.compile(r"\n[ \n]*\n")


def fold(text: str) -> str:
    r"""`text` with half-width letters, digits and marks, full-width katakana, ① as (1), "\n" and single spaces."""
    text = normalised(text.replace("\r\n", "\n").replace("\r", "\n").translate(_FOLDING))
    return _BLANK_LINES.sub("\n\n", _SPACES.sub(" ", text))


_REASONING_ENDS = re.compile(r"(?:.*</(?:think(?:ing)?|thought|reasoning)>)", re.DOTALL | re.IGNORECASE)
_REASONING_STARTS = re.compile(r"<(?:think(?:ing)?|thought|reasoning)>", re.IGNORECASE)


def after_reasoning(text: str) -> tuple[str, bool]:
    """What follows the reasoning, which the prompt may have opened; and whether it was opened and never closed."""
    end = _REASONING_ENDS.match(text)
    visible = text[end.end() :] if end else text
    start = _REASONING_STARTS.search(visible)
    return (visible[: start.start()], True) if start else (visible, False)


_ERROR = re.compile(
    r"[^\w{]*+"
    + one_of(
        # Error: …, error code 3, RuntimeError: …, Traceback, An error occurred
        r"error[^\w\n]*(?:$|[:(\[\]-]|\d|code|occurred|\w+error) [\w.]*(?:error|exception)_?: exception[^\w\n]*$",
        "error_(?:generating|processing|during|while|calling|loading|running|from|connecting|fetching)",
        r"an?_(?:\w+_){0,2}error_(?:has_)?occurred (?:\w+_?)?api_?error traceback_\(most_recent",
        # HTTP
        r"(?:http[_/\d.]*)?[45]\d\d[_:]+(?:error|client|server|bad|internal|too|service|unauth|forbid|not)",
        r"(?:request_failed_with_)?(?:status|http)_(?:code[_:]*)?[45]\d\d internal_server_error bad_gateway",
        r"service_(?:temporarily_)?unavailable gateway_time-?out too_many_requests quota_exceeded unauthori[sz]ed\s*$",
        r"(?:the_)?rate[_-]limit(?:_(?:exceeded|reached|error|hit)|[^\w\n]*$|ed) invalid_api_key",
        # Connections, memory, models
        r"connection_(?:was_)?(?:refused|reset|error|timed|aborted|closed|failed) (?:read|request)_time",
        r"time(?:d_?-?)?out\b max_retries ssl[_:]",
        r"(?:could_not|cannot|failed_to)_connect failed_to_(?:generate|load|fetch|get)",
        r"(?:torch\.)?(?:cuda|cublas|cudnn)_?(?:\.?outofmemory|error|out_of_memory|runtime) (?:gpu_)?out_of_memory",
        r"oom\b segmentation_fault killed\s*$ model_\S+_(?:was_)?not_found",
        # 日本語
        r"\w{0,12}エラー(?:が(?:発生|起)|になり|コード|[^\w\n]*(?:$|:|\d)) \w{0,12}例外(?:が発生|_*:)",
        r"接続(?:できません|に失敗|が(?:拒否|切断|タイムアウト)) \w{0,8}タイムアウト(?:しました|$|_*:) \w{0,8}メモリが?(?:不足|足り)",
        r"\w{0,8}(?:生成|推論|取得|読み込み|通信)に失敗 レート制限 リクエスト(?:が多すぎ|の上限|制限) サーバーが?(?:応答|混雑)",
    ),
    re.IGNORECASE | re.MULTILINE,
)
_ERROR_FIELD = re.compile(
    r"""\s*\{[^{}\[\]]{0,200}?["'](?:error|errors|exception)["']\s*:(?!\s*(?:null|none|false|""|''|\[\s*\]|\{\s*\}))""",
    re.IGNORECASE,
)


def is_error(text: str) -> bool:
    """Whether a folded reply is a program's error message instead of a model's words: it begins like one."""
    return bool(_ERROR.match(text) or _ERROR_FIELD.match(text))


def _turn_marks() -> tuple[str, str, str]:
    """What ends an answer, opens a question, and opens an answer in the chat templates of all families, as expressions."""
    ends, asks, replies = set[str](), set[str](), set[str]()
    for family in families.rows():
        if family.marks:
            ask, reply, end = map(re.escape, family.marks)
            ends, asks, replies = ends | {end}, asks | {ask}, replies | {reply}
        if family.turns:
            turns = family.turns
            before, between = re.escape(turns.before) + "[ ]*", re.escape(turns.between.strip())
            ends |= {re.escape(turns.after.strip()), re.escape(turns.stops[-1])}
            asks.add(f"{before}(?:user|system|human){between}")
            replies.add(f"{before}{turns.assistant}{between}")
    return "|".join(sorted(ends)), "|".join(sorted(asks)), "|".join(sorted(replies))


_ENDS, _ASKS, _REPLIES = _turn_marks()
# What a reply may go on with after its answer. Behind `hard` surely stands something else than the answer to what was
# asked: the next question of a list, the user's turn. `soft` may also be the question said again before it is answered,
# and behind `turn` a reply begins.
_BOUNDARY = re.compile(
    rf"(?P<hard>{_ENDS}|{_ASKS}"
    r"""| ^[^\w\n]*(?:instruction|指示)s?[*_ ]*:
        | ^[^\w\n]*(?:user|human|ユーザー?)[*_ ]*(?::|$)
        | ^\#+[ ]*(?:instruction|input|user|human|指示|入力)s?\b[^\n]*
        | ^[^\w\n]*(?:次の|別の|他の|新しい)(?:問題?|質問|設問)[^\w\n]*(?:$|:)
        | ^[^\w\n]*new[ ](?:question|problem)[^\w\n]*(?:$|:)
        | ^[^\n]{0,40}(?:another|next)[ ](?:question|problem)
        | ^[^\w\n]*(?:(?:次に|続いて|では|それでは)[、, ]*)?(?:(?:(?:練習|例)?問題?|例題|設問|質問|question|problem|exercise)[ ]*(?:no\.?|第)?|q)[ ]*
          (?:[2-9]|[1-9]\d+|\((?:[2-9]|[1-9]\d+)\))(?![\d年月日条項号])
        | ^[^\w\n]*第[ ]*(?:[2-9]|[1-9]\d+)[ ]*問
    )|(?P<turn>"""
    rf"{_REPLIES}"
    r"""| ^[^\w\n]*(?:assistant|ai|bot|アシスタント)[*_ ]*(?::|$) | ^\#+[ ]*(?:response|output|assistant)[^\w\n]*$
        | ^[^\n]*(?:選べ|選びなさい|答えよ|答えなさい)[。.?!]*[ ]*$
    )|(?P<soft>
        ^[^\w\n]*(?:問題文?|設問|質問|問|question|problem|q|参照条文|練習問題|例題)[ ]*(?:1|\(1\))?[*_ ]*
          (?:[\])】」』>:][^\w\n]*+(?![a-jア-コ\d]{1,2}[^\w\n]*$)|[.][ ]|$)
        | ^[^\w\n]*(?:選択肢|options|choices)[^\w\n]*$
        | ^[^\n]*(?:問題|質問|設問)に(?:答え|回答|解答)[^\n]*$
        | ^[^\n]*(?:どれか|どれですか|どちらか)[。.?!]*[ ]*$
    )""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Part:
    """fresh: a reply begins here, rather than the text of a question; the first line of that says nothing."""

    text: str
    fresh: bool


def parts(text: str) -> Iterator[Part]:
    """The parts of a folded reply in which its answer may stand, in order. A reader stops at the first with an answer.

    Nothing after a hard boundary is yielded, unless the reply begins with one and so repeats its whole prompt.
    """
    start, fresh, repeats_prompt = 0, True, False
    for boundary in _BOUNDARY.finditer(text):
        part = Part(text[start : boundary.start()], fresh)
        repeats_prompt = repeats_prompt or (start == 0 and not part.text.strip())
        yield part
        if boundary["hard"] is not None and not repeats_prompt:
            return
        start, fresh = boundary.end(), boundary["turn"] is not None
    yield Part(text[start:], fresh)
