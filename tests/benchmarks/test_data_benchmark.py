"""The comparison with TRL's preparation: its rows, its figures, and on a few rows that both give the same."""

import json
import os
import subprocess
import sys
from array import array

import pytest
from support.paths import ROOT

from benchmarks import data, data_contender, law_rows

ONE, TWO = data.THEIRS


def run(seconds, examples=100, digest="x"):
    return {
        "seconds": seconds, "cpu_seconds": 2 * seconds, "examples": examples, "examples_sha256": digest,
        "peak_mib": 900, "before_mib": 700, "peak_mib_of_a_worker": 0, "packed_rows": 30, "fill": 0.98,
    }  # fmt: skip


def pair(theirs, ours_seconds, their_seconds, **other):
    return {"theirs": theirs, "slimtune": run(ours_seconds), theirs: run(their_seconds, **other)}


SAME = {"rows": 50, "differing": 0, "first": None, "packed_rows": 15, "packed_differing": 0}


def test_a_ratio_is_of_two_neighbours_and_the_faster_way_of_trl_decides():
    # The second round met a busy machine: both took four times as long.
    rounds = [pair(ONE, 1, 6), pair(TWO, 1, 3.5), pair(ONE, 4, 20), pair(TWO, 4, 14), pair(ONE, 1, 7), pair(TWO, 1, 2)]
    told = {"compared": SAME, **data.summary(rounds)}
    assert told["times_as_fast_as"][ONE] == {"least": 5, "median": 6, "most": 7}
    assert told["times_as_fast_as"][TWO] == {"least": 2, "median": 3.5, "most": 3.5}
    assert told["contenders"]["slimtune"]["rows_per_second"] == {"least": 25, "median": 100, "most": 100}
    assert told["contenders"][ONE]["cpu_ms_per_row"] == {"least": 120, "median": 140, "most": 400}
    assert data.problems(told) == []
    assert "3.50 times as fast as trl, 2 processes (2.00 to 3.50)" in data.table(told)


def test_what_makes_the_comparison_void():
    slow = {"compared": SAME, **data.summary([pair(ONE, 1, 6), pair(TWO, 1, 2.5)])}
    assert data.problems(slow) == ["2.50 times as fast as trl, 2 processes, below the goal of 3"]
    other = {"compared": SAME, **data.summary([pair(ONE, 1, 6), pair(TWO, 1, 4, digest="y")])}
    assert data.problems(other) == ["the token ids or labels of the timed runs differ"]
    same = {**other, "same_examples": True}
    assert data.problems({**same, "compared": {**SAME, "differing": 2, "first": 7}}) == [
        "rows differ, the first is row 7"
    ]
    assert data.problems({**same, "compared": {**SAME, "packed_differing": 1}}) == ["packing differs"]
    assert "NOT equal" in data.table({**same, "compared": {**SAME, "packed_differing": 1}})


@pytest.mark.slow
def test_the_rows_are_distinct_the_same_each_time_and_alike_in_both_layouts(tmp_path):
    data_contender.write_rows(tmp_path, 40)
    rows, theirs = ([json.loads(line) for line in (tmp_path / f"{name}.jsonl").open()] for name in ("slimtune", "trl"))
    assert rows == list(law_rows.rows(40))
    assert len({row["input"] for row in rows}) == 40
    assert {row["meta"]["mode"] for row in rows} == {"direct", "cot"}
    for row, other in zip(rows, theirs, strict=True):
        assert [turn["content"] for turn in other["prompt"] + other["completion"]] == [row["input"], row["output"]]


def test_rows_with_lines_of_their_own_share_none():
    lines = [line for row in law_rows.rows_with_own_lines(6) for text in row.values() for line in text.split("\n")]
    assert len(set(lines)) == len(lines) == 3 * (3 + 1 + 4 + 1) + 3 * (1 + 4 + 1)


def test_examples_are_taken_out_of_packed_rows():
    import datasets

    packed = datasets.Dataset.from_dict(
        {"input_ids": [[1, 2, 3, 4]], "labels": [[-100, 2, -100, 4]], "seq_lengths": [[2, 2]]}
    )
    first, second = data_contender.documents(packed)
    assert (array("i", first[0]).tolist(), array("i", first[1]).tolist()) == ([1, 2], [-100, 2])
    assert data_contender.digest([first, second]) == data_contender.digest([second, first])
    assert data_contender.digest([first]) != data_contender.digest([second])
    assert data_contender.without_line_break(second) == (array("i", [3]).tobytes(), array("i", [-100]).tobytes())
    with pytest.raises(ValueError, match="does not end with a labelled token"):
        data_contender.without_line_break((array("i", [3]).tobytes(), array("i", [-100]).tobytes()))


@pytest.mark.slow  # a process of its own: TRL without Unsloth, which changes it where it was imported before
@pytest.mark.parametrize("kind", data.KINDS)
def test_both_prepare_the_same(kind, tmp_path):
    (tmp_path / "scratch").mkdir()
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "datasets"), "CUDA_VISIBLE_DEVICES": ""}
    for arguments in (["make", str(tmp_path), "200", kind], ["compare", str(tmp_path), "200"]):
        command = [sys.executable, "-m", "benchmarks.data_contender", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["rows"], found["differing"], found["packed_differing"]) == (200, 0, 0)
    assert found["packed_rows"] < 200
