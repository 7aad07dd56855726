"""Rows from questions: what stands in the prompt, what is left out, and what `meta` says of it."""

import json

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.data.questions import Question
from slimtune.datatools.build import training_rows
from slimtune.datatools.build.teacher import Taught
from slimtune.datatools.build.training_rows import BuildSettings
from slimtune.datatools.retrieval import corpus, index

LAW = ("届出を要する書類は次のとおりとする", "公告は官報に掲載してする", "罰金は百万円以下とする", "期間は三十日とする")


def question(number, *, context=None, reasoning="", correct="b"):
    text = f"{LAW[number % 4]}。" if context is None else context
    words = LAW[number % 4]
    choices = {"a": f"{words[:5]}誤り", "b": words, "c": "どちらでもよい", "d": "定めはない"}
    return Question(
        f"q{number}", "届出法", f"第{number}条", text, f"正しいのは何番か{number}", choices, correct, reasoning
    )


def questions(count=4, **options):
    return [question(number, **options) for number in range(count)]


def index_of(given):
    return index.build(corpus.from_contexts(given))


def test_a_direct_row_by_hand():
    (row,) = training_rows.build([question(1)], BuildSettings()).rows
    assert row == {
        "input": (
            "日本の法令に関する次の問題に答えてください。\n\n【問題】\n正しいのは何番か1\n\n"
            "【選択肢】\na. 公告は官報誤り\nb. 公告は官報に掲載してする\nc. どちらでもよい\nd. 定めはない\n\n"
            "選択肢の記号1文字だけで答えてください。"
        ),
        "output": "b",
        "meta": {
            "id": "q1",
            "mode": "direct",
            "rag": False,
            "choices": question(1).choices,
            "correct": "b",
            "context": "公告は官報に掲載してする。",
            "source": "届出法",
            "article": "第1条",
        },
    }


def test_the_gold_context_stands_before_the_question():
    (row,) = training_rows.build([question(1)], BuildSettings(context="gold")).rows
    assert "【参照条文】\n〔1〕\n公告は官報に掲載してする。\n\n【問題】" in row["input"] and row["meta"]["rag"] is True


def test_retrieved_passages_stand_in_the_order_of_their_scores():
    given = questions()
    built = training_rows.build(given, BuildSettings(context="retrieved", top_k=2), index=index_of(given))
    assert built.recall == {1: 1.0, 2: 1.0, 3: 1.0, 5: 1.0} and built.without_gold == 0
    for row in built.rows:
        assert len(row["meta"]["passages"]) == 2
        assert f"〔1〕\n{row['meta']['context']}\n\n〔2〕\n" in row["input"]


def test_a_missed_gold_context_is_counted_and_can_be_put_in():
    passages = [
        corpus.Passage("other", "別の法", "正しいのは何番か1 公告は官報に", "x:1"),
        corpus.Passage("more", "", "無関係", "x:2"),
    ]
    searched = index.build(passages)
    wish = BuildSettings(context="retrieved", top_k=2)
    built = training_rows.build([question(1)], wish, index=searched)
    assert built.without_gold == 1 and built.recall[5] == 0.0
    assert "〔1〕\n別の法\n正しいのは何番か1 公告は官報に\n\n〔2〕\n無関係" in built.rows[0]["input"]
    mended = training_rows.build(
        [question(1)], BuildSettings(context="retrieved", top_k=2, ensure_gold=True), index=searched
    )
    assert mended.without_gold == 0 and mended.rows[0]["meta"]["passages"] == ["other", "gold"]
    assert "〔2〕\n公告は官報に掲載してする。" in mended.rows[0]["input"]


def test_cot_from_the_file_and_from_the_template():
    (own,) = training_rows.build([question(1, reasoning="官報に載る。")], BuildSettings(mode="cot")).rows
    assert own["output"] == "官報に載る。\n回答: b" and own["meta"]["reasoning"] == "column"
    (made,) = training_rows.build([question(1)], BuildSettings(mode="cot", reasoning="template")).rows
    assert made["output"].startswith("届出法 第1条は「公告は官報に掲載してする。」としている。")
    assert made["output"].endswith("\n回答: b") and made["meta"]["reasoning"] == "template"


def test_english_prompts():
    (row,) = training_rows.build([question(1)], BuildSettings(language="en", context="gold")).rows
    assert row["input"].startswith("Answer the following multiple-choice question.\n\nPassages:\n[1]\n")
    assert row["meta"]["language"] == "en"


def test_examples_are_solved_in_the_prompt_and_asked_no_more():
    given = questions(6)
    built = training_rows.build(given, BuildSettings(few_shot=2, shuffle_choices=1))
    shown = built.rows[0]["meta"]["few_shot"]
    assert len(shown) == 2 and len(built.rows) == 8
    for row in built.rows:
        assert row["meta"]["few_shot"] == shown
        assert row["meta"].get("origin", row["meta"]["id"]) not in shown
        assert row["input"].count("の解答】\nb\n") == 2
    assert any("left out, as they are the examples" in note for note in built.notes)


def test_copies_with_other_orders_know_their_question_and_find_the_same_passages():
    given = questions()
    built = training_rows.build(given, BuildSettings(context="retrieved", shuffle_choices=3), index=index_of(given))
    by_origin = {}
    for row in built.rows:
        meta = row["meta"]
        assert meta["choices"][meta["correct"]] == LAW[int(meta["id"][1])] and row["output"] == meta["correct"]
        by_origin.setdefault(meta.get("origin", meta["id"]), []).append(meta)
    assert {len(found) for found in by_origin.values()} == {4}
    for found in by_origin.values():
        assert len({tuple(meta["passages"]) for meta in found}) == 1
        assert sorted(meta["correct"] for meta in found) == ["a", "b", "c", "d"]


def test_a_template_argues_with_the_new_labels_of_a_copy():
    built = training_rows.build([question(1)], BuildSettings(mode="cot", reasoning="template", shuffle_choices=3))
    for row in built.rows:
        assert f"選択肢{row['meta']['correct']}はこれに沿う。" in row["output"]


def test_what_the_teacher_could_not_answer_is_dropped_and_counted():
    from dataclasses import replace

    def teach(given):
        kept = [replace(one, reasoning="先生の説明。") for one in given if one.id != "q0"]
        return Taught(kept, {"wrong answer": 1}, "big", 4, 0)

    built = training_rows.build(questions(), BuildSettings(mode="cot", reasoning="teacher"), teach=teach)
    assert [row["meta"]["id"] for row in built.rows] == ["q1", "q2", "q3"]
    assert built.rows[0]["output"] == "先生の説明。\n回答: b" and built.rows[0]["meta"]["reasoning"] == "teacher:big"
    assert built.notes == ("1 question dropped, the teacher's reply: wrong answer",)


def test_a_teacher_without_a_usable_reply_is_an_error():
    with pytest.raises(SlimtuneError, match=r"no reply of the teacher can be used \(wrong answer: 4\)"):
        training_rows.build(
            questions(),
            BuildSettings(mode="cot", reasoning="teacher"),
            teach=lambda _: Taught([], {"wrong answer": 4}, "m", 4, 0),
        )


@pytest.mark.parametrize(
    ("wish", "what"),
    [
        (BuildSettings(context="gold"), "has no context"),
        (BuildSettings(mode="cot"), "has no reasoning"),
        (BuildSettings(mode="cot", reasoning="template"), "has no context for the template to argue with"),
    ],
)
def test_what_is_missing_is_said_of_every_question(wish, what):
    with pytest.raises(SlimtuneError) as error:
        training_rows.build(questions(3, context=""), wish)
    assert [what in problem.what for problem in error.value.problems] == [True] * 3


LAW_XML = """<Law><LawBody><LawTitle>届出法</LawTitle><MainProvision>{}</MainProvision></LawBody></Law>"""
ARTICLE = """<Article Num="{0}"><ArticleCaption>（見出し）</ArticleCaption><ArticleTitle>第{1}条</ArticleTitle>
<Paragraph Num="1"><ParagraphNum/><ParagraphSentence><Sentence>{2}。</Sentence></ParagraphSentence></Paragraph></Article>"""


def titled_corpus(folder, kind):
    """The passages of the law, each with its title where `kind` says."""
    path = folder / ("law.xml" if kind == "law xml" else "law.jsonl")
    if kind == "law xml":
        articles = [ARTICLE.format(number, "一二三四"[number - 1], text) for number, text in enumerate(LAW, 1)]
        path.write_text(LAW_XML.format("".join(articles)), encoding="utf-8")
    else:
        rows = []
        for number, text in enumerate(LAW, 1):
            title = f"届出法 第{number}条"
            own = {"title": title} if "field" in kind else {}
            rows.append({**own, "text": f"{title}\n{text}。" if "text" in kind else f"{text}。"})
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    problems = []
    passages = corpus.read(str(path), problems)
    assert not problems
    return passages


@pytest.mark.parametrize("kind", ["title in the text", "title in a field", "title in a field and the text", "law xml"])
def test_a_titled_corpus_holds_the_gold_contexts_and_gets_no_duplicates(tmp_path, kind):
    given = [question(n, context=f"届出法\n第{'一二三四'[n]}条　{LAW[n]}。") for n in range(4)]
    searched = index.build(titled_corpus(tmp_path, kind))
    rows = []
    for ensure_gold in (False, True):
        wish = BuildSettings(context="retrieved", top_k=2, ensure_gold=ensure_gold)
        built = training_rows.build(given, wish, index=searched)
        assert (built.without_gold, built.recall[1]) == (0, 1.0)
        rows.append(built.rows)
    assert rows[0] == rows[1]
    assert all(row["input"].count(LAW[int(row["meta"]["id"][1])]) == 2 for row in rows[0])  # a passage and a choice
    assert all(row["input"].count("届出法 第1条") <= 1 for row in rows[0])


def test_a_gold_context_that_is_put_in_is_headed_like_the_other_passages(tmp_path):
    passages = [
        *titled_corpus(tmp_path, "title in a field"),
        corpus.Passage(
            "lure", "別の法 第9条", "正しいのは何番か 誤り どちらでもよい 定めはない 公告は官報誤り" * 3, "x:1"
        ),
    ]
    given = question(1, context=f"届出法\n第二条　{LAW[1]}。")
    wish = BuildSettings(context="retrieved", top_k=1, ensure_gold=True)
    (row,) = training_rows.build([given], wish, index=index.build(passages)).rows
    assert row["meta"]["passages"] == [passages[1].id] and f"〔1〕\n届出法 第2条\n{LAW[1]}。" in row["input"]
