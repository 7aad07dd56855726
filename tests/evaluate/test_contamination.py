"""What was planted is found with its kind and both lines."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.planted_questions import (
    CODE,
    TEST,
    TEST_COT,
    TRAIN,
    edited,
    full_width,
    load,
    planted,
    prompt_of,
    row,
    test_row,
    the_match,
    with_choices,
    with_passages,
    with_prompt,
)

from slimtune.core.errors import SlimtuneError
from slimtune.data.records import Message, ToolCall
from slimtune.evaluate import contamination

EXACT = {
    "a copy": lambda one: one,
    "a tool asked first": lambda one: replace(
        one,
        messages=(
            *one.messages[:-1],
            Message("assistant", "", tool_calls=(ToolCall("search", "{}"),)),
            Message("tool", "条文"),
            one.messages[-1],
        ),
    ),
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
    items = {item.meta["id"]: item for item in TEST[::9]}
    rows = [replace(change(item), path="planted.jsonl", line=line) for line, item in enumerate(items.values(), start=1)]
    found = contamination.check([*TRAIN[:50], *rows, *TRAIN[50:]], TEST)["items"]
    matches = [entry for entry in found if entry["kind"] != "shared context"]
    assert sorted(entry["id"] for entry in matches) == sorted(items)
    for entry in matches:
        line = 1 + list(items).index(entry["id"])
        assert (entry["kind"], entry["where"]) == (kind, items[entry["id"]].where)
        assert entry["train_where"] == f"planted.jsonl:{line}"
        assert 0.8 <= entry["similarity"] <= 1
        if kind != "near duplicate":
            assert entry["similarity"] == 1


@pytest.mark.parametrize("change", [*EXACT.values(), *NORMALISED.values(), *NEAR.values()])
def test_it_is_found_among_a_handful_of_rows_too(change):
    item = TEST[4]
    for train in ([change(item)], [*TRAIN[:2], change(item)]):
        assert contamination.contaminated_ids(contamination.check(train, [item])) == {item.meta["id"]}


spellings = st.sampled_from([str, full_width, str.upper, lambda text: f" {text}", lambda text: f"{text}\n"])


@examples(60)
@given(
    st.sampled_from(TEST), st.permutations(range(4)), st.sampled_from(["abcd", "ABCD", "1234", "アイウエ"]), st.data()
)
def test_no_spelling_hides_a_question(item, order, labels, data):
    shuffled = with_choices(item, labels, order)
    prompt = "".join(data.draw(spellings)(piece) for piece in prompt_of(shuffled).split("、"))
    # Exact where nothing was drawn that changes a letter.
    assert the_match(planted(with_prompt(shuffled, prompt)), TEST)["kind"] in ("normalised", "exact")


@examples(60)
@given(st.sampled_from(TEST), st.integers(0, 200))
def test_no_slip_of_the_pen_hides_a_question(item, place):
    entry = the_match(planted(with_prompt(item, edited(prompt_of(item), [place]))), TEST)
    assert (entry["kind"], entry["id"]) == ("near duplicate", item.meta["id"])


@examples(60)
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


@examples(120)
@given(prompts, prompts, choices, st.text(max_size=4))
def test_what_stands_in_both_is_found_whatever_it_is(train, test, choices, answer):
    rows = [row(one, answer, line=line, choices=choices) for line, one in enumerate([*train, *test], start=1)]
    items = [test_row(one, answer, line=line, choices=choices) for line, one in enumerate(test, start=1)]
    found = contamination.check(rows, items, threshold=0.5)
    assert [entry["kind"] for entry in found["items"]] == ["exact"] * len(test)
    for entry in contamination.check(rows[: len(train)], items, threshold=0.5)["items"]:
        assert entry["kind"] in contamination.KINDS
        assert 0 <= entry["similarity"] <= 1
