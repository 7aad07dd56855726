"""What is odd about the answers of a file as a whole."""

import random
from collections import Counter

import pytest

from slimtune.data.records import Conversation, Message
from slimtune.datatools.check.answers import AnswerCounts, Frequent

CHOICES = dict(zip("abcd", ["甲", "乙", "丙", "丁"], strict=True))


def row(output, *, line=1, **meta):
    return Conversation((Message("user", "問い"), Message("assistant", output)), meta, "f.jsonl", line)


def counted(rows):
    answers = AnswerCounts("f.jsonl")
    odd = [finding for one in rows for finding in answers.add(one)]
    return answers, odd


def codes(findings):
    return [finding.code for finding in findings]


def labelled(counts):
    return [row(label, correct=label, choices=CHOICES, mode="direct") for label, n in counts.items() for _ in range(n)]


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ({"a": 25, "b": 25, "c": 25, "d": 25}, []),
        ({"a": 16, "b": 26, "c": 34, "d": 23}, []),
        ({"a": 60, "b": 15, "c": 15, "d": 10}, ["label-imbalance"]),
        ({"a": 100}, ["label-imbalance"]),
        ({"a": 9, "b": 1}, []),  # too few rows to say
    ],
)
def test_labels_that_are_far_from_even(counts, found):
    answers, odd = counted(labelled(counts))
    assert codes(answers.findings()) == found and odd == []


def test_the_shares_are_told():
    (finding,) = counted(labelled({"a": 60, "b": 40}))[0].findings()
    assert finding.what == "the answer is 'a' in 60% of 100 rows, where 25% would be even (a 60%, b 40%, c 0%, d 0%)"
    assert "--shuffle-choices" in finding.fix


def test_labels_without_meta_are_counted_too():
    answers, _ = counted([row("yes"), *[row("B") for _ in range(30)], *[row("a") for _ in range(5)]])
    assert answers.labels == {"b": 30, "a": 5}
    assert codes(answers.findings()) == ["label-imbalance"]


def test_sums_are_no_labels():
    answers, _ = counted([row(str(number // 3)) for number in range(120)])
    assert answers.labels == {} and answers.findings() == []


def test_one_output_everywhere():
    texts = ["申し訳ありませんが、お答えできません。"] * 30 + [f"これは答え{n}です。" for n in range(70)]
    answers, _ = counted([row(text) for text in texts])
    (finding,) = answers.findings()
    assert finding.code == "near-constant-output" and "at least 29% of the 100 outputs are" in finding.what


def test_one_sentence_with_another_label_each_time():
    answers, _ = counted([row(f"選択肢{'abcd'[n % 4]}が法令に照らして正しいため、これを選びます。") for n in range(40)])
    (finding,) = answers.findings()
    assert finding.code == "near-constant-output" and finding.level == "warning"
    assert "all 40 outputs are '選択肢□が法令に" in finding.what and "□ being any label" in finding.what


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["肯定"] * 70 + ["否定"] * 30, []),  # classes, one of them common
        (["肯定"] * 90 + ["否定"] * 10, ["near-constant-output"]),
        (
            ["わかりません。"] * 60 + [f"詳しく述べると、{n}番目の理由による。" for n in range(40)],
            ["near-constant-output"],
        ),
        (["はい。"] * 40 + [f"いいえ、それは{n}年の改正でそうではなくなりました。" for n in range(60)], []),
    ],
)
def test_short_outputs_may_be_classes(texts, found):
    assert codes(counted([row(text) for text in texts])[0].findings()) == found


def test_one_opening_everywhere_is_only_a_note():
    answers, _ = counted([row(f"ご質問ありがとうございます。お答えします。それは{n}です。") for n in range(50)])
    assert [(finding.level, finding.code) for finding in answers.findings()] == [("note", "same-opening")]


@pytest.mark.parametrize(
    ("output", "meta", "code"),
    [
        ("c", {"correct": "d"}, "answer-differs-from-meta"),
        ("理由。\n回答: a", {"correct": "d", "mode": "cot"}, "answer-differs-from-meta"),
        ("わかりません。", {"correct": "d"}, "answer-unreadable"),
        ("d", {"correct": "e"}, "faulty-choices"),
        ("d", {"correct": "d"}, None),
        ("Ｄ。", {"correct": "d"}, None),
        ("理由。\n回答: d", {"correct": "d", "mode": "cot"}, None),
    ],
)
def test_outputs_against_meta(output, meta, code):
    _, odd = counted([row(output, choices=CHOICES, **meta)])
    assert codes(odd) == ([code] if code else [])


def test_whatever_more_than_one_in_64_has_is_kept():
    draw = random.Random(1)
    texts = ["often"] * 200 + [f"once {n}" for n in range(4000)]
    draw.shuffle(texts)
    frequent = Frequent()
    for text in texts:
        frequent.add(text)
    assert frequent.counts.most_common(1)[0][0] == "often" and len(frequent.counts) <= 64
    assert 200 - len(texts) / 64 <= frequent.counts["often"] <= Counter(texts)["often"]
