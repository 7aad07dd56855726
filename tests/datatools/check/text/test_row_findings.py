"""Which findings a row gets, as the doctor asks for them."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from support.paths import ROOT

from scripts.law_files import render_question
from slimtune.data.loading import load_conversations
from slimtune.data.questions import Question
from slimtune.data.records import Conversation, Message, ToolCall
from slimtune.datatools.check.text import row_findings

DATA = ROOT / "data"


def row(prompt: str, output: str, **meta: Any) -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", output)), meta, "rows.jsonl", 7)


def codes(prompt: str, output: str, **meta: Any) -> list[str]:
    return [finding.code for finding in row_findings(row(prompt, output, **meta))]


def test_a_row_with_tools_is_read_to_its_end() -> None:
    called = Message("assistant", "", tool_calls=(ToolCall("weather", "{}"),))
    turns = (Message("user", "天気は。"), called, Message("tool", "晴\ufffd"), Message("assistant", "晴れです。"))
    (finding,) = row_findings(Conversation(turns, {}, "rows.jsonl", 7))
    assert finding.what.startswith("the answer of a tool")
    assert row_findings(Conversation(turns[:2], {}, "rows.jsonl", 7)) == []


def test_a_plain_row_has_no_findings() -> None:
    assert row_findings(row("虹ができる条件は何か。", "空気中に水滴があり、太陽を背にして見ることである。")) == []


def test_a_finding_says_where_and_in_which_part() -> None:
    (finding,) = row_findings(row("文字が\ufffd化けた問い", "はい、化けています。"))
    assert (finding.code, finding.level, finding.where) == ("mojibake", "warning", "rows.jsonl:7")
    assert finding.what == "the prompt contains characters of a wrong encoding: the replacement character U+FFFD"


def test_every_turn_and_the_system_prompt_are_looked_at() -> None:
    messages = (
        Message("system", "\u200b丁寧に。"),
        Message("user", "東京の県庁は？"),
        Message("assistant", "都庁&nbsp;です。"),
        Message("user", "どの区ですか。"),
        Message("assistant", "新宿区です。"),
    )
    found = row_findings(Conversation(messages, {}, "rows.jsonl", 1))
    assert [finding.code for finding in found] == ["invisible-characters", "html-residue"]
    assert found[1].what.startswith("the output of turn 3 contains HTML")


def test_secrets_and_personal_numbers_can_be_left_out() -> None:
    one = row("連絡先は？", "taro@kaisha.co.jp と 03-0172-8746 と postgres://me:h8Kq2z@db/x です。")
    assert [finding.code for finding in row_findings(one)] == ["secret", "personal-number", "personal-number"]
    assert row_findings(one, secrets=False) == []


@pytest.mark.parametrize("mode", ["direct", "cot"])
@pytest.mark.parametrize("rag", [False, True])
def test_prompts_that_build_writes_have_no_findings(mode: Any, rag: bool) -> None:
    question = Question(
        id="q-1",
        source="民法",
        article="第五条",
        context="民法\n第五条　未成年者が法律行為をするには、その法定代理人の同意を得なければならない。",
        question="未成年者の法律行為について、正しいものはどれか。",
        choices={"a": "同意が要る。", "b": "同意は要らない。", "c": "常に無効である。", "d": "届出が要る。"},
        correct="a",
        reasoning="第五条が同意を求めている。",
    )
    rendered = render_question(question, mode=mode, rag=rag)
    assert row_findings(row(rendered["input"], rendered["output"], **rendered["meta"])) == []


@pytest.mark.parametrize(
    "name", ["code/assistant.train", "law/cot_rag.train", "law/direct_rag.dev", "quickstart/train"]
)
def test_the_project_s_own_data_has_no_findings(name: str) -> None:
    conversations = load_conversations([(str(DATA / f"{name}.jsonl"), 1.0)]).conversations
    assert len(conversations) > 20
    assert [finding for one in conversations for finding in row_findings(one)] == []


def test_long_outputs_take_time_in_proportion_to_their_length() -> None:
    letters = random.Random(0)
    text = "".join(letters.choice("あいうえお、。（「\n<{[&0123") for _ in range(200_000))
    start = time.perf_counter()
    row_findings(row("長い文章を書いて。", text))
    assert time.perf_counter() - start < 5
