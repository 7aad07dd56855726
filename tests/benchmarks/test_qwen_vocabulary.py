"""From tiktoken's file of ranks to a tokenizer: shown on the built-in one, whose ranks are its ids."""

import base64

from benchmarks import qwen_vocabulary
from scripts.builtin import tokenizer as builtin_tokenizer

TEXT = "民法の規定によれば、正しいものはどれか。\na. 七日 A １ ｱ <|im_end|>\n</think> naïve 🙂"


def test_the_builtin_tokenizer_comes_back_from_its_ranks(tmp_path):
    own = builtin_tokenizer.train()
    bytes_of = {letter: byte for byte, letter in qwen_vocabulary._letters().items()}
    added = set(builtin_tokenizer.SPECIAL_TOKENS + builtin_tokenizer.MARKUP_TOKENS)
    ordinary = {token: rank for token, rank in own.get_vocab().items() if token not in added}
    lines = [
        base64.b64encode(bytes(bytes_of[letter] for letter in token)) + f" {rank}".encode()
        for token, rank in ordinary.items()
    ]
    (tmp_path / "ranks").write_bytes(b"\n".join(lines) + b"\n")

    made = qwen_vocabulary.read(tmp_path / "ranks")
    assert made.get_vocab() == own.get_vocab()
    assert made.encode(TEXT).ids == own.encode(TEXT).ids
    assert made.decode(made.encode(TEXT).ids, skip_special_tokens=False).endswith("</think> naïve 🙂")


def test_a_token_is_the_merge_of_what_lower_ranks_leave():
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"bc": 3, b"ab": 4, b"abc": 5}
    assert qwen_vocabulary.parts(b"abc", ranks) == (b"a", b"bc")
