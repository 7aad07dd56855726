"""Lengths as the model counts them, and which examples are too long."""

from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation, Message
from slimtune.datatools.check.token_lengths import TokenLengths
from slimtune.models import builtin

TOKENIZER = ChatTokenizer(builtin.resolve("builtin:tiny-qwen3"))


def row(line, prompt, output="はい。"):
    return Conversation((Message("user", prompt), Message("assistant", output)), {}, "f.jsonl", line)


def test_counted_with_the_template_and_compared_with_the_limit():
    rows = [row(1, "短い"), row(2, "長い問い" * 50)]
    short, long = (len(TOKENIZER.examples(one)[0].input_ids) for one in rows)
    lengths = TokenLengths(TOKENIZER, short)
    (finding,) = lengths.add(rows)
    assert list(lengths.tokens) == [short, long]
    assert list(lengths.supervised) == [TOKENIZER.examples(one)[0].supervised_tokens for one in rows]
    assert (finding.code, finding.where) == ("too-long", "f.jsonl:2")
    assert finding.what.startswith(f"{long:,} tokens, {long - short:,} more than max_seq_length, ")
    assert lengths.cut() == (1, 0.5)


def test_how_much_of_the_responses_is_behind_the_limit():
    prompt, answer = "長い問い" * 50, "はい。" * 30
    (example,) = TOKENIZER.examples(row(1, prompt, answer))
    whole, response = len(example.input_ids), example.supervised_tokens
    lengths = TokenLengths(TOKENIZER, whole - 7)
    (finding,) = lengths.add([row(1, prompt, answer)])
    assert finding.what.endswith(", 7 more than max_seq_length, 7 tokens of the response among them")
    assert (lengths.cut_tokens, lengths.lost_examples) == (7, 0)
    lengths = TokenLengths(TOKENIZER, whole - response)
    (finding,) = lengths.add([row(1, prompt, answer)])
    assert finding.what.endswith("the whole response among them")
    assert (lengths.cut_tokens, lengths.lost_examples) == (response, 1)


def test_estimated_lengths_are_called_so():
    (finding,) = TokenLengths(None, 10).add([row(1, "長い問い" * 50)])
    assert finding.what.startswith("about ") and finding.what.endswith("the whole response among them")


def test_every_row_that_the_template_refuses_is_named():
    rows = [
        row(1, "問い"),
        row(2, "問い", "<think>考え</think>答え"),
        row(3, "問い"),
        row(4, "問", "<think>考</think>答え"),
    ]
    lengths = TokenLengths(TOKENIZER, 4096)
    assert [(f.level, f.code, f.where) for f in lengths.add(rows)] == [
        ("error", "not-rendered", "f.jsonl:2"),
        ("error", "not-rendered", "f.jsonl:4"),
    ]
    assert len(lengths.tokens) == 2


def test_percentiles_and_bars_by_hand():
    lengths = TokenLengths(TOKENIZER, 100)
    lengths.tokens.extend([*range(1, 101), 230])
    assert lengths.percentiles() == {"shortest": 1, "p5": 6, "p50": 51, "p95": 96, "longest": 230}
    bars = lengths.histogram()
    assert bars[:3] == [(0, 9), (10, 10), (20, 10)] and bars[-1] == (230, 1)
    assert sum(count for _, count in bars) == 101
    assert TokenLengths(TOKENIZER, 1).percentiles() == {} and TokenLengths(TOKENIZER, 1).histogram() == []
