"""The benchmark of `data check` plants what it says, and its problems are told."""

import json

import pytest

from benchmarks import data_check


@pytest.mark.slow
def test_faults_are_planted_and_found(tmp_path, monkeypatch):
    for name, value in {"_ITEMS": 5, "_ITEM_EVERY": 100, "_PHONE_EVERY": 40}.items():
        monkeypatch.setattr(data_check, name, value)
    items = data_check.write_evaluation(tmp_path / "evaluation.jsonl")
    phones, leaks = data_check.write_rows(tmp_path / "rows.jsonl", 150, items)
    assert (len(phones), leaks) == (3, {"100:contamination"})
    measured = data_check.measure(tmp_path / "rows.jsonl", [str(tmp_path / "evaluation.jsonl")])
    assert set(measured["places"]) == phones | leaks
    assert measured["rows"] == 150 and measured["evaluation_items"] == len(items)
    assert json.dumps(measured)


def test_what_makes_a_result_void():
    case = {"rows": 100_000, "seconds": 59.0, "evaluation_items": 0, "planted": 3, "found": 3, "found_by_mistake": 0}
    assert data_check.problems([case]) == []
    assert data_check.problems([case | {"seconds": 61.0}]) == ["100,000 rows: 61.0 s, the goal is under 60 s"]
    assert "not what was planted" in data_check.problems([case | {"found": 2}])[0]
    assert "not what was planted" in data_check.problems([case | {"found_by_mistake": 1}])[0]
