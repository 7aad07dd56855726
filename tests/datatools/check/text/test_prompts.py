from __future__ import annotations

from typing import Any

import pytest

from slimtune.datatools.check.text.outputs import answer_in_prompt, label_at_prompt_end


@pytest.mark.parametrize(
    "last_line",
    [
        "Answer: a",
        "回答: b",
        "正解はc",
        "答え：２",
        "The answer is B.",
        "正解は「ｃ」です。",
        "解答：③",
        "正答は 2番",
        "回答：（d）",
    ],
)
def test_a_label_at_the_end_of_the_prompt(last_line: str) -> None:
    (finding,) = label_at_prompt_end(f"どれが正しいか。\na. 甲\nb. 乙\n{last_line}\n", "x", "f:1")
    assert (finding.code, finding.level) == ("label-at-prompt-end", "warning")


def test_an_output_in_words_behind_an_answer_word() -> None:
    (finding,) = label_at_prompt_end("日本の首都は？\n答え：東京都", "東京都", "f:1")
    assert finding.what == "the prompt ends with an answer: '答え：東京都'"


@pytest.mark.parametrize(
    "last_line",
    [
        "選択肢の記号1文字だけで答えてください。",
        "根拠を述べてから、最後の行に「回答: 記号」の形で答えてください。",
        "記号一文字で答えよ。",
        "Answer:",
        "回答（1文字のみ）:",
        "正解はどれか。",
        "d. 回答しない",
        "Give the answer as 'Answer: a'. Then explain.",
        "答えはaかbか。",
    ],
)
def test_instructions_are_no_labels(last_line: str) -> None:
    assert not list(label_at_prompt_end(f"どれが正しいか。\n{last_line}", "a", "f:1"))


def test_a_label_in_an_earlier_line_is_an_example() -> None:
    assert not list(label_at_prompt_end("例\n回答: a\n\nでは、次はどれか。", "a", "f:1"))


COPIED = "塩は水に溶けると電気を通す。"


@pytest.mark.parametrize(
    ("meta", "level"),
    [
        ({}, "warning"),
        ({"choices": {"a": COPIED}}, "note"),
        ({"context": f"前文。{COPIED}"}, None),
        ({"choices": ["x"]}, "warning"),
    ],
)
def test_the_output_stands_in_the_prompt(meta: dict[str, Any], level: str | None) -> None:
    found = answer_in_prompt(f"次を読め。{COPIED}どうなるか。", f"{COPIED}\n", meta, "f:1")
    assert [finding.level for finding in found] == ([level] if level else [])


def test_short_or_different_outputs_may_stand_in_the_prompt() -> None:
    assert not list(answer_in_prompt("東京と大阪のどちらか。", "東京", {}, "f:1"))
    assert not list(answer_in_prompt("塩は水に溶ける。", "塩は水に溶けると電気を通す。", {}, "f:1"))
