"""Contenders are read from runs, result folders and files, and named so that a person knows them."""

import json
from pathlib import Path

import pytest
from support.contenders import choice

from slimtune.core.errors import SlimtuneError
from slimtune.evaluate.judge.compare import compare
from slimtune.evaluate.judge.contenders import read


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = content if isinstance(content, list) else [content]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "direct" / "20261122T052000Z"
    write(folder / "manifest.json", {"name": "direct", "run_id": folder.name})
    write(folder / "eval" / "base.jsonl", choice("", range(40)).answers)
    write(folder / "eval" / "tuned.jsonl", choice("", range(60)).answers)
    messages = [{"role": "user", "content": "問"}]
    write(folder / "eval" / "items.jsonl", [{"id": f"q{index}", "messages": messages} for index in range(100)])
    return folder


def test_a_run_is_its_tuned_model_unless_its_base_is_asked_for(run):
    tuned, base = read(run), read(Path(f"{run}:base"))
    assert (tuned.name, base.name) == ("direct 20261122T052000Z", "direct 20261122T052000Z base")
    assert sum(row["predicted"] == row["gold"] for row in base.answers) == 40
    assert base.asked["q3"]["messages"][0]["content"] == "問"
    assert compare([base, tuned])["pairs"][0]["verdict"] == "better"


def test_what_the_training_data_gave_away_is_a_note(run):
    found = [{"id": "q1", "kind": "exact"}, {"id": "q2", "kind": "shared context"}]
    write(run / "eval" / "contamination.json", {"items": found})
    assert read(run).notes == ("1 of 100 items are in the training data of direct 20261122T052000Z",)
    assert read(Path(f"{run}:base")).notes == ()


def test_a_result_folder_is_known_by_its_model(tmp_path):
    folder = tmp_path / "results"
    write(folder / "answers.jsonl", choice("", range(50)).answers)
    write(folder / "evaluation.json", {"target": {"name": "qwen3:8b"}, "data": {"items": 140}, "complete": False})
    contender = read(folder)
    assert contender.name == "qwen3:8b"
    assert contender.notes == ("the evaluation of qwen3:8b is not complete: 100 of 140 items",)
    with pytest.raises(SlimtuneError, match="only one model's answers"):
        read(Path(f"{folder}:base"))


def test_a_result_folder_of_a_tuned_model_has_both(tmp_path):
    folder = tmp_path / "results"
    for name in ("base", "tuned"):
        write(folder / f"{name}.jsonl", choice("", range(50)).answers)
    assert (read(folder).name, read(Path(f"{folder}:base")).name) == ("results", "results base")


def test_a_file_is_known_by_its_name(tmp_path):
    write(tmp_path / "mine.jsonl", choice("", range(50)).answers)
    write(tmp_path / "law" / "answers.jsonl", choice("", range(50)).answers)
    assert read(tmp_path / "mine.jsonl").name == "mine"
    assert read(tmp_path / "law" / "answers.jsonl").name == "law answers"


def test_places_without_results_are_errors(tmp_path, run):
    with pytest.raises(SlimtuneError, match="no such run, result folder or file"):
        read(tmp_path / "nowhere")
    with pytest.raises(SlimtuneError, match="there are no answers"):
        read(tmp_path)
    write(run / "eval" / "evaluation.json", [])
    with pytest.raises(SlimtuneError, match=r"evaluation\.json cannot be read"):
        read(run)
