"""`data split` as a person uses it: what it says, what it exits with, what it leaves behind."""

import json

import pytest
from support.command_line import run
from support.questions_of_their_own import ids, read, row, write


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.jsonl", [row(n, source="民法") for n in range(40)])
    return tmp_path


def test_sizes_labels_and_the_manifest_are_shown(folder):
    out = run("data", "split", "x.jsonl", "--test", "0.25", "--dev", 4)
    assert out.code == 0 and not out.stderr
    rows = [line.split() for line in out.stdout.splitlines() if line.split()[:1] in (["all"], ["dev"], ["test"])]
    assert [row[:3] for row in rows] == [["all", "40", "40"], ["dev", "4", "4"], ["test", "10", "10"]]
    assert "a 25.0 %  b 25.0 %" in out.stdout and "split.json: written" in out.stdout
    assert len(ids(folder / "x.train.jsonl")) == 26
    again = run("data", "split", "x.jsonl", "--test", "0.25", "--dev", 4)
    assert again.code == 0 and "split.json: unchanged" in again.stdout


def test_a_refused_split_writes_nothing(folder):
    run("data", "split", "x.jsonl", "--test", 10)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    out = run("data", "split", "x.jsonl", "--test", 12)
    assert out.code == 2 and "--test was 10, is 12" in out.stderr and not out.stdout
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    out = run("data", "split", "x.jsonl", "--test", 12, "--again")
    assert out.code == 0 and len(ids(folder / "x.test.jsonl")) == 12


def test_extend_takes_new_questions_in(folder):
    run("data", "split", "x.jsonl", "--test", 10)
    held_out = ids(folder / "x.test.jsonl")
    write(folder / "x.jsonl", [*read(folder / "x.jsonl"), row(50)])
    out = run("data", "split", "x.jsonl", "--test", 10, "--extend")
    assert out.code == 0 and ids(folder / "x.test.jsonl") == held_out
    assert "q050" in ids(folder / "x.train.jsonl")


def test_out_manifest_and_overwrite(folder):
    write(folder / "x.test.jsonl", [row(1)])
    arguments = ("data", "split", "x.jsonl", "--test", 10)
    assert run(*arguments).code == 2
    out = run(*arguments, "--out", "there", "--manifest", "split-x.json")
    assert out.code == 0 and json.loads((folder / "there/split-x.json").read_text("utf-8"))["sizes"]["test"] == 10
    assert run(*arguments, "--overwrite").code == 0 and len(read(folder / "x.test.jsonl")) == 10


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--test", "many", "--dev", "-1"), "'many' is not a valid size"),
        (("--test", "1.5"), "'1.5' is not a valid size"),
        (("--test", "nan"), "'nan' is not a valid size"),
        (("--test", "0"), "nothing is held out"),
        (("--test", "4", "--again", "--extend"), "exclude each other"),
        (("--test", "4", "--manifest", "../split.json"), "is not a valid manifest name"),
        (("--test", "4", "--extend"), "no split to extend"),
        (("--test", "40"), "none is left for training"),
    ],
)
def test_wrong_options(folder, arguments, told):
    out = run("data", "split", "x.jsonl", *arguments)
    assert out.code == 2 and told in out.stderr
    assert [path.name for path in folder.iterdir()] == ["x.jsonl"]
    if "-1" in arguments:
        assert "--dev: '-1' is not a valid size" in out.stderr


def test_the_threshold_parts_what_is_of_one_template(folder):
    words = "秋冬春夏朝昼夕夜東西南北"
    sentence = "株式会社の取締役は株主総会の決議によって選任されその任期は{}に終わるものとするがこれは正しいか"
    write(folder / "t.jsonl", [row(n, input=sentence.format(words[n])) for n in range(12)])
    out = run("data", "split", "t.jsonl", "--test", 3)
    assert out.code == 2 and "the largest group has 12 questions that stay together" in out.stderr
    out = run("data", "split", "t.jsonl", "--test", 3, "--threshold", 1)
    assert out.code == 0 and len(read(folder / "t.test.jsonl")) == 3
