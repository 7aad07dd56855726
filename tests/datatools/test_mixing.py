"""Weights, the general share, caps and sizes of a mixture, by hand."""

from collections import Counter

import pytest
from support.questions_of_their_own import row, write

from slimtune.core.errors import SlimtuneError
from slimtune.datatools.mixing import mix


@pytest.fixture
def files(tmp_path):
    """Forty rows of two sources, and ten of general data."""
    task = [row(n, source=("民法", "刑法")[n % 2]) for n in range(40)]
    return write(tmp_path / "task.jsonl", task), write(tmp_path / "general.jsonl", [row(n) for n in range(100, 110)])


def sources(mixture):
    return Counter(one.meta.get("source", "general") for one in mixture.conversations)


def test_share_cap_and_seed(files):
    task, general = files
    mixture = mix([(task, 1.0)], general=general, share=0.2, cap=10, seed=1)
    assert mixture.used == {task: 20, general: 5} and mixture.missing_general == 0
    assert mixture.capped == {"民法": 10, "刑法": 10}
    again = mix([(task, 1.0)], general=general, share=0.2, cap=10, seed=1)
    assert again.conversations == mixture.conversations
    assert mix([(task, 1.0)], general=general, share=0.2, cap=10, seed=2).conversations != mixture.conversations
    assert mix([(task, 0.5)], general=general, share=0.5, seed=1).missing_general == 10


def test_a_cap_of_one_source_goes_before_that_of_all(files):
    task, general = files
    assert sources(mix([(task, 1.0)], cap=8, caps={"民法": 3}, seed=1)) == {"民法": 3, "刑法": 8}
    assert sources(mix([(task, 1.0)], caps={"刑法": 30}, seed=1)) == {"民法": 20, "刑法": 20}
    # A row without a source has its file's name; general data is not capped.
    mixture = mix([(task, 1.0), (general, 1.0)], caps={general: 2}, seed=1)
    assert sources(mixture) == {"民法": 20, "刑法": 20, "general": 2}
    with pytest.raises(SlimtuneError) as caught:
        mix([(task, 1.0)], caps={"民": 3, "商事関係": 1}, seed=1)
    assert "did you mean '民法'?" in str(caught.value) and "there are 刑法, 民法 …" in str(caught.value)


def test_the_size_of_the_whole_mixture(files):
    task, general = files
    mixture = mix([(task, 1.0)], general=general, share=0.2, rows=30, seed=1)
    assert mixture.used == {task: 24, general: 6} and mixture.missing_general == 0
    # A smaller mixture is a part of a larger one.
    smaller = mix([(task, 1.0)], general=general, share=0.2, rows=15, seed=1)
    assert {one.where for one in smaller.conversations} < {one.where for one in mixture.conversations}
    assert mix([(task, 1.0)], rows=40, seed=1).used == {task: 40}
    with pytest.raises(SlimtuneError, match="50 rows must come from the files, but weights and caps leave 40"):
        mix([(task, 1.0)], rows=50, seed=1)
    with pytest.raises(SlimtuneError) as caught:
        mix([(task, 1.0)], general=general, share=0.5, rows=90, cap=20, seed=1)
    assert [problem.what.split(",")[0] for problem in caught.value.problems] == [
        "45 rows must come from the files",
        f"45 rows must come from {general}",
    ]
