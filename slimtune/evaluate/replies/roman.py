"""Choices that are numbered I, II, III …: their numerals are read as ア, イ, ウ, which no word contains. No torch."""

import re
from collections.abc import Sequence

from slimtune.evaluate.replies.answer_marks import KANA

_NUMERALS = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
_SIGNS = {first + place: place for first in (0x2160, 0x2170) for place in range(len(_NUMERALS))}  # Ⅰ ⅰ
_WIDE = str.maketrans("ＩＶＸｉｖｘ", "IVXivx")
# Not the pronoun: "I think", "I'd say".
_NUMERAL = re.compile(
    r"(?<![A-Za-z0-9])(?:viii|vii|vi|v|iv|ix|iii|ii|x|i(?!'|[ ]+(?!(?:is|and|or|because|since)\b)[a-z]{2}))(?![A-Za-z0-9])",
    re.IGNORECASE,
)


def place(name: str) -> int | None:
    """0 for "I", "i" and "Ⅰ", up to the tenth; None for any other text."""
    plain = name.translate(_WIDE).strip().lower()
    if len(plain) == 1 and ord(plain) in _SIGNS:
        return _SIGNS[ord(plain)]
    return _NUMERALS.index(plain) if plain in _NUMERALS else None


def are_numerals(names: Sequence[object]) -> bool:
    """Whether labels are the Roman numerals from one on, in order."""
    return len(names) > 1 and all(isinstance(name, str) and place(name) == index for index, name in enumerate(names))


def with_kana(text: str) -> str:
    """The text with each Roman numeral from one to ten as the kana of that place."""
    text = text.translate(_WIDE | {code: KANA[index] for code, index in _SIGNS.items()})
    return _NUMERAL.sub(lambda match: KANA[place(match[0]) or 0], text)
