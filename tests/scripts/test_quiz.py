"""The quickstart's questions: reproducible, balanced, and held out by activity."""

import json
from collections import Counter

import pytest
from support.paths import ROOT

from scripts.builtin import quiz, world

DATA = ROOT / "data/quickstart"
SPLITS = ("train", "dev", "test")


def rows(split):
    return [json.loads(line) for line in (DATA / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_committed_files_are_what_the_command_writes(tmp_path):
    quiz.write(tmp_path)
    for split in SPLITS:
        assert (tmp_path / f"{split}.jsonl").read_bytes() == (DATA / f"{split}.jsonl").read_bytes()


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_right_and_spread_evenly(split):
    for row in rows(split):
        notified = [letter for letter, activity in row["meta"]["choices"].items() if world.must_be_notified(activity)]
        assert notified == [row["output"]] == [row["meta"]["correct"]]
        assert all(f"{letter}：{activity}\n" in row["input"] for letter, activity in row["meta"]["choices"].items())
    counts = Counter(row["output"] for row in rows(split))
    assert set(counts.values()) == {quiz.SIZES[split] // 4}


def test_no_activity_and_so_no_question_is_in_two_splits():
    used = {split: {a for row in rows(split) for a in row["meta"]["choices"].values()} for split in SPLITS}
    assert not used["train"] & used["test"]
    assert not used["train"] & used["dev"]
    assert not used["dev"] & used["test"]
    assert set().union(*used.values()) <= set(world.ACTIVITIES)


@pytest.mark.parametrize("split", SPLITS)
def test_no_two_questions_have_the_same_activities(split):
    sets = [frozenset(row["meta"]["choices"].values()) for row in rows(split)]
    assert len(set(sets)) == len(sets) == quiz.SIZES[split]


def test_half_of_the_world_has_to_be_notified():
    notified, free = world.activities("all")
    assert len(notified) == len(free) == 32
    assert set(notified) | set(free) == set(world.ACTIVITIES)
