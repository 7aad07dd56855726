"""What a prompt asks, told from what it is dressed in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimtune.data.duplicates.question_text import excerpt, letters, read

CHOICES = {"a": "囲碁", "b": "球技", "c": "茶会"}
PLAIN = "次のうち、届出が要るものはどれか。\na. 囲碁\nb. 球技\nc. 茶会\n\n記号一文字で答えよ。"
STEM = "次のうち届出が要るものはどれか"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("第２７条（定義）　Ａ社は…", "第27条定義a社は"),
        ("  It's\tFINE!\n", "itsfine"),
        ("ﾊﾞｽ", "バス"),
        # Between digits a mark is part of the number.
        ("3.5 and 35", "3.5and35"),
        ("12 − 3", "12−3"),
        ("1. a", "1a"),
        ("？！", "?!"),
    ],
)
def test_letters(text, expected):
    assert letters(text) == expected


@given(st.text(max_size=40))
def test_letters_of_letters_are_the_same(text):
    assert letters(letters(text)) == letters(text)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace("記号一文字で答えよ。", "答えだけを書いてください。"),
        PLAIN.replace("a. ", "(A) ").replace("b. ", "(B) ").replace("c. ", "(C) "),
        PLAIN.replace("a. ", "１：").replace("b. ", "２：").replace("c. ", "３："),
        PLAIN.replace("\n", " "),
        f"届出について答えてください。\n\n【参照条文】\n第一条　囲碁、球技、茶会。\n\n【問題】\n{PLAIN}",
        f"### 問題 3:\n{PLAIN}".replace("a. ", "### 選択肢:\na. "),
        f"Question: {PLAIN}",
    ],
)
def test_a_question_is_the_same_in_every_dress(text):
    asked = read(text, "b", CHOICES)
    assert (asked.question, asked.choices) == (STEM, ("囲碁", "球技", "茶会"))
    assert asked.text == text


def test_choices_are_read_from_the_text_where_the_row_names_none():
    asked = read(PLAIN, "b")
    assert (asked.question, asked.choices) == (STEM, ("囲碁", "球技", "茶会"))
    assert read(PLAIN, "囲碁は盤上の遊びである。\n回答: b").choices == asked.choices
    assert read(PLAIN, "球技").choices == asked.choices
    assert (
        read(PLAIN.replace("a. ", "ア　").replace("b. ", "イ　").replace("c. ", "ウ　"), "イ").choices == asked.choices
    )


def test_the_text_counts_where_the_row_names_other_choices():
    asked = read(PLAIN.replace("球技", "野球"), "b", CHOICES)
    assert asked.choices == ("囲碁", "野球", "茶会")


def test_a_numbered_list_is_no_choice_of_answers():
    text = "Write a function.\n1. It takes a path.\n2. It returns the lines.\nNo comments, please."
    asked = read(text, "```python\ndef read(path): ...\n```")
    assert asked.choices == ()
    assert asked.question == "writeafunction1ittakesapath2itreturnsthelinesnocommentsplease"


def test_a_question_behind_its_choices():
    asked = read("a. 囲碁\nb. 球技\nc. 茶会\n\n届出が要るのはどれか。", "b", CHOICES)
    assert (asked.question, asked.choices) == ("届出が要るのはどれか", ("囲碁", "球技", "茶会"))


def test_a_choice_may_stand_in_the_question_too():
    text = "4人のうち1人が欠けた。何人か。\na. 1\nb. 2\nc. 3\nd. 4\n\n記号1文字で答えよ。"
    asked = read(text, "c", {"a": "1", "b": "2", "c": "3", "d": "4"})
    assert asked.question == "4人のうち1人が欠けた何人か"


def test_an_excerpt_begins_with_the_question():
    text = "次の問題に答えてください。\n\n【参照条文】\n第一条\n\n【問題】\n届出が\n要るのはどれか。"
    assert excerpt(text, 40) == "届出が 要るのはどれか。"
    assert excerpt(text, 6) == "届出が 要…"
    assert excerpt("なぜですか。", 40) == "なぜですか。"
