"""What only looks alike is no contamination: templates, shared passages, other choices; free text is compared as a whole."""

import random
from dataclasses import replace

import pytest
from support.paths import ROOT
from support.planted_questions import CODE, TEST, TRAIN, load, planted, prompt_of, row, test_row, the_match, with_prompt

from scripts.law_files import render_question
from slimtune.data.records import Conversation, Message
from slimtune.data.splitting import context_key
from slimtune.datatools.build import question_sources
from slimtune.evaluate import contamination

SELECTION = ROOT / "../shared/data/lawqa_jp/selection.json"
needs_lawqa = pytest.mark.skipif(not SELECTION.is_file(), reason="lawqa_jp is not at ../shared/data/lawqa_jp")


def question_row(question, *, path="train.jsonl", rag=False):
    """A lawqa_jp question as a row."""
    rendered = render_question(question, mode="direct", rag=rag)
    return row(rendered["input"], rendered["output"], line=question.line, path=path, **rendered["meta"])


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("quickstart/train.jsonl", "quickstart/test.jsonl"),
        ("quickstart/train.jsonl", "quickstart/dev.jsonl"),
        ("law/direct_norag.train.jsonl", "law/test.jsonl"),
        ("law/direct_norag.train.jsonl", "law/direct_norag.dev.jsonl"),
        ("law/direct_norag.dev.jsonl", "law/test.jsonl"),
        ("law/direct_rag.train.jsonl", "law/test_rag.jsonl"),
        ("law/cot_norag.train.jsonl", "law/test.jsonl"),
        ("law/cot_rag.train.jsonl", "law/test_cot_rag.jsonl"),
        ("code/assistant.train.jsonl", "code/assistant.dev.jsonl"),
    ],
)
@pytest.mark.parametrize("keep_meta", [True, False])
def test_the_data_that_comes_with_the_project_is_clean(train, test, keep_meta):
    train, test = load(train), load(test)
    if not keep_meta:
        train, test = ([replace(one, meta={}) for one in rows] for rows in (train, test))
    found = contamination.check(train, test, threshold=0.7)
    assert found["items"] == []
    assert found["checked"]["test"] == len(test)
    assert found["checked"]["train"] == [{"path": train[0].path, "rows": len(train)}]
    assert contamination.lines(found) == []


def test_other_activities_from_the_same_template_are_other_questions():
    rows = list(load("quickstart/train.jsonl"))
    random.Random(0).shuffle(rows)
    # Three of four choices are shared by many of these, and their order says nothing.
    assert contamination.contaminated_ids(contamination.check(rows[100:], rows[:100])) == set()


def test_the_same_stem_and_context_with_other_choices_is_another_question():
    item, other = TEST[0], TEST[1]
    prompt = prompt_of(item)
    for choice, another in zip(item.meta["choices"].values(), other.meta["choices"].values(), strict=True):
        prompt = prompt.replace(f". {choice}", f". {another}")
    changed = with_prompt(item, prompt, choices=other.meta["choices"])
    entry = the_match(planted(changed), TEST)
    assert (entry["kind"], entry["id"]) == ("shared context", item.meta["id"])
    assert entry["similarity"] < 0.7


@needs_lawqa
def test_a_random_split_of_lawqa_shares_contexts_and_no_questions():
    questions = question_sources.read([str(SELECTION)], layout="lawqa").questions
    for seed in range(3):
        random.Random(seed).shuffle(questions)
        train, test = questions[40:], questions[:40]
        found = contamination.check(
            [question_row(one, rag=True) for one in train], [question_row(one, path="test.jsonl") for one in test]
        )
        contexts = {context_key(one.context) for one in train}
        sharing = {one.id for one in test if context_key(one.context) in contexts}
        assert {entry["kind"] for entry in found["items"]} == {"shared context"}
        assert {entry["id"] for entry in found["items"]} >= sharing
        assert len(sharing) > 5
        assert contamination.contaminated_ids(found) == set()
        assert max(entry["similarity"] for entry in found["items"]) < 0.7


# About 260 letters, no run of which comes again.
STATUTE = "".join(f"第{number}条　{name}は、{number * 7}日以内に届け出なければならない。" for number, name in enumerate(
    ["茶会", "囲碁", "球技", "体操", "演奏", "柔道", "発掘", "写生", "花火", "配布", "紙芝居", "蛍狩り"], start=31
))  # fmt: skip


@pytest.mark.parametrize("in_train", ["prompt", "meta"])
@pytest.mark.parametrize("in_test", ["prompt", "meta"])
def test_a_long_shared_passage_is_told_wherever_it_stands(in_train, in_test):
    def about_the_statute(make, where, question):
        return (
            make(f"{STATUTE}\n\n{question}") if where == "prompt" else make(question, context=f"桜川町条例\n{STATUTE}")
        )

    train = about_the_statute(row, in_train, "囲碁の会を開く者は、何日以内に届け出なければならないか。")
    test = about_the_statute(test_row, in_test, "演奏のために公園を使うときの手数料はいくらか。")
    assert the_match([*CODE, train], [test])["kind"] == "shared context"


def test_a_statute_that_holds_all_choices_does_not_ask_the_question():
    choices = dict(zip("abcd", STATUTE.split("。")[:4], strict=True))
    listed = "\n".join(f"{label}. {text}" for label, text in choices.items())
    test = test_row(f"期間が最も短いものはどれか。\n{listed}", "a", choices=choices)
    found = contamination.check([*TRAIN, row(f"次の条例を要約してください。\n{STATUTE}")], [test])
    assert contamination.contaminated_ids(found) == set()


def test_what_all_rows_have_is_no_shared_passage():
    train = [row(f"{STATUTE}\n\n第{number}問。{one.messages[0].content}") for number, one in enumerate(CODE)]
    test = [test_row(f"{STATUTE}\n\n演奏のために公園を使うときの手数料はいくらか。")]
    assert contamination.check(train, test)["items"] == []


FREE = [
    "Write a function that returns the number of working days between two dates.",
    "倉庫にある商品のうち、三十日以上動いていないものを一覧にしてください。",
    "Explain why the cache is cleared before the report is written.",
]


@pytest.mark.parametrize("prompt", FREE)
def test_free_text_is_found(prompt):
    test = [test_row(one, line=line) for line, one in enumerate(FREE, start=1)]
    where = f"test.jsonl:{FREE.index(prompt) + 1}"
    passages = "\n\n".join(one.messages[1].content for one in CODE[:3])
    for train, kind in [
        (row(prompt, "another answer"), "exact"),
        (row(f"  {prompt.upper()} !"), "normalised"),
        (row(prompt[:20] + "鯨" + prompt[21:]), "near duplicate"),
        (row(f"{prompt} Keep it short, please."), "near duplicate"),
        (row(f"{passages}\n\n{prompt}"), "near duplicate"),
    ]:
        entry = the_match([*CODE, train], test)
        assert (entry["kind"], entry["id"], entry["where"]) == (kind, where, where)
        assert entry["train_where"] == train.where


def test_a_template_does_not_make_two_tasks_one():
    words = ["apple", "bread", "chair", "dance", "eagle", "flute", "grape", "horse", "igloo", "jelly", "koala", "lemon"]
    ask = "次の英単語を日本語に訳し、例文を一つ書いてください：{}".format
    rows = [row(ask(word), line=line) for line, word in enumerate(words, start=1)]
    for count in (3, 6, 12):
        test = [replace(one, path="test.jsonl") for one in rows[: count // 3]]
        assert contamination.check(rows[count // 3 : count], test)["items"] == []
        assert len(contamination.check(rows, test)["items"]) == len(test)


def test_two_questions_about_one_passage_are_two():
    train = [*CODE, row(f"{STATUTE}\n\n囲碁の会を開く者は、何日以内に届け出なければならないか。")]
    same = test_row(f"{STATUTE}\n\n囲碁の会を開く者は、幾日以内に届け出なければならないか。")
    other = test_row(f"{STATUTE}\n\n演奏のために公園を使うときの手数料はいくらか。", line=2)
    found = contamination.check(train, [same, other])
    assert [(entry["where"], entry["kind"]) for entry in found["items"]] == [
        ("test.jsonl:1", "near duplicate"),
        ("test.jsonl:2", "shared context"),
    ]


def test_where_prompts_do_not_differ_the_answers_are_compared():
    answers = [one.messages[1].content for one in CODE[:6]]
    test = [test_row("要約してください。", answer, line=line) for line, answer in enumerate(answers[:3], start=1)]
    assert contamination.check([row("要約してください。", answer) for answer in answers[3:]], test)["items"] == []
    found = contamination.check([row("要約してください。", answers[1]), row("要約せよ", f"{answers[2]} 以上。")], test)
    assert [(entry["where"], entry["kind"]) for entry in found["items"]] == [
        ("test.jsonl:2", "exact"),
        ("test.jsonl:3", "near duplicate"),
    ]


def test_a_prompt_of_several_turns_is_compared_as_a_whole():
    def talk(*texts, path):
        roles = ["user", "assistant"] * len(texts)
        return Conversation(tuple(map(Message, roles, texts)), {}, path, 1)

    test = [talk(FREE[0], "In which language?", "続けて", "…", path="test.jsonl")]
    same = talk(FREE[0], "In which language?", "続けて", "…", "ありがとう", "いいえ", path="train.jsonl")
    other = talk(FREE[1], "はい。", "続けて", "…", path="train.jsonl")
    assert contamination.check([*CODE, other], test)["items"] == []
    assert the_match([*CODE, other, same], test)["kind"] == "exact"
