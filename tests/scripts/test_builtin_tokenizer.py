"""The built-in tokenizer behaves as Qwen's: any text round-trips, control tokens are single, files load everywhere."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.builtin import tokenizer
from scripts.builtin.world import ACTIVITIES


@pytest.fixture(scope="module")
def trained():
    return tokenizer.train()


@pytest.mark.slow
def test_training_is_deterministic(trained):
    assert tokenizer.train().to_str() == trained.to_str()


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs",))))
def test_any_text_round_trips_up_to_nfc(trained, text):
    import unicodedata

    normal = unicodedata.normalize("NFC", text)
    assert trained.decode(trained.encode(text).ids, skip_special_tokens=False) == normal


def test_qwens_control_tokens_are_single_ids_in_qwens_order(trained):
    ids = [trained.token_to_id(token) for token in (*tokenizer.SPECIAL_TOKENS, *tokenizer.MARKUP_TOKENS)]
    assert ids == list(range(ids[0], ids[0] + 26))
    for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>"):
        assert trained.encode(token).ids == [trained.token_to_id(token)]


def test_letters_and_activities_are_single_tokens(trained):
    for text in (*"abcdABCD", " a", " A", *ACTIVITIES):
        assert len(trained.encode(text).ids) == 1, text


def test_transformers_and_tokenizers_read_the_same_files(trained, tmp_path):
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    tokenizer.save(trained, tmp_path, chat_template="{{ messages[0].content }}")
    text = "<|im_start|>user\n次のうち、届出が要るものはどれか。<|im_end|>\n"
    auto = AutoTokenizer.from_pretrained(tmp_path)
    assert auto(text, add_special_tokens=False)["input_ids"] == trained.encode(text).ids
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids == trained.encode(text).ids
    assert (auto.eos_token, auto.pad_token, auto.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    assert auto.chat_template == "{{ messages[0].content }}"
