"""Texts made to keep a search busy: what is looked for in a row is looked for in time that grows with its length."""

import time

import pytest

from slimtune.core.errors import Problem
from slimtune.data.json_rows import Row
from slimtune.data.records import Conversation, Message
from slimtune.datatools import preview
from slimtune.datatools.build import lawqa
from slimtune.datatools.check import text
from slimtune.datatools.retrieval.corpus import read

LENGTH = 100_000
SECONDS = 5.0
"""Of the processor; each took from half a minute to hours, where every beginning was followed to the end of the text."""


def repeated(unit, tail="!"):
    return unit * (LENGTH // len(unit)) + tail


@pytest.mark.parametrize("unit", ["a.", "sk-", "eyJ-", "{%if ", " ", "1 ", "\u3000", "x@", "{{a ", "答 ", "#"])
def test_the_texts_of_a_row(unit):
    for prompt, output in (("q", repeated(unit)), (f"{repeated(unit)} ://", "b")):
        row = Conversation((Message("user", prompt), Message("assistant", output)), {}, "x.jsonl", 1)
        started = time.process_time()
        text.row_findings(row, secrets=True)
        assert time.process_time() - started < SECONDS


def test_spaces_of_a_preview():
    started = time.process_time()
    shown = preview.visible(f" a{repeated(' ', 'b  ')}\n")
    assert time.process_time() - started < SECONDS
    assert shown.startswith("·a  ") and shown.endswith(" b··↵\n")


def test_headings_of_a_corpus_and_of_a_law(tmp_path):
    path, problems = tmp_path / "x.md", []
    path.write_text(f"# a{repeated(' ', 'b ##')}\ntext\n\n## Article ##  \nmore\n", encoding="utf-8")
    names = ("ファイル名", "コンテキスト", "問題文", "選択肢", "output")
    values = ("law", f"### 第1条{repeated(' ', 'x')}\n", "q", "a x\nb y", "a")
    started = time.process_time()
    first, second = read(str(path), problems)
    (question,) = lawqa.from_rows([Row(1, dict(zip(names, values, strict=True)))], "x.json", problems)
    assert time.process_time() - started < SECONDS
    assert problems == list[Problem]()
    assert (first.title[:2], first.title[-1], second.title) == ("a ", "b", f"{first.title} > Article")
    assert question.article.startswith("第1条 ") and question.article.endswith("x")
