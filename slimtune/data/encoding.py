"""Bytes to text: UTF-8, with or without a BOM, any line ending; anything else is named and refused.

Guessing an encoding and going on would put mojibake into a training set unseen, so the guess only serves the message.
"""

import contextlib
import re
import shlex
from pathlib import Path

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.file_kinds import recognised

_BYTE_ORDER_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
# The escape to its first double-byte set. This 7-bit text is UTF-8 only in appearance.
_ISO_2022_JP = b"\x1b$"
# What no text holds.
_CONTROLS = bytes(code for code in range(32) if chr(code) not in "\t\n\f\r\x1b")
# Hiragana and full-width katakana: Japanese in the wrong encoding has next to none of them, and Chinese none.
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")
_LEAST_KANA = 0.2
# What western text does not have: four letters beyond ASCII in a row, as every word of a Cyrillic file has them, or
# signs among which no letter of a western language is.
_NOT_WESTERN = re.compile("[\u0080-\U0010ffff]{4}|[\x80-\x9f¤¦¨¬¯¸¹²³¼½¾×÷ÞðþÐ]")
_SOME_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}")
_CONVERTIBLE = ("cp932", "euc-jp", "iso-2022-jp", "utf-16", "utf-32")


MOST_BYTES = 2 * 2**30
"""Of a file that is read whole."""


def read(path: str, problems: list[Problem]) -> tuple[str, frozenset[int]]:
    """The text of a file, as `decode` gives it; "" where it cannot be read, with the reason in `problems`."""
    try:
        data = inputs.read_bytes(Path(path), most=MOST_BYTES)
    except SlimtuneError as error:
        problems += error.problems
        return "", frozenset()
    return decode(data, path, problems)


def decode(data: bytes, path: str, problems: list[Problem]) -> tuple[str, frozenset[int]]:
    r"""The text of a file with "\n" as line end and without a BOM, and the 1-based numbers of lines that are not UTF-8.

    Bad bytes in a good file are one problem per line (U+FFFD in the text), so that the other lines can still be
    checked. A file in another encoding is one problem, and its text is "".
    """
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            problems.append(_wrong_file(path, 1, 1, data[0], encoding))
            return "", frozenset()
    what, fix = recognised(data[:512])
    if what:
        problems.append(Problem(f"this is {what}", path, fix))
        return "", frozenset()
    head = data[:200]
    even, odd = head[::2].count(0), head[1::2].count(0)
    # Two bytes a character: of ASCII text one half of them is zero.
    if even + odd > len(head) // 5 and max(even, odd) > 4 * min(even, odd):
        problems.append(_wrong_file(path, 1, data.index(0) + 1, 0, "utf-16"))
        return "", frozenset()
    if even + odd and len(head.translate(None, _CONTROLS)) < len(head) - 4:
        problems.append(Problem("the file holds binary data, not text", path, "name the file that you meant"))
        return "", frozenset()

    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if _ISO_2022_JP not in data:
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode("utf-8"), frozenset()

    # A byte below 0x80 is never part of a longer UTF-8 character, so splitting before decoding is safe.
    lines = data.split(b"\n")
    texts: list[str] = []
    bad: dict[int, int] = {}
    sound_japanese = False
    for number, line in enumerate(lines, start=1):
        try:
            texts.append(line.decode("utf-8"))
            bad_byte = line.find(_ISO_2022_JP)
            sound_japanese = sound_japanese or not line.isascii()
        except UnicodeDecodeError as error:
            texts.append(line.decode("utf-8", errors="replace"))
            bad_byte = error.start
        if bad_byte >= 0:
            bad[number] = bad_byte

    if bad and not sound_japanese:
        number, byte = next(iter(bad.items()))
        problems.append(_wrong_file(path, number, byte + 1, lines[number - 1][byte], _looks_like(data)))
        return "", frozenset()
    for number, byte in bad.items():
        line = lines[number - 1]
        what = f"not UTF-8 at byte {byte + 1} of the line (0x{line[byte]:02x}); {_described(_looks_like(line))}"
        fix = "the rest of the file is UTF-8: write this line again as UTF-8"
        problems.append(Problem(what, f"{path}:{number}", fix))
    return "\n".join(texts), frozenset(bad)


def certain(data: bytes) -> tuple[str, str] | None:
    r"""The encoding of a file that is not UTF-8 and its text with "\n" as line end, where both are beyond doubt.

    That is a byte order mark, Japanese with kana in the only encoding in which it has full-width ones, or western text
    whose few letters beyond ASCII stand alone. None for anything else, a damaged file among it.
    """
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return _as_text(data, encoding)
    if recognised(data[:512])[0] or b"\0" in data:
        return None
    if _ISO_2022_JP in data:
        return _as_text(data, "iso-2022-jp")
    if _looks_like(data) == "damaged":
        return None
    found = [one for name in ("cp932", "euc-jp") if (one := _as_text(data, name))]
    kana = {name: len(_KANA.findall(text)) for name, text in found}
    best = max(found, key=lambda one: kana[one[0]], default=None)
    if best and kana[best[0]] >= _LEAST_KANA * sum(not character.isascii() for character in best[1]):
        return best
    western = None if _SOME_UTF8.search(data) else _as_text(data, "cp1252")
    return western if western and not _NOT_WESTERN.search(western[1]) else None


def _as_text(data: bytes, encoding: str) -> tuple[str, str] | None:
    with contextlib.suppress(UnicodeDecodeError):
        return encoding, data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    return None


def _wrong_file(path: str, line: int, byte: int, value: int, encoding: str) -> Problem:
    what = f"the file is not UTF-8: byte {byte} of line {line} is 0x{value:02x}; {_described(encoding)}"
    fix = "save the file as UTF-8"
    if encoding in _CONVERTIBLE:
        fix = f"convert it: iconv -f {encoding.upper()} -t UTF-8 {shlex.quote(path)} > {shlex.quote(f'{path}.utf8')}"
    return Problem(what, f"{path}:{line}", fix)


def _described(encoding: str) -> str:
    if encoding == "damaged":
        return "it looks like UTF-8 with damaged characters"
    return f"it looks like {encoding}" if encoding else "it fits neither cp932 nor euc-jp nor utf-16"


def _looks_like(data: bytes) -> str:
    """The likely encoding of bytes that are not UTF-8: "cp932", "euc-jp", "iso-2022-jp", "damaged" UTF-8, or ""."""
    if _ISO_2022_JP in data:
        return "iso-2022-jp"
    as_utf8 = data.decode("utf-8", errors="replace")
    lost = as_utf8.count("\ufffd")
    if sum(not char.isascii() for char in as_utf8) - lost > 2 * lost:
        return "damaged"
    # EUC-JP does not have 0x82 and 0x83, with which kana begin in cp932. But EUC-JP is often valid cp932 (as half-width
    # katakana). Hence this order.
    for encoding in ("euc-jp", "cp932"):
        with contextlib.suppress(UnicodeDecodeError):
            data.decode(encoding)
            return encoding
    return ""
