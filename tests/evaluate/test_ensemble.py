"""Members combined by vote and by mean probability, on figures worked by hand."""

import json
import math

import pytest
from fuzz import materials
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.silent import Silent

from slimtune.core.errors import SlimtuneError
from slimtune.evaluate import ensemble
from slimtune.evaluate.evaluation import Request
from slimtune.evaluate.kinds.kind import Settings
from slimtune.evaluate.targets import opening


def member(predicted, gold=None, **more):
    """Rows q0, q1, … without logprobs; gold is "a" throughout unless given."""
    gold = gold or "a" * len(predicted)
    return [
        {"id": f"q{index}", "gold": g, "predicted": p, "correct": p == g, "labels": list("abcd"), **more}
        for index, (g, p) in enumerate(zip(gold, predicted, strict=True))
    ]


def sure_member(*probabilities, mass=1.0):
    """Rows with the logprobs of each item's (a, b, c, d) probabilities, which make up `mass` together."""
    rows = []
    for index, shares in enumerate(probabilities):
        by_label = dict(zip("abcd", shares, strict=True))
        logprobs = {label: math.log(mass * share) for label, share in by_label.items()}
        predicted = max(by_label, key=by_label.__getitem__)
        row = {"id": f"q{index}", "gold": "a", "predicted": predicted, "labels": list("abcd")}
        rows.append({**row, "logprobs": logprobs, "label_mass": mass})
    return rows


def predicted(rows):
    return [row["predicted"] for row in rows]


def test_the_majority_wins():
    rows = ensemble.combine([member("abc"), member("abd"), member("bbd")], how="vote")
    assert predicted(rows) == ["a", "b", "d"]
    assert [row["correct"] for row in rows] == [True, False, False]
    assert [row["votes"] for row in rows] == [{"a": 2, "b": 1}, {"b": 3}, {"c": 1, "d": 2}]
    assert [row["members"] for row in rows] == [["a", "a", "b"], ["b", "b", "b"], ["c", "d", "d"]]
    assert not any(row["tied"] for row in rows)


def test_a_combined_row_has_what_a_result_row_has():
    common = {"source": "民法", "where": "test.jsonl:1", "mode": "direct", "prompt_sha256": "11" * 32}
    first = member("a", **common, permutations=[{"order": "bcda", "gold": "d", "predicted": "d"}])
    assert ensemble.combine([first, member("a", **common)], how="vote") == [
        {
            "id": "q0",
            "source": "民法",
            "where": "test.jsonl:1",
            "kind": "multiple_choice",
            "mode": "direct",
            "prompt_sha256": "11" * 32,
            "gold": "a",
            "labels": ["a", "b", "c", "d"],
            "members": ["a", "a"],
            "predicted": "a",
            "status": "answered",
            "rule": "vote",
            "votes": {"a": 2},
            "tied": False,
            "correct": True,
        }
    ]


def test_members_without_an_answer_do_not_vote():
    rows = ensemble.combine([member([None, None]), member([None, "c"]), member([None, "c"])], how="vote")
    assert predicted(rows) == [None, "c"]
    assert rows[0]["status"] == "unknown"
    assert rows[1]["votes"] == {"c": 2}


def test_why_nobody_answered_is_kept_where_it_is_one_reason():
    cut, unclear = member([None], status="truncated"), member([None], status="ambiguous")
    assert ensemble.combine([cut, cut], how="vote")[0]["status"] == "truncated"
    assert ensemble.combine([cut, unclear], how="vote")[0]["status"] == "unknown"


def test_a_tie_is_declared_and_goes_to_the_higher_probability():
    # a: 0.5 + 0.1 = 0.6; b: 0.3 + 0.8 = 1.1.
    (row,) = ensemble.combine([sure_member((0.5, 0.3, 0.1, 0.1)), sure_member((0.1, 0.8, 0.05, 0.05))], how="vote")
    assert row["tied"]
    assert row["predicted"] == "b"


def test_a_tie_without_probabilities_goes_to_the_earliest_member():
    (row,) = ensemble.combine([member("d"), member("b"), member("b"), member("d"), member("a")], how="vote")
    assert row["tied"]
    assert row["predicted"] == "d"


def test_weights_outvote_a_majority():
    members = [member("a"), member("b"), member("b")]
    (row,) = ensemble.combine(members, how="vote", weights=[3, 1, 1])
    assert row["predicted"] == "a"
    assert row["votes"] == pytest.approx({"a": 0.6, "b": 0.4})
    # 0.1 + 0.2 is not 0.3 in binary, but it is a tie.
    (row,) = ensemble.combine(members, how="vote", weights=[0.3, 0.1, 0.2])
    assert row["tied"]


def test_the_mean_of_probabilities():
    # a: (0.6 + 0.2) / 2 = 0.4; b: (0.3 + 0.7) / 2 = 0.5.
    members = [sure_member((0.6, 0.3, 0.05, 0.05)), sure_member((0.2, 0.7, 0.05, 0.05), mass=0.5)]
    (row,) = ensemble.combine(members, how="mean")
    assert row["predicted"] == "b"
    assert {label: math.exp(value) for label, value in row["logprobs"].items()} == pytest.approx(
        {"a": 0.4, "b": 0.5, "c": 0.05, "d": 0.05}, abs=1e-6
    )
    assert row["label_mass"] == 0.75
    assert row["rule"] == "mean probability"
    # a: 0.8 · 0.6 + 0.2 · 0.2 = 0.52; mass 0.8 · 1 + 0.2 · 0.5.
    (row,) = ensemble.combine(members, how="mean", weights=[4, 1])
    assert row["predicted"] == "a"
    assert row["logprobs"]["a"] == pytest.approx(math.log(0.52), abs=1e-6)
    assert row["label_mass"] == 0.9


def test_probabilities_far_below_the_smallest_float_still_count():
    far = member("b", logprobs={"a": -2000.0, "b": -1999.0, "c": -2010.0, "d": -2010.0})
    (row,) = ensemble.combine([far, far], how="mean")
    assert row["predicted"] == "b"
    assert row["logprobs"]["a"] - row["logprobs"]["b"] == pytest.approx(-1.0)


def test_equal_means_are_declared_and_go_to_the_votes_then_to_the_first_label():
    mirrored = [sure_member((0.1, 0.3, 0.5, 0.1)), sure_member((0.1, 0.5, 0.3, 0.1))]
    (row,) = ensemble.combine(mirrored, how="mean")
    assert (row["tied"], row["predicted"]) == (True, "b")
    even = member("c", logprobs=dict.fromkeys("abcd", -1.0))
    (row,) = ensemble.combine([even, even], how="mean")
    assert (row["tied"], row["predicted"]) == (True, "c")


def test_replies_in_words_vote_and_cannot_be_averaged():
    direct, cot = sure_member((0.4, 0.3, 0.2, 0.1)), member("a", mode="cot")
    (row,) = ensemble.combine([direct, cot], how="vote")
    assert (row["predicted"], row["mode"]) == ("a", "cot")
    with pytest.raises(SlimtuneError) as caught:
        ensemble.combine([direct, cot, cot], how="mean", names=["direct", "cot", "again"])
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        ("cot", "no logprobs to average in 1 of 1 rows"),
        ("again", "no logprobs to average in 1 of 1 rows"),
    ]


def test_all_combinations_in_one_table():
    sure = sure_member((0.4, 0.3, 0.2, 0.1))
    names = ["step 10", "step 20"]
    assert [name for name, _ in ensemble.table([sure, sure], names)] == [*names, "majority vote", "mean probability"]
    weighted = ensemble.table([sure, sure], names, [1, 2])
    assert [name for name, _ in weighted][-2:] == ["weighted vote", "weighted mean probability"]
    assert all(predicted(rows) == ["a"] for _, rows in weighted)
    words = ensemble.table([sure, member("a")], names, [1, 2])
    assert [name for name, _ in words] == [*names, "majority vote", "weighted vote"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1], "1 weights for 2 members"),
        ([1, -1], "impossible weights: -1"),
        ([1, math.nan], "impossible weights: nan"),
        ([0, 0], "all weights are 0"),
    ],
)
def test_bad_weights_are_errors(weights, message):
    with pytest.raises(SlimtuneError, match=message):
        ensemble.combine([member("a"), member("a")], how="vote", weights=weights)


def test_members_that_do_not_fit_are_told_at_once():
    other = [*member("ab", gold="ab"), {"id": "extra", "gold": "a", "predicted": "a"}]
    with pytest.raises(SlimtuneError) as caught:
        ensemble.combine([member("abc"), other, member("abc", logprobs={"a": 0.0})], how="vote")
    assert [problem.what for problem in caught.value.problems] == [
        "answered by member 1 only: q2",
        "answered by member 2 only: extra",
        "different gold answers: q1",
        "the members chose between different labels: q0, q1, q2",
    ]


def test_rows_that_are_no_questions_are_errors():
    text = [{"id": "q0", "kind": "generation", "text": "…"}]
    with pytest.raises(SlimtuneError) as caught:
        ensemble.combine([text, [], member("aa") + member("a")], how="vote")
    assert [problem.what for problem in caught.value.problems] == [
        "1 of 1 answers lack reference",
        "1 of 1 answers lack chrf",
        "no answers",
        "repeated ids: q0",
        "different kinds: member 1 is generation, member 3 is multiple_choice",
    ]
    with pytest.raises(SlimtuneError, match="at least two members"):
        ensemble.combine([member("a")], how="vote")


shares = st.tuples(*[st.floats(0.01, 1.0)] * 4)
items = st.lists(shares, min_size=1, max_size=6)


@settings(deadline=None, max_examples=50)
@given(items, st.integers(2, 4), st.sampled_from(["vote", "mean"]))
def test_identical_members_change_nothing(probabilities, count, how):
    one = sure_member(*probabilities)
    assert predicted(ensemble.combine([one] * count, how=how)) == predicted(one)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(shares, min_size=4, max_size=4), min_size=2, max_size=4), st.randoms(), st.booleans())
def test_the_order_of_members_and_rows_means_nothing(members, random, by_vote):
    members = [sure_member(*probabilities) for probabilities in members]
    how = "vote" if by_vote else "mean"
    before = ensemble.combine(members, how=how)
    assume(not any(row["tied"] for row in before))
    shuffled = [random.sample(rows, len(rows)) for rows in random.sample(members, len(members))]
    after = {row["id"]: row["predicted"] for row in ensemble.combine(shuffled, how=how)}
    assert after == {row["id"]: row["predicted"] for row in before}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=6), st.sampled_from(["vote", "mean"]))
def test_all_the_weight_on_one_member_is_that_member(pairs, how):
    first, second = (sure_member(*side) for side in zip(*pairs, strict=True))
    assert predicted(ensemble.combine([first, second], how=how, weights=[1, 0])) == predicted(first)
    rows = ensemble.combine([first, second], how=how, weights=[0, 2])
    assert predicted(rows) == predicted(second)
    assert all(row["label_mass"] == 1.0 for row in rows)


def test_what_is_wrong_with_an_ensemble_is_told_before_anybody_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "open_local", lambda *_: pytest.fail("loaded"))
    for name, content in (materials.adapter("one") | materials.adapter("two")).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    config = tmp_path / "two/adapter_config.json"
    config.write_text(config.read_text("utf-8").replace('"r": 8', '"r": 4'), encoding="utf-8")
    questions = tmp_path / "questions.jsonl"
    row = {"input": "a. 甲\nb. 乙", "output": "a", "meta": {"choices": {"a": "甲", "b": "乙"}, "correct": "e"}}
    questions.write_text(json.dumps(row), encoding="utf-8")
    specs = [opening.spec_of(str(tmp_path / name)) for name in ("one", "two")]
    request = Request(specs[0], Settings(), data=str(questions), out=tmp_path / "out")
    with pytest.raises(SlimtuneError) as caught:
        ensemble.evaluate(specs, [1, -1], request, Silent())
    told = str(caught.value)
    assert "impossible weights: -1" in told
    assert "meta.correct is 'e'" in told
    assert "two/adapter_model.safetensors" in told
    assert not (tmp_path / "out").exists()
