"""What a question asks for: the right statement, the wrong one, several together, or it does not say."""

import time

import pytest

from slimtune.evaluate.replies.demand import demand


@pytest.mark.parametrize(
    "question",
    [
        *(
            "次の記述のうち、誤っているものはどれか。",
            "最も不適切なものを選べ",
            "正しくないものはどれですか。",
            "誤りはどれか",
        ),
        *("条文に照らして誤っているものは、次のうちどれか。", "次の1〜4のうち、適当でないものを一つ選びなさい。"),
        *("条文に合致しないものはどれか。", "間違っている選択肢を選んでください"),
        # A request of the prompt, which follows every question, counts less than the question.
        "誤っているものはどれか。\na. 正しいもの\n正しい選択肢の記号だけで答えてください。",
        "誤っているものはどれか。\n正しいものを1つ選んで答えてください。",
        *("Which of the following is NOT correct?", "Which statement is incorrect?", "Which isn't true?"),
        *("All of the following are true EXCEPT", "Select the incorrect statement.", "Which is least appropriate?"),
    ],
)
def test_the_wrong_one(question):
    assert demand(question) == "wrong"


@pytest.mark.parametrize(
    "question",
    ["正しいものはどれか。", "妥当なものはどれか", "条文に合致する記述を選べ", "Which of these statements is correct?"],
)
def test_the_right_one(question):
    assert demand(question) == "right"


@pytest.mark.parametrize(
    "question",
    ["正しいものはいくつあるか", "誤っているものの組合せはどれか", "How many of the statements are correct?"],
)
def test_several_together(question):
    assert demand(question) == "several"


@pytest.mark.parametrize(
    "question",
    [
        *(
            "",
            "届出が必要なものはどれか",
            "届出を要しないものはどれか",
            "正しい選択肢を選べ",
            "公序良俗に反するものはどれか",
        ),
        *("Which is NOT a mammal?", "Choose the correct answer.", "What is the capital?", "次の記述の正誤を判定せよ"),
        "正しいものはどれか。誤っているものはどれか。",
    ],
)
def test_it_does_not_say(question):
    assert demand(question) == ""


@pytest.mark.parametrize("piece", ["which ", "誤っているもの", "not the correct "])
def test_a_long_prompt_takes_no_second(piece):
    started = time.process_time()
    demand(piece * 50_000)
    assert time.process_time() - started < 2
