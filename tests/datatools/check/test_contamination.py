"""Evaluation items in a training file that is read piece by piece."""

from dataclasses import replace

import pytest
from support.paths import ROOT

from slimtune.data.loading import load_conversations
from slimtune.datatools.check import contamination

LAW = ROOT / "data/law"
TEST = str(LAW / "test.jsonl")


def load(name):
    return load_conversations([(str(LAW / name), 1.0)]).conversations


def placed(rows):
    return [replace(row, path="train.jsonl", line=line) for line, row in enumerate(rows, start=1)]


def found(rows, evaluation):
    compared = contamination.Contamination("train.jsonl", evaluation)
    for start in range(0, len(rows), 10):
        compared.add(rows[start : start + 10])
    return [(one.level, one.code, one.where) for one in compared.findings()]


@pytest.fixture(scope="module")
def evaluation():
    return contamination.read([TEST])


@pytest.mark.parametrize("rows_at_once", [10, 1000])
def test_what_is_found_does_not_depend_on_the_pieces(evaluation, monkeypatch, rows_at_once):
    monkeypatch.setattr(contamination, "ROWS_AT_ONCE", rows_at_once)
    training, test = load("direct_norag.train.jsonl"), load("test.jsonl")
    rows = placed([*training[:30], test[3], *training[30:60], test[3], test[8]])
    assert found(rows, evaluation) == [("warning", "contamination", f"train.jsonl:{n}") for n in (31, 62, 63)]


def test_a_shared_context_is_one_note(evaluation):
    rows = placed(load("direct_rag.train.jsonl")[:30])
    rows[4].meta["context"] = load("test.jsonl")[0].meta["context"]
    assert found(rows, evaluation) == [("note", "shared-context", "train.jsonl:5")]


def test_more_copies_than_are_kept(evaluation):
    rows = placed([*load("direct_norag.train.jsonl")[:30], *[load("test.jsonl")[3]] * 12])
    *named, last = found(rows, evaluation)
    assert last == ("warning", "contamination", "train.jsonl")  # more than these
    assert len(named) == contamination.overlap.MOST_CANDIDATES
    assert {where for _, _, where in named} <= {f"train.jsonl:{n}" for n in range(31, 43)}


def test_a_file_is_not_compared_with_itself(evaluation):
    rows = load("test.jsonl")
    compared = contamination.Contamination(TEST, evaluation)
    compared.add(rows)
    (finding,) = compared.findings()
    assert finding.where == TEST and "this file is also the evaluation file" in finding.what


def test_faults_are_findings_and_their_file_has_no_items(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"input": "a", "output": "b"}\n{"input": "c"}\n')
    read = contamination.read([str(path), TEST, TEST])
    assert [(one.level, one.code, one.where) for one in read.findings] == [("error", "evaluation-file", f"{path}:2")]
    assert {item.path for item in read.items} == {TEST} and read.paths == (str(path), TEST)
