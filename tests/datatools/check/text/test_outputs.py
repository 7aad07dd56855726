from __future__ import annotations

import pytest

from slimtune.datatools.check.text.outputs import repetition, role_residue, trailing_space, truncated_output


@pytest.mark.parametrize(
    "output",
    [
        "Assistant: はい。",
        "User: はい",
        "アシスタント：はい",
        "**Assistant:** Yes.",
        "はい。\nUser: 次は？\nAssistant: はい",
        "はい。\n### Human: x",
    ],
)
def test_names_of_speakers(output: str) -> None:
    assert [finding.code for finding in role_residue("どうですか。", output, "f:1")] == ["role-residue"]


@pytest.mark.parametrize(
    "output", ["はい。", "The User: field is required.", "例：\n```yaml\nUser: root\n```", "Users: 3", "役割：ユーザー"]
)
def test_other_colons(output: str) -> None:
    assert not list(role_residue("どうですか。", output, "f:1"))


def test_a_dialogue_that_was_asked_for() -> None:
    assert not list(role_residue("続きを書いて。\nUser: 元気？", "では。\nUser: はい", "f:1"))


@pytest.mark.parametrize(("output", "what"), [(" a", "begins"), ("a\n", "ends"), ("\u3000a ", "begins and ends")])
def test_white_space_around_the_output(output: str, what: str) -> None:
    (finding,) = trailing_space(output, "f:1")
    assert (finding.level, finding.what) == ("note", f"the output {what} with white space")


def test_white_space_within_the_output() -> None:
    assert not list(trailing_space("a b\nc", "f:1"))


LONG = "ここには四十字を超える長さになるように、意味のあまりない文章をしばらくのあいだ書き続けておく。"


@pytest.mark.parametrize(
    "output", ["例：\n```python\nprint(1)", f"{LONG}彼は「そうだ", f"{LONG}（例外は", f"{LONG}「甲」と『乙"]
)
def test_outputs_that_are_cut_off(output: str) -> None:
    assert [finding.code for finding in truncated_output(output, "f:1")] == ["truncated-output"]


@pytest.mark.parametrize(
    "output",
    [
        "例：\n```python\nprint(1)\n```",
        "「そうだ",
        f"{LONG}「そうだ」",
        f"{LONG}（笑",
        f"{LONG}１）甲　２）乙",
        "```\n「\n```" + LONG,
    ],
)
def test_outputs_that_are_whole(output: str) -> None:
    assert not list(truncated_output(output, "f:1"))


@pytest.mark.parametrize("before", range(0, 90, 13))
@pytest.mark.parametrize(
    "unit",
    ["この文は二十文字ちょうどになるように書く。", "はい。", "a longer stretch of words, " * 3 + "which ends here. "],
)
def test_loops_are_found_wherever_they_begin(before: int, unit: str) -> None:
    prefix = "".join(chr(0x4E00 + index) for index in range(before))
    assert len(unit * 40) >= 100
    (finding,) = repetition(prefix + unit * 40, "f:1")
    assert finding.code == "repetition"


def test_five_times_is_the_least() -> None:
    unit = "この文は二十文字ちょうどになるように書く。"
    assert len(unit) >= 20
    assert [len(list(repetition(f"始め。{unit * times}終わり。", "f:1"))) for times in (4, 5)] == [0, 1]


@pytest.mark.parametrize(
    "output", ["-" * 200, "| --- | --- |" * 20, "はい。" * 5, LONG + "".join(map(str, range(200)))]
)
def test_lines_and_short_repetitions_are_no_loops(output: str) -> None:
    assert not list(repetition(output, "f:1"))
