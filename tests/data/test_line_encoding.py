"""Cutting a text at its lines changes no token: every short text over the characters that matter, and many long ones."""

import functools
import itertools
import unicodedata
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.builtin import tokenizer as builtin_tokenizer
from slimtune.data import line_encoding
from slimtune.data.line_encoding import LineEncoder, lines, splits_at_lines

trained = functools.cache(builtin_tokenizer.train)


@pytest.fixture
def tokenizer():
    return trained()


def whole(tokenizer, texts):
    return [one.ids for one in tokenizer.encode_batch(texts, add_special_tokens=False)]


def by_lines(tokenizer, texts):
    return [array("i", ids).tolist() for ids in LineEncoder(tokenizer).encode(texts)]


def test_every_short_text(tokenizer):
    """Of letters, digits, signs, quotes before letters, spaces and both line breaks, around at least one line break."""
    texts = ["".join(letters) for size in (2, 3, 4, 5) for letters in itertools.product("as1.' \n\rの", repeat=size)]
    texts = [text for text in texts if "\n" in text]
    assert len(texts) > 28_000
    assert by_lines(tokenizer, texts) == whole(tokenizer, texts)


def test_every_kind_of_character_after_a_line_break(tokenizer):
    """White space of all scripts, marks that combine, formats, signs: twice, before another line break and a letter."""
    kinds = {}
    for code in (*range(0xD800), *range(0xE000, 0x30000)):
        kinds.setdefault((unicodedata.category(chr(code)), chr(code).isspace()), []).append(chr(code))
    characters = [one for found in kinds.values() for one in (*found[:12], *found[-3:])]
    texts = [f"の。\n{one}{one}\n{one}の" for one in characters]
    assert by_lines(tokenizer, texts) == whole(tokenizer, texts)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.text(st.sampled_from("abの民。、 \t\n\r1's<|>\u3000\u0301\u3099\x1c\x85\u2028"), max_size=30)
        | st.sampled_from(["<|im_end|>\n", "<|im_start|>user\n", "</think>\n\n", "\n【選択肢】\n"]),
        max_size=8,
    ).map("".join)
)
def test_long_texts_with_control_tokens(text):
    assert by_lines(trained(), [text]) == whole(trained(), [text])
    assert "".join(lines(text)) == text


def test_a_line_is_encoded_once_and_forgotten_in_time(tokenizer, monkeypatch):
    monkeypatch.setattr(line_encoding, "_KEPT", 4)
    monkeypatch.setattr(line_encoding, "_WORTH_IT", 0)
    encoder, asked = LineEncoder(tokenizer), []
    encode = encoder._encode
    monkeypatch.setattr(encoder, "_encode", lambda texts: asked.append(list(texts)) or encode(texts))
    first = encoder.encode(["条文\n甲\n乙", "条文\n甲\n丙"])
    assert encoder.encode(["条文\n乙"]) and asked == [["条文\n", "甲\n", "乙", "丙"], []]
    encoder.encode(["丁"])
    assert encoder.encode(["条文\n甲\n乙"]) == first[:1]
    assert asked[2:] == [["丁"], ["条文\n", "甲\n", "乙"]]


def test_texts_that_share_no_lines_are_encoded_whole(tokenizer, monkeypatch):
    encoder, asked = LineEncoder(tokenizer), []
    encode = encoder._encode
    monkeypatch.setattr(encoder, "_encode", lambda texts: asked.append(list(texts)) or encode(texts))
    texts = ["甲は乙に返す。\n丙は丁に貸す。", "戊は己に売る。\n庚は辛に譲る。"]
    whole = encoder.encode(texts)
    assert encoder.encode(texts) == whole
    assert asked == [texts, [line for text in texts for line in line_encoding.lines(text)]]


def test_another_split_expression_is_not_cut(tokenizer):
    from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

    def changed(**parts):
        other = Tokenizer.from_str(tokenizer.to_str())
        for name, part in parts.items():
            setattr(other, name, part)
        return other

    assert splits_at_lines(tokenizer)
    assert splits_at_lines(changed(normalizer=None))
    assert not splits_at_lines(changed(normalizer=normalizers.Strip()))
    assert not splits_at_lines(changed(pre_tokenizer=pre_tokenizers.ByteLevel()))
    split = pre_tokenizers.Split(Regex(r"[^a]+|a"), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    assert not splits_at_lines(changed(pre_tokenizer=pre_tokenizers.Sequence([split, level])))
    greedy = changed()
    greedy.add_tokens([AddedToken("<x>", rstrip=True)])
    assert not splits_at_lines(greedy)
    texts = ["一\n二", "<x>\n三"]
    assert by_lines(greedy, texts) == whole(greedy, texts)
