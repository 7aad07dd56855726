"""Two evaluations that do not belong together are not compared."""

import pytest
from support.answer_rows import items

from slimtune.core.errors import SlimtuneError
from slimtune.evaluate.judge import verdict


def test_everything_that_does_not_pair_is_told_at_once():
    base = items("abc", "abc")
    tuned = [*items("ab", "ab"), {"id": "extra", "gold": "a", "predicted": "a"}]
    tuned[1]["gold"] = "d"
    base[0]["prompt_sha256"], tuned[0]["prompt_sha256"] = "11", "22"
    base[1]["prompt_sha256"] = "33"  # not known of the tuned model
    base[1]["permutations"] = [{"order": "ab", "gold": "b", "predicted": "b"}]
    tuned[1]["permutations"] = [{"order": "ba", "gold": "a", "predicted": "a"}]
    with pytest.raises(SlimtuneError) as caught:
        verdict.judge(base, tuned)
    assert [problem.what for problem in caught.value.problems] == [
        "answered by base only: q2",
        "answered by tuned only: extra",
        "different gold answers: q1",
        "different prompts: q0",
        "choices asked in different orders: q1",
    ]


@pytest.mark.parametrize(
    ("tuned", "labels", "message"),
    [
        ([], None, "no answers"),
        (items("ab", "ab") + items("a", "a"), None, "repeated ids: q0"),
        ([{"id": "q0", "gold": "a"}, *items("ab", "ab")[1:]], None, "1 of 2 answers lack predicted"),
        (items("ab", "ab", correct=False), None, "marked correct=False"),
        (items("ab", "ae"), "abcd", "answers outside a, b, c, d: e"),
        (items("ab", "ab", kind="generation"), None, "1 of 2 answers|2 of 2 answers lack text"),
    ],
)
def test_bad_items_are_errors(tuned, labels, message):
    with pytest.raises(SlimtuneError, match=message):
        verdict.judge(items("ab", "ab"), tuned, labels=labels)
