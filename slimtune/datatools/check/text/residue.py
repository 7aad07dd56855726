"""What templates, web pages, wrong encodings and copy-and-paste leave behind in a text."""

import re
import unicodedata
from collections.abc import Iterator

from slimtune.core.findings import Finding
from slimtune.data.prose import without_code
from slimtune.models import families

_INVISIBLE = "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f"
# Nearly every text has none of these characters, and then nothing else is searched.
_TRIGGER = re.compile(rf"[<{{\[#&\ufffd縺繧繝ÃÂâã{_INVISIBLE}]")

# Marks of other models' templates; reading refuses those of the model. One that is also an HTML tag counts only where the
# text begins or ends.
_FOREIGN = {token for family in families.rows() for token in family.control_tokens}
_FOREIGN -= {token for family in families.rows() if family.trains for token in family.control_tokens}
_AS_HTML = "|".join(sorted(token for token in _FOREIGN if re.fullmatch(r"</?[a-z]+>", token)))
_MARKS = "|".join(sorted(re.escape(token) for token in _FOREIGN if not re.fullmatch(r"</?[a-z]+>|<\|.*\|>", token)))
_TEMPLATE = re.compile(
    rf"<\|[a-z][a-z0-9_]*\|>|{_MARKS}|\A(?:{_AS_HTML})|(?:{_AS_HTML})\Z"
    r"|^\#{2,3} ?(?:Response|Instruction|Input) ?[:：]"
    r"|(?<![A-Za-z0-9_$\\{}])\{(?:input|instruction|question|answer|context|output|response|prompt|query|choices|passages?"
    r"|documents?)\}(?!\})"
    r"|(?<![A-Za-z0-9_\\^}])\{\{-? *[a-zA-Z_][\w.\[\]'\"|]* *-?\}\}|\{%-? *(?:if|for|set|else|end\w+|include|block)\b[^\n]{0,300}?%\}",
    re.MULTILINE,
)
_PHRASES = ("lorem ipsum", "as an ai language model", "aiアシスタントとして", "ai言語モデルとして")
_ONLY_TODO = re.compile(r"\s*(?:TODO|FIXME|TBD|XXX)\s*[.:：。]?\s*")
_HTML = re.compile(
    r"&(?:amp|nbsp|lt|gt|quot|apos|#\d{2,6}|#x[0-9a-fA-F]{2,6});|<br */?>|</?(?:p|div|span|li|ul|ol|td|tr|table|font)(?: [^<>\n]*)?>"
)
# UTF-8 read as cp932: the first two bytes of a kana, E3 81 to E3 83, become 縺, 繧, 繝. The word 繧繝 is real.
# UTF-8 read as cp1252 or Latin-1: Ã© for é, â€™ for ’, ã\x81 for a kana.
_MOJIBAKE = re.compile(
    "\ufffd+|[縺繧繝][^縺繧繝\\s]{1,2}[縺繧繝].{0,4}|Ã[\u0080-\u00bf]|Â[\u00a0-\u00bf]|â€[\u0080-\u00bf™œ“”˜¦\u2013\u2014]?"
    "|â\u0080[\u0080-\u00bf]|ã[\u0081-\u0083][\u0080-\u00bf]"
)
_EMOJI = "\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
_JOINER = f"(?<![{_EMOJI}])\u200d|\u200d(?![{_EMOJI}])"
_HIDDEN = re.compile("[\u00ad\u200b\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_HIDDEN_MARKS = re.compile(f"[\u200c\u200e\u200f]|{_JOINER}")
_HIDDEN_TAGS = re.compile("[\U000e0000-\U000e007f]+")
# Hebrew, Arabic and the scripts of India are spelt with joiners and direction marks.
_JOINING_SCRIPTS = re.compile("[\u0590-\u08ff\u0900-\u0dff]")


def text_findings(text: str, part: str, where: str, *, about_html: bool = False) -> Iterator[Finding]:
    """Template marks, filler, HTML, wrong encodings and invisible characters in one text.

    part: its name in messages ("the prompt"). about_html: HTML in the text is meant.
    """

    def warning(what: str, fix: str, code: str) -> Finding:
        return Finding("warning", f"{part} {what}", fix, where, code)

    if filler := _filler(text, part):
        yield warning(filler, "write the text, or delete the row", "template-residue")
    if not _TRIGGER.search(text):
        return
    prose = without_code(text)
    if match := _TEMPLATE.search(prose):
        what = f"contains a piece of a template: {match.group()[:40]!r}"
        yield warning(what, "fill in the placeholder, or remove the mark", "template-residue")
    if not about_html and (match := _HTML.search(prose)):
        yield warning(f"contains HTML: {match.group()[:40]!r}", "convert it to plain text", "html-residue")
    if match := _MOJIBAKE.search(text):
        shown = "the replacement character U+FFFD" if "\ufffd" in match.group() else repr(match.group())
        fix = "read the source in its own encoding, and build the row again"
        yield warning(f"contains characters of a wrong encoding: {shown}", fix, "mojibake")
    if character := _invisible(text):
        name = "byte order mark" if character == "\ufeff" else unicodedata.name(character, "character").lower()
        yield warning(f"contains an invisible {name} (U+{ord(character):04X})", "remove it", "invisible-characters")


def _filler(text: str, part: str) -> str:
    """What stands instead of a text: "lorem ipsum", "As an AI language model", a lone TODO; "" for a real text."""
    lowered = text.lower()
    phrase = next((phrase for phrase in _PHRASES if phrase in lowered), None)
    if phrase and part.startswith("the output"):
        start = lowered.index(phrase)
        return f"contains the stock phrase {text[start : start + len(phrase)]!r}"
    if phrase == "lorem ipsum":
        return "contains the filler 'lorem ipsum'"
    return f"is only {text.strip()!r}" if len(text) < 12 and _ONLY_TODO.fullmatch(text) else ""


def _invisible(text: str) -> str:
    """The first character that nobody sees and the tokenizer does, or ""; joiners within emoji do not count."""
    match = _HIDDEN.search(text)
    if not match and not _JOINING_SCRIPTS.search(text):
        match = _HIDDEN_MARKS.search(text)
    # The flags of England, Scotland and Wales are spelt with tag characters.
    if not match and "\U0001f3f4" not in text:
        match = _HIDDEN_TAGS.search(text)
    return match.group()[0] if match else ""
