"""Which language a text is in, as far as its script and its commonest words tell."""

import re
from collections import Counter

from slimtune.data.prose import without_code

# Characters that are looked at: a language shows in the beginning of a text.
SAMPLE = 2000
MIN_LETTERS = 20
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
_JAPANESE, _CHINESE, LATIN = "Japanese", "Chinese (no kana)", "Latin script"
# Words that make up a quarter of a text in their language and are rare in the others.
_WORDS = {
    "English": "the of and to is was are for that with what which how this you it from have be by your",
    "German": "der die das und ist nicht ein eine mit von den dem zu auf für was wie sich sie ich auch wird",
    "French": "le les des et est une du que pour dans pas sur qui avec au ce vous il je quelle quel aux",
    "Spanish": "el los las y es que en una por con para del qué cómo su cuál más como se lo está al",
    "Italian": "il di che è un della per non sono con una gli dei nel qual cosa come si alla anche",
    "Portuguese": "o os as e é que um uma não para com do da em no na qual como mais por dos ao",
    "Dutch": "het een van en is dat niet de voor met zijn op wat hoe er aan ook als je wordt",
}
IN_LATIN = frozenset(_WORDS)
"""What `spoken` tells apart in Latin script."""
_LANGUAGES_OF: dict[str, list[str]] = {}
for _name, _listed in _WORDS.items():
    for _word in _listed.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_name)
_LATIN_WORD = re.compile("[a-z\u00df-\u00f6\u00f8-\u024f]+")
# So many of them, and so many more than of any other language, leave no doubt.
_MIN_WORDS, _TIMES = 3, 1.5
# A kana or a han character says about as much as three letters.
_IDEOGRAPH_WEIGHT = 3


def language(text: str) -> str | None:
    """ "Japanese", "Chinese (no kana)", "Latin script" or a further script; None for too few letters or no clear one.

    Code and addresses do not count. Chinese needs more than 20 characters, as shorter Japanese may lack kana.
    """
    text = without_code(text[:SAMPLE])
    if "://" in text:
        text = _ADDRESSES.sub(" ", text)
    kana, han = _count("kana", text), _count("han", text)
    weights = {LATIN: _count("latin", text)}
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


def spoken(text: str) -> str | None:
    """As `language`, with "English", "German", … where the words of a text in Latin script leave no doubt."""
    name = language(text)
    if name != LATIN:
        return name
    words = _LATIN_WORD.findall(without_code(text[:SAMPLE]).lower())
    counts = Counter(one for word in words for one in _LANGUAGES_OF.get(word, ()))
    (first, most), (_, next_most) = (*counts.most_common(2), ("", 0), ("", 0))[:2]
    return first if most >= _MIN_WORDS and most >= _TIMES * next_most else name


def _count(script: str, text: str) -> int:
    return sum(map(len, _SCRIPTS[script].findall(text)))
