"""`data build` as a person uses it: the four files of the law questions, and what it says."""

import json

import pytest
from support.api_server import ApiServer, chat
from support.command_line import run
from support.paths import ROOT

from slimtune.data.loading import load_conversations
from slimtune.evaluate.replies.extract import extract

SELECTION = ROOT / "../shared/data/lawqa_jp/selection.json"
QUESTIONS = str(ROOT / "data/law/questions" / sorted(p.name for p in (ROOT / "data/law/questions").iterdir())[0])
needs_lawqa = pytest.mark.skipif(not SELECTION.is_file(), reason="lawqa_jp is not at ../shared/data/lawqa_jp")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def build(*arguments, code=0):
    result = run("data", "build", *arguments)
    assert result.code == code, result.stderr
    return result


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@needs_lawqa
@pytest.mark.parametrize(
    ("mode", "context"),
    [
        ("direct", "none"),
        ("cot", "retrieved"),
        pytest.param("direct", "retrieved", marks=pytest.mark.slow),
        pytest.param("cot", "none", marks=pytest.mark.slow),
    ],
)
def test_lawqa_becomes_a_training_file_the_same_on_every_run(tmp_path, mode, context):
    reasoning = ["--reasoning", "template"] if mode == "cot" else []
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    first = build(SELECTION, "--mode", mode, "--context", context, *reasoning, "-o", one)
    again = build(SELECTION, "--mode", mode, "--context", context, *reasoning, "-o", two, "--no-cache")
    assert one.read_bytes() == two.read_bytes()
    assert "140 rows from 140 questions, written" in first.stdout
    assert ("recall of the gold context: @1 0.97" in first.stderr) == (context == "retrieved")
    assert ("113 passages, indexed" in again.stderr) == (context == "retrieved")
    found = load_conversations([(str(one), 1.0)], mode=mode).conversations
    assert len(found) == 140
    for conversation in found:
        answer = extract(conversation.messages[-1].content, mode=mode).answer
        assert answer == conversation.meta["correct"]


def test_a_second_run_changes_nothing_and_other_options_ask_first(tmp_path):
    output = tmp_path / "a.jsonl"
    build(QUESTIONS, "--mode", "direct", "-o", output)
    assert "unchanged" in build(QUESTIONS, "--mode", "direct", "-o", output).stdout
    refused = build(QUESTIONS, "--mode", "cot", "-o", output, code=2)
    assert "already and has other content" in refused.stderr and rows(output)[0]["meta"]["mode"] == "direct"
    build(QUESTIONS, "--mode", "cot", "-o", output, "--overwrite")
    assert rows(output)[0]["meta"]["mode"] == "cot"


def test_the_index_is_kept_for_the_next_time(tmp_path):
    arguments = (QUESTIONS, "--mode", "direct", "--context", "retrieved", "-o", tmp_path / "a.jsonl")
    assert "passages, indexed" in build(*arguments).stderr
    assert "index read from the cache" in build(*arguments).stderr


def test_a_corpus_of_ones_own(tmp_path):
    corpus = tmp_path / "laws"
    corpus.mkdir()
    (corpus / "民法.md").write_text("# 民法\n## 第1条\n私権は公共の福祉に適合しなければならない。\n", encoding="utf-8")
    table = tmp_path / "q.csv"
    table.write_text(
        "設問,A,B,正解,条文\n私権は何に適合するか,公共の福祉,慣習,A,私権は公共の福祉に適合しなければならない。\n",
        encoding="utf-8",
    )
    found = build(table, "--mode", "direct", "--context", "retrieved", "--corpus", corpus, "-o", tmp_path / "o.jsonl")
    assert "recall of the gold context: @1 1.000" in found.stderr and "question from 設問" in found.stderr
    (row,) = rows(tmp_path / "o.jsonl")
    assert "〔1〕\n民法 > 第1条\n私権は公共の福祉に" in row["input"] and row["output"] == "a"


def test_a_teacher_over_the_network(tmp_path):
    def answer(body):
        text = body["messages"][-1]["content"]
        return chat("東京は首都である。\n回答: b" if "首都" in text else "分からない。\n回答: a")

    table = tmp_path / "q.csv"
    table.write_text("question,A,B,answer\n日本の首都は,京都,東京,B\n最高峰は,高尾山,富士山,B\n", encoding="utf-8")
    output = tmp_path / "o.jsonl"
    with ApiServer(answer) as server:
        arguments = (table, "--mode", "cot", "--reasoning", "teacher", "--teacher", f"{server.url}#m", "-o", output)
        first = build(*arguments)
        again = build(*arguments)
    assert "teacher m: 2 asked, 0 read from" in first.stderr and "1 of 2 correct" in first.stderr
    assert "1 question dropped, the teacher's reply: wrong answer" in first.stderr
    assert "0 asked, 2 read from" in again.stderr and "unchanged" in again.stdout
    (row,) = rows(output)
    assert row["output"] == "東京は首都である。\n回答: b" and row["meta"]["reasoning"] == "teacher:m"


def test_options_that_would_do_nothing_are_refused_all_at_once(tmp_path):
    given = ("--corpus", "x", "--ensure-gold", "--reasoning", "template", "--from", "lawqa", "--map", "id=x")
    refused = build(QUESTIONS, "--mode", "direct", *given, "-o", tmp_path / "a.jsonl", code=2)
    for option in ("--corpus", "--ensure-gold", "--reasoning", "--map"):
        assert f"{option}: this option has no effect without" in refused.stderr
    assert not (tmp_path / "a.jsonl").exists()


def test_bad_sources_are_named_with_their_lines_and_nothing_is_written(tmp_path):
    table = tmp_path / "q.csv"
    table.write_text("question,A,B,answer\n,京都,東京,B\nQ,甲,甲,A\nQ,甲,乙,E\n", encoding="utf-8")
    refused = build(table, "--mode", "direct", "-o", tmp_path / "o.jsonl", code=2)
    for line in (2, 3, 4):
        assert f"q.csv:{line}" in refused.stderr
    assert not (tmp_path / "o.jsonl").exists()
