"""System prompts that are missing or differ, and those that differ for a reason."""

import pytest

from slimtune.data.records import Conversation, Message
from slimtune.datatools.check.system_prompts import SystemPrompts

JAPANESE = "この図書館で本を借りるには、どのような手続が必要ですか。"
ENGLISH = "What do I need if I want to borrow a book from this library?"


def row(line, system="", mode=None, asked=JAPANESE, path="a.jsonl"):
    opening = (Message("system", system),) if system else ()
    meta = {"mode": mode} if mode else {}
    return Conversation((*opening, Message("user", asked), Message("assistant", "x")), meta, path, line)


def findings(rows):
    counted = SystemPrompts()
    for one in rows:
        counted.add(one)
    return counted.findings()


@pytest.mark.parametrize("rows", [[], [row(1), row(2)], [row(1, "S"), row(2, "S"), row(3, "S", path="b.jsonl")]])
def test_the_same_everywhere_is_fine(rows):
    assert findings(rows) == []


def test_rows_without_a_system_prompt_beside_rows_with_one():
    (found,) = findings([row(1, "S"), row(2), row(3, "S"), row(4), row(1, "S", path="b.jsonl")])
    assert (found.level, found.where, found.code) == ("warning", "a.jsonl:2", "system-prompts")
    assert found.what == "2 of 5 rows have no system prompt; the others have one (first: line 1)"
    assert "data.system" in found.fix


def test_several_system_prompts_with_their_counts_and_first_lines():
    rows = [row(n, "You are kind.") for n in range(1, 6)]
    rows += [row(6, "You  are kind."), row(2, "Q" * 99, path="b.jsonl"), row(3, "Q" * 99, path="b.jsonl"), row(7, "R")]
    (found,) = findings(rows)
    assert (found.level, found.where) == ("warning", "b.jsonl:2")
    assert found.what == (
        "4 different system prompts: 'You are kind.' in 5 rows (first: a.jsonl:1); "
        f"'{'Q' * 40}…' in 2 rows (first: line 2); 'You  are kind.' in 1 row (first: a.jsonl:6); 1 more. "
        "Some differ in width, case or spacing only"
    )


def test_both_faults_at_once():
    found = findings([row(1, "S"), row(2), row(3, "T"), row(4, "S")])
    assert [(one.level, one.where) for one in found] == [("warning", "a.jsonl:2"), ("warning", "a.jsonl:3")]


@pytest.mark.parametrize(
    ("one", "other", "by"),
    [
        ({"system": "S", "mode": "direct"}, {"system": "T", "mode": "cot"}, "meta.mode"),
        ({"system": "S", "mode": "direct"}, {"mode": "cot"}, "meta.mode"),
        ({"system": "S"}, {"system": "T", "asked": ENGLISH}, "the language of the question"),
        ({"system": "S"}, {"asked": ENGLISH}, "the language of the question"),
    ],
)
def test_prompts_that_differ_for_a_reason_are_a_note(one, other, by):
    (found,) = findings([row(1, **one), row(2, **other), row(3, **one), row(4, **other)])
    assert found.level == "note" and f"They differ by {by}" in found.what
    mixed = {**other, "mode": "direct", "asked": JAPANESE} if "mode" in one else {**other, "asked": JAPANESE}
    assert findings([row(1, **one), row(2, **other), row(3, **one), row(4, **mixed)])[0].level == "warning"


@pytest.mark.parametrize("count", [2, 50, 1500])
def test_a_prompt_for_every_row_is_a_note(count):
    (found,) = findings([row(n, f"You are number {n}.") for n in range(count)])
    assert found.level == "note" and "rows have their own" in found.what
    assert f"{min(count, 1000):,} different system prompts in {count:,} rows" in found.what


def test_a_few_prompts_of_many_rows_are_a_warning_and_many_are_a_note():
    assert findings([row(n, f"S{n % 5}") for n in range(100)])[0].level == "warning"
    assert findings([row(n, f"S{n % 25}") for n in range(100)])[0].level == "note"
