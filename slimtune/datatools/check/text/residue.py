"""What templates, web pages, wrong encodings and copy-and-paste leave behind in a text."""

from __future__ import annotations

import re

from slimtune.core.findings import Finding
from slimtune.datatools.check.text.prose import without_code
from slimtune.models import families

_INVISIBLE = "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f"
# Nearly every text has none of these characters, and then nothing else is searched.
_TRIGGER = re.compile(rf"[<{{\[#&\ufffd縺繧繝ÃÂâã{_INVISIBLE}]")

# Marks of other models' templates; reading refuses <|…|>. One that is also an HTML tag counts only where the text begins
# or ends.
_FOREIGN = {token for family in families.rows() for token in family.control_tokens}
_FOREIGN -= {token for family in families.rows() if family.trains for token in family.control_tokens}
_AS_HTML = "|".join(sorted(token for token in _FOREIGN if re.fullmatch(r"</?[a-z]+>", token)))
_MARKS = "|".join(sorted(re.escape(token) for token in _FOREIGN if not re.fullmatch(r"</?[a-z]+>|<\|.*\|>", token)))
_TEMPLATE = re.compile(
    rf"{_MARKS}|\A(?:{_AS_HTML})|(?:{_AS_HTML})\Z"
    r"|^\#{2,3} ?(?:Response|Instruction|Input) ?[:：]"
    r"|(?<![A-Za-z0-9_$\\{}])\{(?:input|instruction|question|answer|context|output|response|prompt|query|choices|passages?"
    r"|documents?)\}(?!\})"
    r"|(?<![A-Za-z0-9_\\^}])\{\{-? *[a-zA-Z_][\w.\[\]'\"|]* *-?\}\}|\{%-? *(?:if|for|set|else|end\w+|include|block)\b[^\n]*?%\}",
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
_HIDDEN_NAMES = {
    "\u00ad": "a soft hyphen",
    "\u200b": "a zero width space",
    "\u200c": "a zero width non-joiner",
    "\u200d": "a zero width joiner",
    "\ufeff": "a byte order mark",
}


def text_findings(text: str, part: str, where: str, *, about_html: bool = False) -> list[Finding]:
    """All of this module's findings about one text. part: its name in messages ("the prompt")."""
    found = boilerplate(text, part, where)
    if _TRIGGER.search(text):
        prose = without_code(text)
        found += template_residue(prose, part, where)
        if not about_html:
            found += html_residue(prose, part, where)
        found += mojibake(text, part, where)
        found += invisible_characters(text, part, where)
    return found


def boilerplate(text: str, part: str, where: str) -> list[Finding]:
    """Filler instead of a text: "lorem ipsum", "As an AI language model", a lone TODO."""
    lowered = text.lower()
    phrase = next((phrase for phrase in _PHRASES if phrase in lowered), None)
    if phrase and part.startswith("the output"):
        start = lowered.index(phrase)
        what = f"{part} holds the stock phrase {text[start : start + len(phrase)]!r}"
    elif phrase == "lorem ipsum":
        what = f"{part} holds the filler 'lorem ipsum'"
    elif len(text) < 12 and _ONLY_TODO.fullmatch(text):
        what = f"{part} is only {text.strip()!r}"
    else:
        return []
    return [Finding("warning", what, "write the text, or delete the row", where, "template-residue")]


def template_residue(prose: str, part: str, where: str) -> list[Finding]:
    """Marks of another chat template, and placeholders that were never filled."""
    match = _TEMPLATE.search(prose)
    if not match:
        return []
    what = f"{part} holds a piece of a template: {match.group()[:40]!r}"
    return [Finding("warning", what, "fill the placeholder, or remove the mark", where, "template-residue")]


def html_residue(prose: str, part: str, where: str) -> list[Finding]:
    """Entities and layout tags in prose. The caller leaves out rows that are about HTML."""
    match = _HTML.search(prose)
    if not match:
        return []
    what = f"{part} holds HTML: {match.group()[:40]!r}"
    return [Finding("warning", what, "convert it to plain text", where, "html-residue")]


def mojibake(text: str, part: str, where: str) -> list[Finding]:
    """U+FFFD, and UTF-8 that was read in another encoding."""
    match = _MOJIBAKE.search(text)
    if not match:
        return []
    shown = "the replacement character U+FFFD" if "\ufffd" in match.group() else repr(match.group())
    what = f"{part} holds characters of a wrong encoding: {shown}"
    return [Finding("warning", what, "read the source in its own encoding, and build the row anew", where, "mojibake")]


def invisible_characters(text: str, part: str, where: str) -> list[Finding]:
    """Characters that nobody sees and the tokenizer does; joiners within emoji are none of them."""
    match = _HIDDEN.search(text)
    if not match and not _JOINING_SCRIPTS.search(text):
        match = _HIDDEN_MARKS.search(text)
    # The flags of England, Scotland and Wales are spelt with tag characters.
    if not match and "\U0001f3f4" not in text:
        match = _HIDDEN_TAGS.search(text)
    if not match:
        return []
    character = match.group()[0]
    name = _HIDDEN_NAMES.get(character, "an invisible character")
    what = f"{part} holds {name} (U+{ord(character):04X})"
    return [Finding("warning", what, "remove it", where, "invisible-characters")]
