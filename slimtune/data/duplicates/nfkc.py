"""Unicode's compatibility form, several times as fast for Japanese as `unicodedata` has it. No torch."""

import re
import unicodedata

# Characters that this form leaves as they are, whatever stands beside them, marks apart: ASCII, kana, the usual
# punctuation and Chinese characters, that is nearly all of a Japanese text.
STABLE = "\0-\x7f、。〈-】〔-〛ぁ-ゖァ-ヺー-ヾ一-鿿"
# What joins the character before it: accents, and the marks of が and ぱ, also of half width.
MARKS = "\u0300-\u036f\u3099\u309a\uff9e\uff9f"
_OTHERS, _MARKS = re.compile(f"[^{STABLE}]+"), re.compile(f"[{MARKS}]")


def normalised(text: str) -> str:
    """`unicodedata.normalize("NFKC", text)`: only the runs of characters that may change are looked at."""
    if _MARKS.search(text):
        return unicodedata.normalize("NFKC", text)
    return _OTHERS.sub(_run, text)


def _run(match: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", match.group())
