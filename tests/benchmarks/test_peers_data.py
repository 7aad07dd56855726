"""The examples of the comparison: exactly the lengths of the questions, and nothing of their text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_peers import TINY
from support.paths import ROOT

from benchmarks import peers_data
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation, Message

SELECTION = ROOT / "../shared/data/lawqa_jp/selection.json"


@pytest.mark.parametrize("name", peers_data.SETS)
def test_the_examples_have_exactly_the_lengths_asked_for(name):
    lengths = peers_data.read_lengths(name)
    assert len(lengths) == 140
    tokenizer = ChatTokenizer(TINY)
    for row, (prompt, response) in zip(peers_data.rows(TINY, lengths[:20], seed=3), lengths, strict=False):
        conversation = Conversation((Message("user", row.question), Message("assistant", row.answer)))
        (example,) = tokenizer.examples(conversation)
        assert (len(example.input_ids), example.supervised_tokens) == (prompt + response, response)
        assert (row.tokens, row.supervised) == (prompt + response, response)
        assert tokenizer.decode(example.input_ids) == row.prompt + row.completion
        assert row.prompt.endswith("</think>\n\n") and row.completion.endswith("<|im_end|>")


@given(st.integers(40, 600))
def test_a_single_example_has_its_length_too(tokens):
    (row,) = peers_data.one_example(TINY, tokens, seed=1)
    assert (row.tokens, row.supervised) == (tokens, min(256, tokens // 4))


def test_examples_are_written_and_read_back(tmp_path):
    written = peers_data.rows(TINY, [(40, 2), (50, 9)], seed=1)
    peers_data.write(tmp_path / "rows.jsonl", written)
    assert peers_data.read(tmp_path / "rows.jsonl") == written
    lines = peers_data.messages_file(tmp_path / "rows.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["messages"] for line in lines] == [row.messages for row in written]
    assert peers_data.rows(TINY, [(40, 2), (50, 9)], seed=1) == written
    assert peers_data.rows(TINY, [(40, 2), (50, 9)], seed=2) != written


def test_the_digest_sees_one_label_but_not_the_order():
    one, other = ([1, 2, 3], [-100, 2, 3]), ([4], [4])
    assert peers_data.digest([one, other]) == peers_data.digest([other, one])
    assert peers_data.digest([one, other]) != peers_data.digest([([1, 2, 3], [-100, -100, 3]), other])


def test_the_committed_lengths_are_those_of_the_file():
    if not SELECTION.is_file():
        pytest.skip(f"the lawqa_jp data set is not at {SELECTION}")
    reasoned = ROOT / "data/law/cot_norag.train.jsonl"
    measured = peers_data.measure(SELECTION, reasoned)
    committed = json.loads(peers_data.LENGTHS.read_text("utf-8"))
    assert {name: measured[name] for name in peers_data.SETS} == {name: committed[name] for name in peers_data.SETS}
