"""Text to the terms that BM25 counts: character n-grams, or the words of the Sudachi analyser."""

import importlib.metadata
import importlib.util
import itertools
import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from slimtune.core.errors import fail
from slimtune.data.text import normalised

TermKind = Literal["ngram", "sudachi"]
Terms = Callable[[str], list[str]]

# Kana, ideographs with their extensions, and the signs 々 〆 〇 that stand for ideographs.
_JAPANESE = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUN = re.compile(rf"(?P<japanese>[{_JAPANESE}]+)|(?:(?![{_JAPANESE}])\w)+")
_DICTIONARIES = ("core", "small", "full")
# Sudachi refuses more than 49,149 bytes at once; a character has at most 4.
_MOST_CHARACTERS = 10_000
_NO_WORDS = ("補助記号", "空白", "記号")


def terms_of(kind: TermKind) -> Terms:
    """The function that splits a text. Raises `SlimtuneError` if the kind is unknown or its packages are missing."""
    if kind == "ngram":
        return ngrams
    if kind == "sudachi":
        return _sudachi_words()
    raise fail(f"there are no terms of the kind {kind!r}", fix="choose 'ngram' or 'sudachi'")


def version_of(kind: TermKind) -> str:
    """Changes whenever the terms may: the versions of the packages that make them."""
    if kind == "ngram":
        return f"ngram, Unicode {unicodedata.unidata_version}"
    names = ("sudachipy", f"sudachidict-{_dictionary()}")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def ngrams(text: str) -> list[str]:
    """All pairs of neighbouring characters in Japanese script (or a single one by itself), and other words whole.

    The text is taken in NFKC and case-folded; punctuation and spaces separate: 第5条の規定 gives 第, 5, 条の, の規, 規定.
    """
    found: list[str] = []
    for run in _RUN.finditer(normalised(text, "NFKC").casefold()):
        pairs = [first + second for first, second in itertools.pairwise(run["japanese"] or "")]
        found += pairs or [run[0]]
    return found


def _sudachi_words() -> Terms:
    dictionary = _dictionary()
    import sudachipy

    tokenizer = sudachipy.Dictionary(dict=dictionary).create(mode=sudachipy.SplitMode.A)

    def words(text: str) -> list[str]:
        return [
            word.normalized_form().casefold()
            for line in normalised(text, "NFKC").splitlines()
            for start in range(0, len(line), _MOST_CHARACTERS)
            for word in tokenizer.tokenize(line[start : start + _MOST_CHARACTERS])
            if word.part_of_speech()[0] not in _NO_WORDS
        ]

    return words


def _dictionary() -> str:
    if importlib.util.find_spec("sudachipy"):
        for name in _DICTIONARIES:
            if importlib.util.find_spec(f"sudachidict_{name}"):
                return name
    raise fail(
        "terms of the kind 'sudachi' need the Sudachi analyser and a dictionary",
        fix="install them: pip install sudachipy sudachidict-core",
    )
