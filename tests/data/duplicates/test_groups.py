"""Clusters of near duplicates are found whole, against a comparison of every question with every other."""

import random

import pytest

from slimtune.data.duplicates import groups, ngrams, question_text, similarity

QUESTION = (
    "株式会社の取締役は、株主総会の決議によって選任され、その任期は、選任後二年以内に終了する事業年度のうち"
    "最終のものに関する定時株主総会の終結の時までとする。この規定について正しいものはどれか。"
)
REWORDED = QUESTION.replace("株式会社の取締役は", "会社の役員である取締役は").replace(
    "正しいものは", "述べた文として正しいのは"
)


def others(count):
    rng = random.Random(0)
    return ["".join(chr(rng.randrange(0x4E00, 0x9F00)) for _ in range(60)) for _ in range(count)]


def roots(texts, **options):
    """For each text the least number of its group."""
    union = groups.Union(len(texts))
    for one, other in groups.near_duplicates([question_text.read(text) for text in texts], **options):
        union.join(one, other)
    return [union.root(number) for number in range(len(texts))]


def test_ten_near_duplicates_are_one_group():
    texts = [QUESTION.replace("二年", f"{year}年") for year in "一二三四五六七八九十"] + others(50)
    assert roots(texts) == [0] * 10 + list(range(10, 60))


def test_two_clusters_that_are_nearer_to_themselves_are_one():
    # Each question's four nearest are those of its own wording.
    texts = [wording + sign for wording in (QUESTION, REWORDED) for sign in "あいうえお"] + others(50)
    assert roots(texts) == [0] * 10 + list(range(10, 60))
    texts = texts[:5] + others(50) + texts[5:10]
    assert roots(texts) == [0] * 5 + list(range(5, 55)) + [0] * 5


def test_every_pair_from_the_threshold_on_is_joined():
    rng = random.Random(1)
    slots = [
        ["田中", "佐藤", "鈴木"],
        ["東京", "京都", "札幌"],
        ["土地", "建物", "自動車"],
        ["買った", "借りた", "譲った"],
    ]
    texts = []
    for number in range(60):
        name, town, thing, did = (rng.choice(slot) for slot in slots)
        texts.append(
            f"{town}に住む{name}は、隣人から{thing}を{did}。代金は{number * 37 % 90}万円であった。この契約は有効か。"
        )
    asked = [question_text.read(text) for text in texts]
    index = ngrams.index([one.parts for one in asked], ())
    union = groups.Union(len(asked))
    for one, sought in enumerate(asked):
        for other, holder in enumerate(asked):
            ready = similarity.prepare(sought, index)
            if one != other and similarity.similarity(ready, holder) >= groups.THRESHOLD:
                union.join(one, other)
    expected = [union.root(number) for number in range(len(texts))]
    assert 1 < len(set(expected)) < len(texts)
    assert roots(texts) == expected


def test_equal_questions_are_joined_whatever_the_threshold():
    choices = "\na 有効である\nb 無効である\n回答："
    texts = [f"問題：{QUESTION}{choices}", QUESTION.replace("二年", "三年"), f"【問題】 {QUESTION}{choices}", "", ""]
    assert roots(texts, threshold=1.0) == [0, 1, 0, 3, 3]


def test_progress_is_told_to_the_end():
    told = []
    roots(others(30), on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (30, 30)


def test_sets_are_named_by_their_least_number():
    union = groups.Union(6)
    union.join(4, 2)
    union.join(5, 4)
    union.join_equal(["x", None, "y", None, "z", "y"])
    assert [union.root(number) for number in range(6)] == [0, 1, 2, 3, 2, 2]
    assert union.root(0) == pytest.approx(0)
