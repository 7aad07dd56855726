"""A run knows which sets of which split its files are: in the plan, in its manifest."""

import json
import shutil
from pathlib import Path

import pytest
from support.paths import ROOT

from slimtune.datatools.split.split_files import split_files
from slimtune.recipe import loading as recipe
from slimtune.run import prepare, stages


@pytest.fixture
def folder(tmp_path):
    """The questions of the quickstart, split anew."""
    shutil.copy(ROOT / "data/quickstart/train.jsonl", tmp_path / "q.jsonl")
    split_files([str(tmp_path / "q.jsonl")], test=0.2, dev=0.1, threshold=1.0)
    return tmp_path


def prepared(folder, train, held_out, test):
    overrides = [
        f"data.train=[{{path: {folder / train}}}]",
        f"data.eval={folder / held_out}",
        f"evaluate.data={folder / test}",
        f"run.output_dir={folder / 'outputs'}",
    ]
    return prepare.prepare(recipe.load(ROOT / "recipes/quickstart.yaml", overrides))


def test_a_run_records_the_split_of_its_files(folder):
    ready = prepared(folder, "q.train.jsonl", "q.dev.jsonl", "q.test.jsonl")
    assert not any("split" in note for note in ready.plan.notes)
    manifest = json.loads((stages.open_record(ready, ready.tokenizer).directory / "manifest.json").read_text("utf-8"))
    recorded = {Path(one["file"]).name: one for one in manifest["data_splits"]}
    assert {name: one["split"] for name, one in recorded.items()} == {
        f"q.{split}.jsonl": split for split in ("train", "dev", "test")
    }
    assert {one["manifest"] for one in recorded.values()} == {str(folder / "split.json")}
    assert all(one["unchanged"] and one["seed"] == 42 for one in recorded.values())


def test_what_is_off_is_said_in_the_plan_and_recorded(folder):
    rows = (folder / "q.test.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "q.dev.jsonl").write_text("".join(rows[::2]), "utf-8")
    ready = prepared(folder, "q.test.jsonl", "q.train.jsonl", "q.dev.jsonl")
    split = folder / "split.json"
    changed = f"{folder / 'q.dev.jsonl'} has changed since {split} was written."
    held_out = f"{folder / 'q.test.jsonl'} is the test set of {split}, but this run trains on it."
    assert {changed, held_out} <= set(ready.plan.notes)
    record = stages.open_record(ready, ready.tokenizer)
    assert {changed, held_out} <= set(record.manifest["differences"])
    assert [one["unchanged"] for one in record.manifest["data_splits"]] == [True, True, False]


def test_files_beside_no_manifest_are_no_sets_of_a_split(folder):
    (folder / "split.json").unlink()
    assert prepared(folder, "q.train.jsonl", "q.dev.jsonl", "q.test.jsonl").data_splits == ()
