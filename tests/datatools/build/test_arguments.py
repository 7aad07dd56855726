"""Template reasoning says only what the context bears out, and ends on the right choice."""

import json
import re
from dataclasses import replace

import pytest
from support.paths import ROOT

from slimtune.data.questions import Question
from slimtune.datatools.build import prompts, question_sources
from slimtune.datatools.build.arguments import argue, asks_for_the_wrong_one
from slimtune.evaluate.replies.extract import extract

SELECTION = ROOT / "../shared/data/lawqa_jp/selection.json"
needs_lawqa = pytest.mark.skipif(not SELECTION.is_file(), reason="lawqa_jp is not at ../shared/data/lawqa_jp")

CONTEXT = (
    "## 届出法\n### 第5条\n#### 第6項\n会社は、次に掲げる書類を提出することができる。\n"
    "##### 第2号\n英語で記載されている届出書"
)
CHOICES = {
    "a": "フランス語で記載されている届出書",
    "b": "英語で記載されている届出書",
    "c": "会社は、次に掲げる書類を提出することができる",
}


def question(**changed):
    given = Question("q", "届出法", "第5条", CONTEXT, "提出できる書類として正しいものはどれか。", CHOICES, "b")
    return replace(given, **changed)


def test_a_positive_question_by_hand():
    assert argue(question(), "ja") == (
        "届出法 第5条 第6項 第2号は「英語で記載されている届出書」としている。\n"
        "選択肢bはこれに沿う。\n"
        "選択肢aの「フランス」は参照した文にない。選択肢cの語は文にあるが、問われているものではない。\n"
        "したがって、答えはbである。"
    )


def test_a_negative_question_by_hand():
    asked = question(
        question="書類として誤っているものはどれか。", correct="a", choices={"a": CHOICES["a"], "b": CHOICES["b"]}
    )
    assert argue(asked, "ja") == (
        "届出法 第5条 第6項 第2号は「英語で記載されている届出書」としている。\n"
        "選択肢aはこれに沿わない。「フランス」は参照した文にない。\n"
        "選択肢bについては「英語で記載されている届出書」とある。\n"
        "したがって、答えはaである。"
    )


def test_english_by_hand():
    asked = Question(
        "q",
        "Shop Act",
        "Section 2",
        "A shop shall close at noon. A shop may open on Sundays.",
        "Which is right?",
        {"a": "A shop shall close at midnight.", "b": "A shop may open on Sundays."},
        "b",
    )
    assert argue(asked, "en") == (
        'Shop Act Section 2 says: "A shop may open on Sundays."\n'
        "Choice b agrees with this.\n"
        'The words "midnight" of choice a are not in the text.\n'
        "So the answer is b."
    )


def test_a_cited_place_is_found_by_its_heading():
    choices = {"a": "届出法第5条第6項", "b": "届出法第5条第6項第２号"}
    text = argue(question(question="根拠となる条文はどれか。", choices=choices), "ja")
    assert text.startswith("届出法 第5条 第6項 第2号は「英語で記載されている届出書」")
    assert "選択肢aについては「会社は、次に掲げる書類を提出することができる。」とある。" in text


def test_a_quotation_is_short_and_shows_where_it_was_cut():
    clauses = [f"第{number}の場合にあっては書類{number}を" for number in range(40)]
    context = "、".join([*clauses[:20], "英語で記載されている届出書を", *clauses[20:]]) + "提出する。"
    quotation = re.search("「(.+?)」", argue(question(context=context), "ja"))[1]
    assert len(quotation) <= 162 and quotation.startswith("…") and quotation.endswith("…")
    assert "英語で記載されている届出書" in quotation and quotation.strip("…") in context


def test_without_a_context_there_is_nothing_to_argue_with():
    assert argue(question(context=""), "ja") == ""


@pytest.mark.parametrize(
    ("text", "negative"),
    [
        ("次のうち、誤っているものを教えてください。", True),
        ("記載として正しくないものはどれか。", True),
        ("「有価証券」に該当しないものを選べ。", True),
        ("掲げる権利とならないものを教えてください。", True),
        ("行ってはならないとされている業務に該当しないとされているものを教えてください。", True),
        ("適切でないものはどれか。", True),
        ("公開買付けによらなければならないものとして、正しいものを教えてください。", False),
        ("行ってはならないとされるものを教えてください。", False),
        ("誤解を生ずる記載がある場合の条文を教えてください。", False),
        ("正しいものはどれか。", False),
    ],
)
def test_which_choice_is_asked_for(text, negative):
    assert asks_for_the_wrong_one(text, "ja") is negative


def test_english_exceptions():
    assert asks_for_the_wrong_one("All of these apply EXCEPT:", "en")
    assert asks_for_the_wrong_one("Which is not required?", "en")
    assert not asks_for_the_wrong_one("Which is required? Nothing notable.", "en")


@needs_lawqa
def test_all_of_lawqa_is_argued_truly():
    for one in question_sources.read([str(SELECTION)], layout="lawqa").questions:
        text = argue(one, "ja")
        reply = prompts.answer(replace(one, reasoning=text), "cot", prompts.JAPANESE)
        assert extract(reply, mode="cot").answer == one.correct, json.dumps(reply, ensure_ascii=False)
        context = one.context.replace("「", "『").replace("」", "』")
        for missing in re.findall("「([^」]+)」は参照した文にない", text):
            assert missing not in context
        for quotation in re.findall("は「([^」]+)」としている|については「([^」]+)」とある", text):
            assert "".join(quotation).strip("…") in context
