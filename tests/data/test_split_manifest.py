"""The manifest as it is read, and what it says of the files of a run."""

import hashlib
import json
from pathlib import Path

import pytest
from support.command_line import run as slimtune
from support.paths import ROOT
from support.questions_of_their_own import row, write

from slimtune.core.defects import MARK
from slimtune.core.errors import SlimtuneError
from slimtune.data import split_manifest
from slimtune.datatools.split.split_files import split_files


@pytest.fixture
def folder(tmp_path):
    split_files([write(tmp_path / "x.jsonl", [row(n) for n in range(20)])], test=5)
    return tmp_path


def hashes(*files):
    return {str(file): hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files}


def test_files_of_a_split_are_recorded(folder):
    train, test = str(folder / "x.train.jsonl"), str(folder / "x.test.jsonl")
    found = split_manifest.recorded(hashes(train, test, folder / "x.jsonl"))
    manifest = folder / "split.json"
    sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
    expected = {"manifest": str(manifest), "manifest_sha256": sha256, "seed": 42, "unchanged": True}
    assert found == [{"file": train, "split": "train", **expected}, {"file": test, "split": "test", **expected}]
    assert split_manifest.notes(found, [train]) == []


def test_a_changed_file_and_one_that_is_held_out_are_told(folder):
    train, test = str(folder / "x.train.jsonl"), str(folder / "x.test.jsonl")
    write(folder / "x.train.jsonl", [row(1)])
    said = split_manifest.notes(split_manifest.recorded(hashes(train, test)), [test])
    assert said == [
        f"{train} has changed since {folder / 'split.json'} was written.",
        f"{test} is the test set of {folder / 'split.json'}, but this run trains on it.",
    ]


def test_every_manifest_of_the_folder_counts_and_other_files_do_not(folder):
    write(folder / "y.jsonl", [row(n) for n in range(30, 40)])
    split_files([str(folder / "y.jsonl")], test=5, manifest_name="split-y.json")
    (folder / "split-broken.json").write_text("{")
    (folder / "split-old.json").write_text('{"seed": 1, "splits": {}}')
    (folder / "split-list.json").write_text("[]")
    found = split_manifest.recorded(hashes(folder / "y.test.jsonl", folder / "x.test.jsonl"))
    assert [Path(one["manifest"]).name for one in found] == ["split-y.json", "split.json"]


def test_a_file_that_is_no_manifest_is_refused(folder):
    path = folder / "split.json"
    whole = json.loads(path.read_text("utf-8"))
    assert split_manifest.read(path) == whole and split_manifest.read(folder / "split-none.json") is None
    for text in (
        "{",
        "[]",
        json.dumps(whole | {"version": 2}),
        json.dumps({**whole, "files": None} | {"seed": 1})[:-2],
    ):
        path.write_text(text, "utf-8")
        with pytest.raises(SlimtuneError, match="`data split` did not write"):
            split_manifest.read(path)


def test_the_law_sets_have_an_earlier_form_that_lists_no_files():
    assert split_manifest.recorded(hashes(ROOT / "data/law/direct_rag.train.jsonl")) == []
    with pytest.raises(SlimtuneError, match="--manifest"):
        split_manifest.read(ROOT / "data/law/split.json")


SOUND = {"seed": (7,), "sizes": ({},), "threshold": (7, -0.5), "inputs": ([],), "files": ([],)}


@pytest.mark.parametrize("key", ["seed", "sizes", "threshold", "inputs", "files", "splits", "groups"])
def test_every_key_of_another_form_is_named(folder, key):
    path = folder / "split.json"
    whole = json.loads(path.read_text("utf-8"))
    for value in (None, "x", 7, -0.5, True, [], {}, [1], [{"name": 1}], {"train": []}):
        if value is not True and value in SOUND.get(key, ()):
            continue
        path.write_text(json.dumps(whole | {key: value}), "utf-8")
        with pytest.raises(SlimtuneError, match=f"did not write this file: '{key}' is of another form"):
            split_manifest.read(path)
        assert split_manifest.recorded(hashes(folder / "x.train.jsonl")) == []
    outcome = slimtune("data", "split", folder / "x.jsonl", "--test", 5)
    assert (outcome.code, MARK in outcome.stderr) == (2, False), outcome
