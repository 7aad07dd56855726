"""Qwen's real tokenizer where no model can be downloaded: from the file of ranks that other software ships.

`qwen.tiktoken` has a line for each of the 151,643 ordinary tokens, its bytes in base64 and its rank; the wheel of
`dashscope` on PyPI holds it (dashscope/resources). The vocabulary is that of Qwen, Qwen2, Qwen2.5 and Qwen3.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.builtin import tokenizer as builtin_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def read(path: Path) -> Tokenizer:
    """A tokenizer with these tokens and, after them, Qwen3's control tokens; everything else as in Qwen3's own."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    # Byte-level BPE writes each byte as a printable character.
    letters = _letters()
    written = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges: list[tuple[str, str]] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            left, right = parts(token, ranks)
            merges.append((written[left], written[right]))
    tokenizer = Tokenizer(models.BPE({written[token]: rank for token, rank in ranks.items()}, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(builtin_tokenizer.SPLIT_EXPRESSION), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in builtin_tokenizer.SPECIAL_TOKENS]
    )
    tokenizer.add_tokens(
        [AddedToken(token, special=False, normalized=False) for token in builtin_tokenizer.MARKUP_TOKENS]
    )
    return tokenizer


def parts(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens whose merge gives this one: what is left of its bytes after all merges of lower ranks."""
    pieces = [bytes([byte]) for byte in token]
    while len(pieces) > 2:
        joined = [ranks.get(left + right, len(ranks)) for left, right in itertools.pairwise(pieces)]
        place = joined.index(min(joined))
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    return pieces[0], pieces[1]


def _letters() -> dict[int, str]:
    """GPT-2's characters for bytes: those that print stand for themselves, the others follow from U+0100."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}
