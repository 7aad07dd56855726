"""Placing items: sizes, labels, groups, and items that stay where they are."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from slimtune.data.splitting import SplitItem, split_items


def items(count, group=lambda n: f"g{n}"):
    return [SplitItem(f"q{n:03d}", "abcd"[n % 4], ("民法", "刑法")[n // 4 % 2], group(n)) for n in range(count)]


def test_sizes_labels_and_sources_by_hand():
    given = items(80)
    name_of = split_items(given, {"train": 48, "dev": 8, "test": 24}, seed=1)
    for name, labels, sources in (("train", 12, 24), ("dev", 2, 4), ("test", 6, 12)):
        own = [one for one in given if name_of[one.id] == name]
        assert Counter(one.label for one in own) == dict.fromkeys("abcd", labels)
        assert Counter(one.source for one in own) == dict.fromkeys(("民法", "刑法"), sources)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=20, max_size=40), st.integers(0, 3))
def test_groups_stay_together_in_any_order(drawn, seed):
    given = items(len(drawn), lambda n: f"g{drawn[n]}")
    sizes = {"train": len(drawn) - 8, "dev": 3, "test": 5}
    name_of = split_items(given, sizes, seed=seed)
    homes = {(one.group, name_of[one.id]) for one in given}
    assert len(homes) == len({one.group for one in given})
    assert split_items(given[::-1], sizes, seed=seed) == name_of


def test_what_is_placed_stays_and_draws_its_group_along():
    given = [SplitItem(f"q{n}", "a", "民法", "together" if n < 3 else f"g{n}") for n in range(12)]
    placed = {"q0": "test", "q5": "test", "q6": "train", "gone": "dev"}
    name_of = split_items(given, {"train": 9, "dev": 0, "test": 3}, seed=1, placed=placed)
    assert {name_of[id] for id in ("q0", "q1", "q2", "q5")} == {"test"} and name_of["q6"] == "train"
    assert Counter(name_of.values()) == {"train": 8, "test": 4}


def test_of_equal_claims_the_held_out_one_wins():
    given = [SplitItem(f"q{n}", "a", "民法", "together" if n < 3 else f"g{n}") for n in range(8)]
    name_of = split_items(given, {"train": 6, "dev": 0, "test": 2}, seed=1, placed={"q0": "train", "q1": "test"})
    assert (name_of["q0"], name_of["q1"], name_of["q2"]) == ("train", "test", "test")
