"""Which language a file's prompts and outputs are in, as far as their scripts tell."""

import re
from collections import Counter

from slimtune.core.findings import Finding
from slimtune.data.records import Conversation
from slimtune.datatools.check.text.prose import without_code

# Characters that are looked at: a language shows in the beginning of a text.
SAMPLE = 2000
MIN_LETTERS = 20
MIN_ROWS = 5
MOST = 0.8
CLEAR = 0.7

_SCRIPTS = {
    "kana": re.compile("[\u3041-\u309f\u30a1-\u30fa\u30fd-\u30ff\u31f0-\u31ff\uff66-\uff9d]+"),
    "han": re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff々]+"),
    "latin": re.compile("[A-Za-z\u00c0-\u024f]+"),
    "Korean": re.compile("[\uac00-\ud7a3\u1100-\u11ff]+"),
    "Cyrillic script": re.compile("[\u0400-\u052f]+"),
    "Arabic script": re.compile("[\u0600-\u06ff\u0750-\u077f]+"),
    "Devanagari": re.compile("[\u0900-\u097f]+"),
    "Thai": re.compile("[\u0e00-\u0e7f]+"),
    "Greek": re.compile("[\u0370-\u03ff]+"),
}
# Nearly every text has none of the scripts that are not looked for one by one then.
_FURTHER = tuple(name for name in _SCRIPTS if name not in ("kana", "han", "latin"))
_ANY_FURTHER = re.compile(f"[{''.join(_SCRIPTS[name].pattern.strip('[]+') for name in _FURTHER)}]")
_ADDRESSES = re.compile(r"https?://\S+")
_JAPANESE, _CHINESE, _LATIN = "Japanese", "Chinese (no kana)", "Latin script"
# A kana or a han character says about as much as three letters.
_IDEOGRAPH_WEIGHT = 3
# Rows that ask for another language are right to change it.
_OTHER_LANGUAGE_ASKED = re.compile(
    "訳|英語|英文|日本語|中国語|韓国語|ローマ字|漢字|translat|english|japanese|chinese|korean|russian|翻译|中文|번역",
    re.IGNORECASE,
)


def language(text: str) -> str | None:
    """ "Japanese", "Chinese (no kana)", "Latin script" or a further script; None for too few letters or no clear one.

    Code and addresses do not count. Chinese needs more than 20 characters, as shorter Japanese may lack kana.
    """
    text = without_code(text[:SAMPLE])
    if "://" in text:
        text = _ADDRESSES.sub(" ", text)
    kana, han = _count("kana", text), _count("han", text)
    weights = {_LATIN: _count("latin", text)}
    if _ANY_FURTHER.search(text):
        weights |= {name: _count(name, text) for name in _FURTHER}
    weights[_JAPANESE if kana else _CHINESE] = _IDEOGRAPH_WEIGHT * (kana + han)
    name = max(weights, key=lambda one: weights[one])
    # Japanese with half of its words in Latin letters is neither clearly one nor the other.
    if weights[name] <= MIN_LETTERS or weights[name] < CLEAR * sum(weights.values()):
        return None
    if name == _CHINESE and han <= MIN_LETTERS:
        return None
    return name


def _count(script: str, text: str) -> int:
    return sum(map(len, _SCRIPTS[script].findall(text)))


class Languages:
    """The languages of a file's rows, counted while they are read."""

    def __init__(self) -> None:
        self._prompts: Counter[str] = Counter()
        self._compared = 0
        self._different: list[tuple[str, str, str]] = []

    def add(self, conversation: Conversation) -> None:
        """Looks at the last prompt and the output of the row."""
        prompt, output = (message.content for message in conversation.messages[-2:])
        asked = language(prompt)
        if asked is None:
            return
        self._prompts[asked] += 1
        answered = language(output) if len(output) > MIN_LETTERS else None
        if answered is None or _OTHER_LANGUAGE_ASKED.search(prompt):
            return
        self._compared += 1
        if answered != asked:
            self._different.append((conversation.where, asked, answered))

    def findings(self, path: str) -> list[Finding]:
        """Rows answered in another language than asked, where most are not; and a note about prompts in several."""
        found: list[Finding] = []
        same = self._compared - len(self._different)
        if self._compared >= MIN_ROWS and same >= MOST * self._compared:
            for where, asked, answered in self._different:
                what = f"the prompt is in {asked}, the output in {answered}; most rows keep their language"
                fix = "write the output in the language of the prompt, or name the wanted language in the prompt"
                found.append(Finding("warning", what, fix, where, "language-differs"))
        if len(self._prompts) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in self._prompts.most_common())
            what = f"the prompts are in several languages ({counts} rows)"
            found.append(Finding("note", what, "fine if you meant it", path, "mixed-languages"))
        return found
