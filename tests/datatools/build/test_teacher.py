"""A teacher's reasoning is kept where its answer is right, asked for once, and never trusted."""

import json
import re

import pytest
from support.api_server import Answer, ApiServer, chat

from slimtune.data.questions import Question
from slimtune.datatools.build import teacher
from slimtune.evaluate.targets.api_target import open_api

REPLIES = {
    "right": chat("届出が要る。\n回答: b"),
    "bold": chat("<think>ここは見せない</think>届出が要る。\n\n**最終回答: B**"),
    "wrong": chat("届出は要らない。\n回答: a"),
    "cut": chat("届出が要る。\n回答: b", finish="length"),
    "silent": chat("届出が要るかもしれない。"),
    "bare": chat("回答: b"),
    "control": chat("<|im_start|>届出が要る。\n回答: b"),
    "failing": Answer({"error": {"message": "no"}}, status=400),
}


def question(name):
    return Question(name, "届出法", "第5条", "届出を要する。", f"問い {name} は？", {"a": "要らない", "b": "要る"}, "b")


def reply(body):
    asked = body["messages"][-1]["content"]
    name = re.search(r"問い (\w+) は？", asked)
    return REPLIES[name[1]] if name else chat("a")


@pytest.fixture
def server():
    with ApiServer(reply) as running:
        yield running


def taught(server, path, names, **options):
    target = open_api(server.url, "m")
    try:
        return teacher.teach([question(name) for name in names], target, language="ja", replies_path=path, **options)
    finally:
        target.close()


def questions_to(server):
    return [r for r in server.requests if "問い" in json.dumps(r.body, ensure_ascii=False)]


def test_only_right_and_usable_replies_become_reasoning(server, tmp_path):
    found = taught(server, tmp_path / "replies.jsonl", list(REPLIES))
    assert {one.id: one.reasoning for one in found.questions} == {"right": "届出が要る。", "bold": "届出が要る。"}
    assert found.dropped == {
        "wrong answer": 1,
        "cut off": 1,
        "no answer in the reply": 1,
        "an answer without reasoning": 1,
        "control tokens in the reply": 1,
        "the server gave no answer": 1,
    }


def test_the_teacher_sees_the_context_and_not_the_answer(server, tmp_path):
    taught(server, tmp_path / "replies.jsonl", ["right"])
    (asked,) = questions_to(server)
    text = asked.body["messages"][-1]["content"]
    assert "【参照条文】\n〔1〕\n届出を要する。" in text and "「回答: 記号」" in text
    assert asked.body["temperature"] == 0.0 and len(asked.body["messages"]) == 1


def test_replies_that_are_on_disk_are_not_asked_for_again(server, tmp_path):
    path = tmp_path / "replies.jsonl"
    first = taught(server, path, ["right", "wrong", "failing"])
    assert (first.asked, first.from_file) == (3, 0)
    seen = len(questions_to(server))
    again = taught(server, path, ["right", "wrong", "failing"])
    # A request that failed is worth another try; a wrong answer is not.
    assert (again.asked, again.from_file) == (1, 2)
    assert len(questions_to(server)) == seen + 1
    assert again.questions == first.questions and again.dropped == first.dropped


def test_other_settings_ask_again(server, tmp_path):
    path = tmp_path / "replies.jsonl"
    taught(server, path, ["right"])
    assert taught(server, path, ["right"], max_new_tokens=77).asked == 1


def test_of_several_replies_the_first_right_one_is_taken(tmp_path):
    def by_seed(body):
        return chat(f"種{body['seed']}。\n回答: {'a' if body['seed'] < 44 else 'b'}") if "seed" in body else chat("a")

    with ApiServer(by_seed) as server:
        found = taught(server, tmp_path / "replies.jsonl", ["any"], replies=4, seed=42)
    assert found.questions[0].reasoning == "種44。"
    assert {r.body["temperature"] for r in questions_to(server)} == {0.7}
