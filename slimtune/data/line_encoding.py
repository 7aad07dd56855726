r"""Texts to token ids, line by line, each line once: statutes, instructions and choices stand in many prompts.

Texts that share few lines are encoded whole, since each call for a line costs as much as a dozen tokens.

Why a text may be cut at its lines: byte-level BPE merges bytes only within the pieces that Qwen's split expression
makes, and a piece ends wherever a line break is followed by something that is not white space. The only parts of the
expression that match a line break are `[\r\n]*` and `[\r\n]+`, at the end of an alternative; `\s+` stands behind them.
No alternative looks back. A control token has no line break in it, and NFC composes nothing with one.
"""

import json
import re
from array import array
from collections.abc import Sequence
from typing import Any

# The expression that a tokenizer of this kind splits text with: single digits, words with one leading symbol
# (transformers, models/qwen2/tokenization_qwen2.py).
SPLIT_EXPRESSION = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Python's white space holds all of Unicode's, and a few characters more.
_BETWEEN_LINES = re.compile(r"\n(?=\S)")
_KEPT = 50_000  # lines whose tokens are remembered, about 20 MB
_WORTH_IT = 0.4  # of the characters, in lines that were there before


class LineEncoder:
    """Encodes with a `tokenizers.Tokenizer`; where that does not split texts as Qwen's does, each text whole."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._by_lines = splits_at_lines(tokenizer)
        self._known: dict[str, bytes] = {}
        self._seen: set[str] = set()

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """The ids of each text, as `tokenizer.encode(text, add_special_tokens=False)` gives them, in 32 bits each.

        Works on all cores.
        """
        if not self._by_lines:
            return self._encode(texts)
        cut = [lines(text) for text in texts]
        if not self._worth_it(cut):
            return self._encode(texts)
        known = self._known
        if len(known) > _KEPT:
            known.clear()
        new = list(dict.fromkeys(line for text in cut for line in text if line not in known))
        known.update(zip(new, self._encode(new), strict=True))
        return [b"".join([known[line] for line in text]) for text in cut]

    def _worth_it(self, cut: Sequence[Sequence[str]]) -> bool:
        """Whether enough of these texts stood in them or in earlier ones before."""
        seen, every = self._seen, {line for text in cut for line in text}
        characters = sum(len(line) for text in cut for line in text)
        new = sum(map(len, every - seen))
        if len(seen) > _KEPT:
            seen.clear()
        seen |= every
        return characters - new >= _WORTH_IT * characters

    def _encode(self, texts: Sequence[str]) -> list[bytes]:
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [array("i", one.ids).tobytes() for one in encoded]


def lines(text: str) -> list[str]:
    """A text in parts that may be encoded apart, its line breaks at the end of theirs."""
    *begun, last = _BETWEEN_LINES.split(text)
    return [f"{line}\n" for line in begun] + [last]


def splits_at_lines(tokenizer: Any) -> bool:
    """Whether encoding a text's `lines` apart gives the same ids: for Qwen's split expression and byte-level BPE."""
    part = json.loads(tokenizer.pre_tokenizer.__getstate__()) if tokenizer.pre_tokenizer else {}
    split, *rest = part.get("pretokenizers") or [{}]
    normalizer = json.loads(tokenizer.normalizer.__getstate__()) if tokenizer.normalizer else {"type": "NFC"}
    added = tokenizer.get_added_tokens_decoder().values()
    return (
        split.get("pattern") == {"Regex": SPLIT_EXPRESSION}
        and split["behavior"] == "Isolated"
        and not split["invert"]
        and [one["type"] for one in rest] == ["ByteLevel"]
        and not (rest[0]["add_prefix_space"] or rest[0]["use_regex"])
        and normalizer == {"type": "NFC"}
        and not any(token.lstrip or token.rstrip or "\n" in token.content for token in added)
    )
