"""What was planted is found with its kind and both lines; what only looks alike is not."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from scripts.law_files import render_question
from slimtune.core.errors import SlimtuneError
from slimtune.data.loading import load_conversations
from slimtune.data.records import Conversation, Message
from slimtune.data.splitting import context_key
from slimtune.datatools.build import question_sources
from slimtune.evaluate import contamination

SELECTION = ROOT / "../shared/data/lawqa_jp/selection.json"
needs_lawqa = pytest.mark.skipif(not SELECTION.is_file(), reason="lawqa_jp is not at ../shared/data/lawqa_jp")


def load(*names):
    paths = [str(ROOT / "data" / name) for name in names]
    return load_conversations([(path, 1.0) for path in paths]).conversations


TRAIN = load("law/direct_norag.train.jsonl")
TEST = load("law/test.jsonl")
TEST_RAG = {row.meta["id"]: row for row in load("law/test_rag.jsonl")}
TEST_COT = {row.meta["id"]: row for row in load("law/test_cot.jsonl")}
CODE = load("code/assistant.train.jsonl")


def row(prompt, answer="x", *, line=1, path="train.jsonl", **meta):
    return Conversation((Message("user", prompt), Message("assistant", answer)), meta, path, line)


def test_row(prompt, answer="x", *, line=1, **meta):
    return row(prompt, answer, line=line, path="test.jsonl", **meta)


test_row.__test__ = False


def question_row(question, *, path="train.jsonl", rag=False):
    """A lawqa_jp question as a row."""
    rendered = render_question(question, mode="direct", rag=rag)
    return row(rendered["input"], rendered["output"], line=question.line, path=path, **rendered["meta"])


def with_prompt(conversation, prompt, **meta):
    *before, _, answer = conversation.messages
    messages = (*before, Message("user", prompt), answer)
    return replace(conversation, messages=messages, meta={**conversation.meta, **meta})


def prompt_of(conversation):
    return conversation.messages[-2].content


def planted(conversation, others=TRAIN):
    """The training rows with this one in their middle, as if it stood in a file of its own."""
    middle = len(others) // 2
    return [*others[:middle], replace(conversation, path="planted.jsonl", line=7), *others[middle:]]


def the_match(train, test, **options):
    """The only match; passages beside a question may be other items' contexts."""
    first, *others = contamination.check(train, test, **options)["items"]
    assert {entry["kind"] for entry in others} <= {"shared context"}
    return first


def full_width(text):
    return "".join(chr(ord(one) + 0xFEE0) if one.isascii() and one.isalnum() else one for one in text)


def with_choices(conversation, labels, order):
    """Its choices under these labels and in this order, in the text and in `meta`."""
    choices = conversation.meta["choices"]
    texts = [list(choices.values())[place] for place in order]
    listed = "\n".join(f"{label}. {text}" for label, text in zip(labels, texts, strict=True))
    prompt = prompt_of(conversation)
    heading = "【選択肢】\n"
    before, after = prompt.partition(heading)[0], prompt.rpartition("\n\n")[2]
    new = dict(zip(labels, texts, strict=True))
    return with_prompt(conversation, f"{before}{heading}{listed}\n\n{after}", choices=new)


def with_passages(conversation):
    return replace(TEST_RAG[conversation.meta["id"]], meta=conversation.meta)


EXACT = {
    "a copy": lambda one: one,
    "a system prompt": lambda one: replace(one, messages=(Message("system", "あなたは法律家です。"), *one.messages)),
    "no meta": lambda one: replace(one, meta={}),
    "the first turn of several": lambda one: replace(
        one, messages=(*one.messages, Message("user", "理由は？"), Message("assistant", "条文のとおりです。"))
    ),
    "a later turn": lambda one: replace(
        one, messages=(Message("user", "始めます。"), Message("assistant", "どうぞ。"), *one.messages)
    ),
}
NORMALISED = {
    "full width": lambda one: with_prompt(one, full_width(prompt_of(one))),
    "other spacing": lambda one: with_prompt(one, "　".join(prompt_of(one)).replace("。", "。\n\n")),
    "no punctuation": lambda one: with_prompt(one, prompt_of(one).replace("、", "").replace("。", "")),
    "other instructions": lambda one: with_prompt(
        one,
        prompt_of(one)
        .replace("日本の法令に関する次の問題に答えてください。", "あなたは法律の専門家です。四択問題を解いてください。")
        .replace("選択肢の記号1文字だけで答えてください。", "答えはアルファベットのみ。"),
    ),
    "shuffled choices": lambda one: with_choices(one, "abcd", [2, 0, 3, 1]),
    "other labels": lambda one: with_choices(one, "1234", [0, 1, 2, 3]),
    "shuffled choices without meta": lambda one: replace(with_choices(one, "ABCD", [3, 1, 0, 2]), meta={}),
    "passages": with_passages,
    "passages without meta": lambda one: replace(with_passages(one), meta={}),
    "passages without headings": lambda one: with_prompt(
        one, f"{one.meta['context']}\n\n{prompt_of(one).partition('【問題】')[2]}"
    ),
    "reasoning": lambda one: TEST_COT[one.meta["id"]],
}


def edited(prompt, places):
    """Other letters at these places of the question and its choices."""
    start, heading, end = prompt.index("【問題】") + 4, prompt.index("【選択肢】"), prompt.rindex("\n\n")
    asked = [*range(start, heading), *range(heading + 5, end)]
    letters = [place for place in asked if prompt[place].isalpha() and not prompt[place].isascii()]
    changed = list(prompt)
    for place in places:
        changed[letters[place % len(letters)]] = "鯨"
    return "".join(changed)


NEAR = {
    "a letter changed": lambda one: with_prompt(one, edited(prompt_of(one), [5])),
    "two letters changed": lambda one: with_prompt(one, edited(prompt_of(one), [3, 14])),
    "a letter of a choice changed": lambda one: with_prompt(one, edited(prompt_of(one), [-2])),
    "a sentence added": lambda one: with_prompt(
        one, prompt_of(one).replace("\n\n【選択肢】", "なお、特別の定めはないものとする。\n\n【選択肢】")
    ),
    "a letter changed and passages": lambda one: with_prompt(
        with_passages(one), edited(prompt_of(with_passages(one)), [5])
    ),
    "a letter changed and shuffled choices": lambda one: with_prompt(
        with_choices(one, "abcd", [2, 0, 3, 1]), edited(prompt_of(with_choices(one, "abcd", [2, 0, 3, 1])), [5])
    ),
}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        *[pytest.param("exact", change, id=name) for name, change in EXACT.items()],
        *[pytest.param("normalised", change, id=name) for name, change in NORMALISED.items()],
        *[pytest.param("near duplicate", change, id=name) for name, change in NEAR.items()],
    ],
)
def test_a_planted_question_is_found(kind, change):
    for item in TEST[::9]:
        entry = the_match(planted(change(item)), TEST)
        assert (entry["kind"], entry["id"]) == (kind, item.meta["id"])
        assert (entry["where"], entry["train_where"]) == (item.where, "planted.jsonl:7")
        assert 0.8 <= entry["similarity"] <= 1
        if kind != "near duplicate":
            assert entry["similarity"] == 1


@pytest.mark.parametrize("change", [*EXACT.values(), *NORMALISED.values(), *NEAR.values()])
def test_it_is_found_among_a_handful_of_rows_too(change):
    item = TEST[4]
    for train in ([change(item)], [*TRAIN[:2], change(item)]):
        assert contamination.contaminated_ids(contamination.check(train, [item])) == {item.meta["id"]}


spellings = st.sampled_from([str, full_width, str.upper, lambda text: f" {text}", lambda text: f"{text}\n"])


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(TEST), st.permutations(range(4)), st.sampled_from(["abcd", "ABCD", "1234", "アイウエ"]), st.data()
)
def test_no_spelling_hides_a_question(item, order, labels, data):
    shuffled = with_choices(item, labels, order)
    prompt = "".join(data.draw(spellings)(piece) for piece in prompt_of(shuffled).split("、"))
    # Exact where nothing was drawn that changes a letter.
    assert the_match(planted(with_prompt(shuffled, prompt)), TEST)["kind"] in ("normalised", "exact")


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(TEST), st.integers(0, 200))
def test_no_slip_of_the_pen_hides_a_question(item, place):
    entry = the_match(planted(with_prompt(item, edited(prompt_of(item), [place]))), TEST)
    assert (entry["kind"], entry["id"]) == ("near duplicate", item.meta["id"])


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([one for one in TEST if len(prompt_of(one)) > 200]), st.lists(st.integers(0, 200), max_size=2))
def test_nor_do_two_in_a_longer_one(item, places):
    entry = the_match(planted(with_prompt(item, edited(prompt_of(item), places))), TEST)
    assert (entry["kind"], entry["id"]) == ("near duplicate" if places else "exact", item.meta["id"])


def test_another_number_is_told_with_its_similarity():
    item = next(one for one in TEST if "70年以内に公表" in prompt_of(one))
    changed = with_prompt(item, prompt_of(item).replace("70年以内に公表", "50年以内に公表"))
    entry = the_match(planted(changed), TEST)
    assert entry["kind"] == "near duplicate"
    assert 0.9 < entry["similarity"] < 1
    assert "70年以内に公表" in entry["test_text"]
    assert "50年以内に公表" in entry["train_text"]


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


def test_each_item_has_its_strongest_match_the_strongest_first():
    item, shared = TEST[0], TEST[9]
    rows = [
        with_prompt(item, edited(prompt_of(item), [5])),
        with_passages(item),
        item,
        row("何を定めた条文ですか。", context=shared.meta["context"]),
    ]
    train = [replace(one, path="train.jsonl", line=line) for line, one in enumerate(rows, start=1)]
    found = contamination.check([*TRAIN, *train], TEST)
    assert [(entry["id"], entry["kind"], entry["train_where"]) for entry in found["items"]] == [
        (item.meta["id"], "exact", "train.jsonl:3"),
        (shared.meta["id"], "shared context", "train.jsonl:4"),
    ]
    assert contamination.contaminated_ids(found) == {item.meta["id"]}
    assert json.loads(json.dumps(found)) == found


def test_rows_that_a_weight_repeats_count_once():
    found = contamination.check([*TRAIN, *TRAIN, *CODE], TEST)
    assert found["checked"]["train"] == [{"path": TRAIN[0].path, "rows": 98}, {"path": CODE[0].path, "rows": 60}]


def test_lines_for_a_person():
    train = [*TRAIN, *(replace(one, path="train.jsonl", line=line) for line, one in enumerate(TEST[:3], start=88))]
    found = contamination.check(train, TEST)
    told = contamination.lines(found, limit=2)
    assert told[0] == "3 of 40 test items were trained on (compared with 101 training rows: 3 exact)"
    assert told[1] == f"{TEST[0].where} and train.jsonl:88: exact, similarity 1.00"
    assert told[2].startswith("    test:  法人が著作の名義を有する著作物")
    assert told[3] == told[2].replace("test: ", "train:")
    assert told[-1] == "… and 1 more"
    assert len(told) == 1 + 2 * 3 + 1


def test_progress_ends_at_the_number_of_rows():
    seen = []
    contamination.check(load("law/direct_rag.train.jsonl") * 9, TEST[:2], on_progress=lambda *one: seen.append(one))
    assert seen[-1] == (98, 98)


@pytest.mark.parametrize("threshold", [0, -1, 1.01])
def test_an_impossible_threshold_is_an_error(threshold):
    with pytest.raises(SlimtuneError, match="not a valid similarity threshold"):
        contamination.check(TRAIN, TEST, threshold=threshold)


def test_the_threshold_is_kept():
    changed = planted(with_prompt(TEST[0], edited(prompt_of(TEST[0]), [3, 14])))
    similarity = the_match(changed, TEST)["similarity"]
    assert the_match(changed, TEST, threshold=similarity - 0.001)["kind"] == "near duplicate"
    assert the_match(changed, TEST, threshold=similarity + 0.001)["kind"] == "shared context"


@pytest.mark.parametrize(("train", "test"), [([], TEST), (TRAIN, []), ([], [])])
def test_without_rows_nothing_is_found(train, test):
    assert contamination.check(train, test)["items"] == []


def test_texts_without_letters_are_only_found_when_equal():
    test = [test_row("？！"), test_row("…", line=2)]
    found = contamination.check([row("？！"), row("。。。。。。。", line=2)], test)
    assert [(entry["where"], entry["kind"]) for entry in found["items"]] == [("test.jsonl:1", "exact")]


prompts = st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=4)
choices = st.none() | st.dictionaries(st.sampled_from("abcd"), st.text(max_size=8), max_size=4)


@settings(deadline=None, max_examples=50)
@given(prompts, prompts, choices, st.text(max_size=4))
def test_what_stands_in_both_is_found_whatever_it_is(train, test, choices, answer):
    rows = [row(one, answer, line=line, choices=choices) for line, one in enumerate([*train, *test], start=1)]
    items = [test_row(one, answer, line=line, choices=choices) for line, one in enumerate(test, start=1)]
    found = contamination.check(rows, items, threshold=0.5)
    assert [entry["kind"] for entry in found["items"]] == ["exact"] * len(test)
    for entry in contamination.check(rows[: len(train)], items, threshold=0.5)["items"]:
        assert entry["kind"] in contamination.KINDS
        assert 0 <= entry["similarity"] <= 1
