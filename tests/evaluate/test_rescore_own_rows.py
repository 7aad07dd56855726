"""Rows of our own evaluations, read again, keep their answers, statuses and totals."""

import contextlib
from collections import Counter

import pytest
from support.answer_rows import write

from slimtune.core.errors import SlimtuneError
from slimtune.data.records import Message
from slimtune.evaluate import asking, rescore
from slimtune.evaluate.kinds.kind import Item, Settings
from slimtune.evaluate.targets.target import Reply


class Scripted:
    """A target that gives each prompt its replies."""

    abilities = frozenset({"generate"})
    batch_size = 4

    def __init__(self, replies):
        self.replies = replies

    def expecting(self, prompts):
        return contextlib.nullcontext()

    def generate(self, prompts, sampling):
        return [self.replies(prompt) for prompt in prompts]


TEXTS = ("七日", "十日", "二十日", "三十日")
PHRASES = ("回答: {}", "以上より、正解は「{}」である。", "**Answer: {}**", "条文による。", "回答: a または b", "")


def ask(replies, **chosen):
    """24 items, and the rows of their replies; by hand: `replies` gets the prompt's number and its labels by text."""
    asked = []
    for number in range(24):
        choices = dict(zip("abcd", TEXTS, strict=True))
        listed = "\n".join(f"{label}. {text}" for label, text in choices.items())
        prompt = (Message("user", f"{number}\n{listed}"),)
        gold = "abcd"[number % 4]
        asked.append(Item(f"q-{number}", prompt, gold, choices, gold, "条例", where=f"test.jsonl:{number}"))

    def answer(prompt):
        number, *lines = prompt.messages[-1].content.splitlines()
        return replies(int(number), {text: label for label, text in (line.split(". ") for line in lines)})

    return asking.ask(Scripted(answer), asked, Settings(mode="cot", **chosen))


def assert_rescoring_changes_nothing(path, rows):
    write(path, *rows)
    before = path.read_bytes()
    summary = rescore.rescore(path, overwrite=True)
    assert summary.changed == 0
    assert [row["answer"] for row in summary.rows] == [row["predicted"] for row in rows]
    assert summary.statuses == dict(Counter(row["status"] for row in rows))
    assert (summary.correct, summary.known) == (sum(row["correct"] for row in rows), len(rows))
    assert [{key: value for key, value in row.items() if key != "answer"} for row in summary.rows] == rows
    assert path.read_bytes() == before


def one_reply(number, label_of):
    phrase = PHRASES[number % 6].format(label_of[TEXTS[number // 6]])
    failed = number == 23
    return Reply("" if failed else phrase, 9, truncated=number % 5 == 0, error="HTTP 500" if failed else "")


def test_rows_of_one_reply_come_out_as_they_were(tmp_path):
    rows = ask(lambda number, label_of: [one_reply(number, label_of)])
    assert {row["status"] for row in rows} == {"answered", "unknown", "ambiguous", "truncated", "error"}
    assert_rescoring_changes_nothing(tmp_path / "tuned.jsonl", rows)


def test_rows_of_several_votes_come_out_as_they_were(tmp_path):
    rows = ask(lambda number, label_of: [one_reply((number + shift) % 24, label_of) for shift in (0, 5, 11)], votes=3)
    assert any(row["tied"] for row in rows)
    assert {row["predicted"] for row in rows} >= {"a", "b", "c", "d"}
    assert_rescoring_changes_nothing(tmp_path / "tuned.jsonl", rows)


def test_rows_of_several_orders_come_out_as_they_were(tmp_path):
    rows = ask(lambda number, label_of: [one_reply(number, label_of)], permutations=4)
    assert [row["predicted"] for row in rows[6:9]] == ["b", "b", "b"]
    assert_rescoring_changes_nothing(tmp_path / "tuned.jsonl", rows)


def test_votes_whose_replies_were_not_stored_are_told(tmp_path):
    rows = ask(lambda number, label_of: [one_reply(0, label_of)] * 2, permutations=2, votes=2)
    with pytest.raises(SlimtuneError, match="only the first of each is stored"):
        rescore.rescore(write(tmp_path / "tuned.jsonl", *rows))
