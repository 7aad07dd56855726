"""Which solved questions stand in a prompt."""

import random
from collections import Counter

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.data.questions import Question
from slimtune.datatools.build.training_rows import choose_examples


def question(number, *, correct="a", context=None):
    text = f"本文{number}" if context is None else context
    return Question(
        f"q{number:02d}", "民法", "", text, f"問{number}", {"a": "甲", "b": "乙", "c": "丙", "d": "丁"}, correct
    )


def test_their_right_labels_differ_as_far_as_they_can():
    given = [question(n, correct="aaaaaaaabbccd"[n % 13]) for n in range(26)]
    assert Counter(one.correct for one in choose_examples(given, 4, seed=1)) == dict.fromkeys("abcd", 1)


def test_questions_whose_context_others_share_come_last():
    given = [question(n, context="同じ") for n in range(8)] + [question(n) for n in (8, 9)]
    assert {one.id for one in choose_examples(given, 2, seed=0)} == {"q08", "q09"}
    assert len(choose_examples(given, 3, seed=0)) == 3


def test_the_choice_depends_on_the_seed_and_not_on_the_order():
    given = [question(n, correct="abcd"[n % 4]) for n in range(40)]
    mixed = random.Random(3).sample(given, len(given))
    assert choose_examples(given, 5, seed=7) == choose_examples(mixed, 5, seed=7)
    assert choose_examples(given, 5, seed=7) != choose_examples(given, 5, seed=8)


def test_some_question_must_be_left_to_ask():
    with pytest.raises(SlimtuneError, match="2 of 2 questions as examples leave none to ask"):
        choose_examples([question(1), question(2)], 2, seed=0)
