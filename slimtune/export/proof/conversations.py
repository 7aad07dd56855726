"""Generated conversations to compare templates and tokenizers on: what people write, and what trips renderers."""

import random
import unicodedata
from collections.abc import Iterator

from slimtune.data.records import Message

_PIECES = (
    "賃貸人は、賃貸物の使用及び収益に必要な修繕をする義務を負う。", "次の選択肢から、正しいものを一つ選びなさい。", "「契約」とは何ですか？",
    "第５条　第１項", "a", "b. 甲は乙に対し、代金の支払を請求することができる。", "①②③ ㈱ Ⅳ", "ｶﾞｲﾄﾞﾗｲﾝ", "髙橋　𠮷野", "I don't know.", "It's 12,345.67 % of what we'd ask",
    "def f(x):\n    return {'a': [x, \"y\"]}\n", "<b>not a tag</b> & <think", "{{ .Content }} {% if x %} {# #}", "C:\\new\\table", "naïve café, Ärger, ñandú",
    "🦙🎉👨‍👩‍👧", "…—–“”‘’", "| a | b |\n|---|---|", "http://example.org/?q=1&r=%20", "\t\ttabs\t", "  two spaces  ", "\n\n\n", "x" * 70,
)  # fmt: skip
_BETWEEN = ("", " ", "\n", "\n\n", "　", "  ", "\t")


def generated(count: int, *, seed: int = 0) -> list[tuple[Message, ...]]:
    """The same `count` conversations for the same seed; the last turn is the user's.

    With and without a system prompt, one to four turns, Japanese, code, odd white space, other people's template
    syntax. NFC throughout, since Transformers composes text before it encodes it and llama.cpp does not.
    """
    draw = random.Random(seed)
    return [tuple(_conversation(draw)) for _ in range(count)]


def _conversation(draw: random.Random) -> Iterator[Message]:
    if draw.random() < 0.5:
        yield Message("system", _text(draw))
    for _ in range(draw.choice((0, 0, 1, 1, 2, 3))):
        yield Message("user", _text(draw))
        yield Message("assistant", _text(draw))
    yield Message("user", _text(draw))


def _text(draw: random.Random) -> str:
    """Never blank: nobody sends a turn without text."""
    while True:
        pieces = draw.choices(_PIECES, k=draw.randint(1, 5))
        text = "".join(piece + draw.choice(_BETWEEN) for piece in pieces)
        if text.strip():
            return unicodedata.normalize("NFC", text)
