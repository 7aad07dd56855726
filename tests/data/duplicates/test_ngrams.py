"""n-grams against a plain Python count, weights by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimtune.data.duplicates import ngrams


def plain(parts, n):
    """The n-grams of a text as strings; a short part is one, and no other part's."""
    return [gram for part in parts for gram in ([part[i : i + n] for i in range(len(part) - n + 1)] or [f"{part}…"])]


texts = st.lists(st.lists(st.text("ab第条", max_size=9), max_size=3), max_size=4)


@given(texts, st.sampled_from([1, 2, 3, 5, 8]))
def test_hashes_are_equal_where_the_ngrams_are(texts, n):
    grams, owners = ngrams.hashes(texts, n)
    expected = [(gram, owner) for owner, parts in enumerate(texts) for gram in plain(parts, n)]
    assert owners.tolist() == [owner for _, owner in expected]
    names = {}
    for value, (gram, _) in zip(grams.tolist(), expected, strict=True):
        assert names.setdefault(value, gram) == gram
    assert len(names) == len({gram for gram, _ in expected})


def test_ngrams_split_by_text():
    whole, _ = ngrams.hashes([["abcdef"], ["ab"], ["bcdefg"]])
    first, second, third = ngrams.split(["abcdef", "ab", "bcdefg"])
    assert [len(first), len(second), len(third)] == [2, 1, 2]
    assert np.concatenate([first, second, third]).tolist() == whole.tolist()
    assert first[1] == third[0]
    assert ngrams.split([]) == []


def test_weights_by_hand():
    # 95 texts and 5 assumed ones; two are taken off each count: shares of 93, 8 and 0 in 100.
    test = [["共通部分だ", "半分の文字", "一つの文字"]]
    others = [[["共通部分だ"]] * 85, [["共通部分だ", "半分の文字"]] * 9]
    index = ngrams.index(test, others)
    weights = [float(index.weights[np.searchsorted(index.found, gram)][0]) for gram in ngrams.split(test[0])]
    assert weights == pytest.approx([0, math.log(0.09) / math.log(0.01), 1])
    assert index.totals.tolist() == pytest.approx([sum(weights)])


def test_shares_count_by_weight():
    index = ngrams.index([["共通部分だ", "一つの文字", "二つの文字"], ["べつの文章"]], [[["共通部分だ"]] * 98])
    shares = index.shares([["共通部分だ", "二つの文字"], ["関係がない"], ["一つの文字二つの文字"]])
    places = zip(shares.row.tolist(), shares.col.tolist(), strict=True)
    found = dict(zip(places, shares.data.tolist(), strict=True))
    # The common part weighs nothing; in the third text both others stand in one part.
    assert found == pytest.approx({(0, 0): 0.5, (2, 0): 1.0})


def test_what_covers_a_letter():
    (part,) = ngrams.split(["0123456789"])
    within = np.concatenate(ngrams.split(["x23456x", "56789"]))
    assert ngrams.covered(part, within).tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]


def test_a_letter_is_specific_if_all_around_it_is():
    assert ngrams.specific(np.array([0.2, 1, 1, 1, 1, 1, 0.5])).tolist() == [0.2] * 5 + [1] + [0.5] * 5


def test_the_likeliest_stretch():
    grams = np.array([1, 9, 9, 2, 3, 9, 4, 5, 6, 9], dtype=np.uint64)
    sought = np.array([1, 2, 3, 4, 5, 6], dtype=np.uint64)
    assert ngrams.likeliest_stretch(grams, sought, 6).tolist() == [2, 3, 9, 4, 5, 6]
    assert ngrams.likeliest_stretch(grams, sought, 20).tolist() == grams.tolist()
