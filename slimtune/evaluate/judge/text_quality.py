"""How close a free reply is to its reference: exact match and chrF, one reply at a time. No torch."""

from __future__ import annotations

import unicodedata
from typing import Any


def compare(text: str, reference: str) -> dict[str, Any]:
    """{"exact", "chrf"}: whether the two are equal but for width and white space, and sacrebleu's sentence chrF, 0 to 100.

    Source: M. Popović, chrF: character n-gram F-score for automatic MT evaluation, WMT 2015.
    """
    from sacrebleu.metrics import CHRF

    return {
        "exact": _plain(text) == _plain(reference),
        "chrf": round(CHRF().sentence_score(text, [reference]).score, 4),
    }


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
