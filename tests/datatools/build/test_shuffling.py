"""Choices in other orders: gold kept, every place alike, and questions left alone whose texts speak of places."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimtune.core.errors import SlimtuneError
from slimtune.data.questions import LABELS, Question
from slimtune.datatools.build import shuffling


def question(name="q", *, correct="a", count=4, reasoning="", text="正しいものはどれか。", choices=None):
    texts = choices or [f"選ぶもの{number}" for number in "一二三四五六七八九十"[:count]]
    return Question(name, "民法", "", "本文", text, dict(zip(LABELS, texts, strict=False)), correct, reasoning)


def shuffled(*questions, copies, keep_reasoning=False, seed=42):
    return shuffling.shuffle(questions, copies, seed=seed, keep_reasoning=keep_reasoning)


def test_three_copies_of_four_choices_put_the_right_one_in_every_place():
    for correct in "abcd":
        found = shuffled(question(correct=correct), copies=3).questions
        assert sorted(one.correct for one in found) == ["a", "b", "c", "d"]


@given(
    count=st.integers(2, 6),
    correct=st.integers(0, 5),
    copies=st.integers(0, 5),
    seed=st.integers(0, 3),
    name=st.text("xyz"),
)
@settings(max_examples=60, deadline=None)
def test_copies_differ_only_in_the_order_and_keep_the_right_choice(count, correct, copies, seed, name):
    original = question(name, correct=LABELS[correct % count], count=count)
    if count == 2:
        copies = min(copies, 1)
    found = shuffled(original, copies=copies, seed=seed).questions
    assert found[0] == original and len(found) == copies + 1
    assert len({tuple(one.choices.values()) for one in found}) == len(found)
    for one in found:
        assert sorted(one.choices.values()) == sorted(original.choices.values())
        assert list(one.choices) == list(original.choices)
        assert one.choices[one.correct] == original.choices[original.correct]
    places = Counter(one.correct for one in found)
    assert max(places.values()) - min(places[label] for label in original.choices) <= 1


def test_copies_come_behind_their_question_and_know_it():
    found = shuffled(question("x"), question("y"), copies=2)
    assert [one.id for one in found.questions] == ["x", "x~1", "x~2", "y", "y~1", "y~2"]
    assert found.origins == {"x~1": "x", "x~2": "x", "y~1": "y", "y~2": "y"}


def test_the_order_of_a_question_does_not_depend_on_the_others():
    alone = shuffled(question("y"), copies=2).questions
    assert shuffled(question("x"), question("y"), copies=2).questions[3:] == alone


def test_too_many_copies_are_refused():
    with pytest.raises(SlimtuneError, match="3 choices have only 5 other orders, not 6"):
        shuffled(question(count=3), copies=6)
    assert len(shuffled(question(count=3), copies=5).questions) == 6


@pytest.mark.parametrize(
    "changed",
    [
        {"choices": ["甲", "乙", "丙", "上記のすべて"]},
        {"choices": ["one", "two", "three", "None of the above"]},
        {"choices": ["one", "two", "both A and B", "four"]},
        {"choices": ["甲", "乙", "丙", "いずれも誤っている"]},
        {"choices": ["甲", "選択肢aに同じ", "丙", "丁"]},
        {"text": "選択肢aと選択肢bの組合せはどれか。"},
    ],
)
def test_texts_that_name_places_keep_their_order(changed):
    found = shuffled(question("x", **changed), copies=3)
    assert [one.id for one in found.questions] == ["x"] and found.fixed == ("x",)


@pytest.mark.parametrize(
    "text",
    ["よってcが正しい。", "選択肢１は誤り。", "肢ウは誤り。", "So C is right.", "choice b is wrong", "as (d) says"],
)
def test_a_reasoning_that_names_labels_does_not_go_with_other_orders(text):
    assert shuffled(question("x", reasoning=text), copies=1, keep_reasoning=True).fixed == ("x",)


@pytest.mark.parametrize(
    "text", ["第5条は届出を要するとする。", "A court may decide, as a rule, within a year.", "DNA鑑定による。"]
)
def test_a_reasoning_without_labels_goes_along(text):
    found = shuffled(question("x", reasoning=text), copies=1, keep_reasoning=True)
    assert [one.reasoning for one in found.questions] == [text, text]


def test_a_reasoning_that_will_be_written_anew_does_not_stay_with_a_copy():
    found = shuffled(question("x", reasoning="よってcが正しい。"), copies=1).questions
    assert [one.reasoning for one in found] == ["よってcが正しい。", ""]
