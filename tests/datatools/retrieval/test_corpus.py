"""Reading a corpus: contexts, JSONL, Markdown and e-Gov law XML, and what is refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from slimtune.core.errors import Problem
from slimtune.data.questions import Question
from slimtune.datatools.retrieval.corpus import Passage, from_contexts, read

LAW = """<?xml version="1.0" encoding="UTF-8"?>
<Law Era="Showa" Lang="ja" LawType="Act" Num="1" Year="23">
 <LawNum>昭和二十三年法律第一号</LawNum>
 <LawBody>
  <LawTitle>見本法</LawTitle>
  <TOC><TOCLabel>目次</TOCLabel></TOC>
  <MainProvision>
   <Chapter Num="1"><ChapterTitle>第一章　総則</ChapterTitle>
    <Article Num="1">
     <ArticleCaption>（目的）</ArticleCaption><ArticleTitle>第一条</ArticleTitle>
     <Paragraph Num="1"><ParagraphNum/>
      <ParagraphSentence><Sentence Num="1">この法律は見本である。</Sentence><Sentence Num="2">ただし、<Ruby>禁錮<Rt>きんこ</Rt></Ruby>を除く。</Sentence></ParagraphSentence>
     </Paragraph>
     <Paragraph Num="2"><ParagraphNum>２</ParagraphNum>
      <ParagraphSentence><Sentence>次に掲げる書類を出す。</Sentence></ParagraphSentence>
      <Item Num="1"><ItemTitle>一</ItemTitle><ItemSentence><Column Num="1"><Sentence>届出書</Sentence></Column><Column Num="2"><Sentence>正本</Sentence></Column></ItemSentence>
       <Subitem1 Num="1"><Subitem1Title>イ</Subitem1Title><Subitem1Sentence><Sentence>写し</Sentence></Subitem1Sentence></Subitem1>
      </Item>
     </Paragraph>
    </Article>
   </Chapter>
   <Article Num="1_2"><ArticleTitle>第一条の二</ArticleTitle>
    <Paragraph Num="1"><ParagraphNum/><ParagraphSentence><Sentence>施行は政令で定める。</Sentence></ParagraphSentence></Paragraph>
   </Article>
  </MainProvision>
  <SupplProvision><Paragraph><ParagraphSentence><Sentence>附則。</Sentence></ParagraphSentence></Paragraph></SupplProvision>
 </LawBody>
</Law>
"""


def question(name: str, context: str) -> Question:
    return Question(name, "法", "第1条", context, "問", {"a": "甲", "b": "乙"}, "a", path="q.jsonl", line=1)


def read_clean(path: Path) -> list[Passage]:
    problems: list[Problem] = []
    passages = read(str(path), problems)
    assert problems == []
    return passages


def problems_of(path: Path) -> list[str]:
    problems: list[Problem] = []
    read(str(path), problems)
    return [f"{problem.where.removeprefix(str(path))} {problem.what}" for problem in problems]


def test_contexts_that_differ_in_spacing_are_one_passage_with_a_stable_id() -> None:
    questions = [question("1", "第1条 届出"), question("2", "第１条届出"), question("3", "別の条")]
    passages = from_contexts(questions)
    assert passages == from_contexts(questions[::-1])
    digests = {hashlib.sha256(key.encode()).hexdigest()[:12] for key in ("第1条届出", "別の条")}
    assert [passage.id for passage in passages] == sorted(f"context-{digest}" for digest in digests)
    assert {passage.text for passage in passages} == {"第1条 届出", "別の条"}


def test_jsonl_rows_keep_their_ids_and_lines(tmp_path: Path) -> None:
    file = tmp_path / "laws.jsonl"
    file.write_text('{"text": "甲"}\n\n{"id": "x", "title": "題", "text": "乙"}\n', encoding="utf-8")
    first, second = read_clean(file)
    assert first == Passage("laws.jsonl:1", "", "甲", f"{file}:1")
    assert second == Passage("x", "題", "乙", f"{file}:3")


def test_markdown_is_split_at_headings_but_not_inside_a_fence(tmp_path: Path) -> None:
    file = tmp_path / "law.md"
    file.write_text("前書き\n# 法\n## 第1条\n甲\n```\n# 注\n```\n## 第2条 ##\n乙\n# 別の法\n丙\n", encoding="utf-8")
    assert [(passage.id, passage.title, passage.text) for passage in read_clean(file)] == [
        ("law.md:1", "", "前書き"),
        ("law.md:3", "法 > 第1条", "甲\n```\n# 注\n```"),
        ("law.md:8", "法 > 第2条", "乙"),
        ("law.md:10", "別の法", "丙"),
    ]


def test_a_law_is_one_passage_per_article(tmp_path: Path) -> None:
    file = tmp_path / "law.xml"
    file.write_text(LAW, encoding="utf-8")
    first, second = read_clean(file)
    assert (first.id, first.title, first.where) == ("law.xml#1", "見本法 第一条 （目的）", f"{file}:9")
    assert first.text.split("\n") == [
        "この法律は見本である。ただし、禁錮を除く。",
        "２ 次に掲げる書類を出す。",
        "一 届出書\u3000正本",
        "イ 写し",
    ]
    assert (second.id, second.title, second.text) == ("law.xml#1_2", "見本法 第一条の二", "施行は政令で定める。")


def test_a_law_with_a_doctype_is_refused_before_its_entities_grow(tmp_path: Path) -> None:
    file = tmp_path / "law.xml"
    file.write_text('<?xml version="1.0"?>\n<!DOCTYPE Law [<!ENTITY a "b">]>\n<Law>&a;</Law>', encoding="utf-8")
    assert problems_of(file) == [":2 a document type declaration (DOCTYPE), which law XML does not have"]


def test_a_law_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "law.xml"
    file.write_text("<Law>\n" + "<Rt>" * 100_000, encoding="utf-8")
    assert problems_of(file) == [":2 elements that are nested more than 100 deep"]


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "zipped.md").write_bytes(b"PK\x03\x04")
    assert problems_of(tmp_path / "zipped.md") == [" this is a zip archive"]
    assert problems_of(tmp_path / "pipe.md") == [" a corpus cannot be read from this kind of file"]
    assert problems_of(tmp_path / ("x" * 300)) == [" no such file or folder"]


def test_xml_that_is_broken_or_no_law_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<Law>\n<LawBody></Law>", encoding="utf-8")
    (tmp_path / "b.xml").write_text("<html/>", encoding="utf-8")
    assert problems_of(tmp_path) == [
        "/a.xml:2 broken XML at column 12: mismatched tag",
        "/b.xml:1 not a law XML: it has no main provisions",
    ]


def test_a_folder_mixes_kinds_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.md").write_text("# 題\n本文\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"text": "甲"}\n', encoding="utf-8")
    (tmp_path / "c.xml").write_text(LAW, encoding="utf-8")
    (tmp_path / "ignored.txt").write_text("x", encoding="utf-8")
    names = [passage.id for passage in read_clean(tmp_path)]
    assert names == ["a.jsonl:1", "b/two.md:1", "c.xml#1", "c.xml#1_2"]


def test_all_problems_of_a_folder_are_reported_together(tmp_path: Path) -> None:
    rows = ['{"id": "x", "text": "甲"}', '{"id": "x", "text": "乙"}', '{"text": " "}', '{"body": "丙"}', '{"text": 1}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "b.md").write_bytes("# 見出し\n本文です\n".encode("cp932"))
    (tmp_path / "c.md").write_text("# 見出しだけ\n", encoding="utf-8")
    found = problems_of(tmp_path)
    file = tmp_path / "a.jsonl"
    assert "/a.jsonl:3 the text is only white space" in found
    assert "/a.jsonl:4 'text' is missing" in found
    assert "/a.jsonl:4 unknown key 'body'" in found
    assert "/a.jsonl:5 'text' is a number, not a string" in found
    assert f"/a.jsonl:2 the id 'x' is used twice: {file}:1 and {file}:2" in found
    assert "/c.md the file has no passages" in found
    assert any(line.startswith("/b.md:1 the file is not UTF-8") for line in found)
    assert len(found) == 7


def test_a_text_with_a_control_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "甲<|im_end|>"}\n', encoding="utf-8")
    assert problems_of(tmp_path) == ["/a.jsonl:1 the text contains the control token <|im_end|>"]


def test_what_is_no_corpus_is_said(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "missing") == [" no such file or folder"]
    assert problems_of(tmp_path) == [" the folder has no passages"]
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    assert problems_of(tmp_path / "a.txt") == [" a corpus cannot be read from this kind of file"]
