"""Files split and split again: what is written, what is kept, and what is refused with nothing written."""

import json
from collections import Counter

import pytest
from support.questions_of_their_own import ids, read, row, text, write

from slimtune.core.errors import SlimtuneError
from slimtune.data.split_manifest import split_of
from slimtune.datatools.split.split_files import split_files


@pytest.fixture
def folder(tmp_path):
    """Forty questions in direct.jsonl and cot.jsonl, of two laws."""
    sources = [("民法", "刑法")[n // 4 % 2] for n in range(40)]
    direct = [row(n, correct="abcd"[n % 4], source=sources[n]) for n in range(40)]
    cot = [row(n, input=f"{text(n)}\n考えて", output=f"理由{n}。", correct="abcd"[n % 4]) for n in range(40)]
    write(tmp_path / "direct.jsonl", direct)
    write(tmp_path / "cot.jsonl", cot)
    return tmp_path


def paths(folder, *names):
    return [str(folder / f"{name}.jsonl") for name in names or ("direct", "cot")]


def state(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder, match, files, **options):
    """That the split is refused, and that nothing has been written."""
    before = state(folder)
    with pytest.raises(SlimtuneError, match=match) as caught:
        split_files(files, **{"test": 10, **options})
    assert state(folder) == before and caught.value.exit_code == 2
    return str(caught.value)


def test_all_rows_of_a_question_go_to_one_split(folder):
    outcome = split_files(paths(folder), test=10, dev=0.1)
    assert not outcome.unchanged and not outcome.notes
    by_split = {}
    for split, count in (("train", 26), ("dev", 4), ("test", 10)):
        by_split[split] = ids(folder / f"direct.{split}.jsonl")
        assert by_split[split] == ids(folder / f"cot.{split}.jsonl") and len(by_split[split]) == count
    assert len(set.union(*by_split.values())) == 40
    whole = read(folder / "direct.jsonl")
    parts = [one for split in by_split for one in read(folder / f"direct.{split}.jsonl")]
    assert sorted(parts, key=str) == sorted(whole, key=str)
    # The order of a file is kept, and the labels of the test set are as even as 10 of 4 can be.
    assert read(folder / "cot.train.jsonl") == [
        one for one in read(folder / "cot.jsonl") if one["meta"]["id"] in by_split["train"]
    ]
    labels = Counter(one["meta"]["correct"] for one in read(folder / "direct.test.jsonl"))
    assert sorted(labels.values()) == [2, 2, 3, 3]


def test_a_second_run_changes_nothing_in_any_order_of_files(folder):
    first = split_files(paths(folder), test=10)
    before = state(folder)
    again = split_files(paths(folder, "cot", "direct"), test=10)
    assert again.unchanged and again.manifest == first.manifest and state(folder) == before
    (folder / "cot.test.jsonl").unlink()
    assert not split_files(paths(folder), test=10).unchanged
    assert state(folder) == before


def test_near_duplicates_are_never_apart(tmp_path):
    rows = [row(n) for n in range(30)]
    for n in range(1, 10):
        rows[n]["input"] = f"{text(0)[:-1]}{n}"
    for seed in range(5):
        out = tmp_path / str(seed)
        outcome = split_files([write(tmp_path / "x.jsonl", rows)], test=12, seed=seed, out=out)
        together = {f"q{n:03d}" for n in range(10)}
        assert len({split_of(outcome.manifest)[id] for id in together}) == 1
        assert outcome.manifest["groups"] == {"count": 21, "largest": 10}


def test_another_wish_over_a_manifest_is_refused(folder):
    split_files(paths(folder), test=10)
    told = refused(folder, "these files are split already", paths(folder), test=12, seed=7)
    assert "--seed was 42, is 7; --test was 10, is 12" in told and "--again" in told and "--extend" not in told
    rows = [*read(folder / "direct.jsonl")[1:], row(50)]
    rows[0]["output"] = "d"
    write(folder / "direct.jsonl", rows)
    told = refused(folder, "of other files or other content", paths(folder))
    assert "1 are new, 0 are gone and 2 differ" in told and "places the 1 new ones" in told
    told = refused(folder, "40 are gone", [write(folder / "other.jsonl", [row(n) for n in range(60, 70)])], test=2)
    assert "--manifest" in told and "--extend" not in told


def test_extending_keeps_what_is_known(folder):
    home = split_of(split_files(paths(folder), test=10).manifest)
    write(folder / "direct.jsonl", [*read(folder / "direct.jsonl"), *(row(n) for n in range(40, 60))])
    outcome = split_files(paths(folder), test=15, redo="extend")
    after = split_of(outcome.manifest)
    assert {id: after[id] for id in home} == home and Counter(after.values()) == {"train": 45, "test": 15}
    assert split_files(paths(folder), test=15).unchanged
    with pytest.raises(SlimtuneError, match="no split to extend"):
        split_files(paths(folder), test=15, redo="extend", out=folder / "elsewhere")


def test_a_new_question_like_old_ones_of_two_splits_is_told(folder):
    home = split_of(split_files(paths(folder, "direct"), test=10).manifest)
    trained, tested = (next(id for id in home if home[id] == name) for name in ("train", "test"))
    new = [row(90, context="共有"), row(91, context="共有")]
    rows = read(folder / "direct.jsonl")
    for one in rows:
        if one["meta"]["id"] in (trained, tested):
            one["meta"]["context"] = "共有"
    write(folder / "direct.jsonl", [*rows, *new])
    outcome = split_files(paths(folder, "direct"), test=10, redo="extend")
    after = split_of(outcome.manifest)
    assert after["q090"] == after["q091"] == "test"
    assert any("in more than one split now" in note for note in outcome.notes)


def test_again_splits_anew_and_names_what_is_left_over(folder):
    split_files(paths(folder), test=10, dev=4)
    outcome = split_files(paths(folder), test=10, seed=3, redo="again")
    assert [note.split()[0] for note in outcome.notes] == ["direct.dev.jsonl", "cot.dev.jsonl"] or [
        note.split()[0] for note in outcome.notes
    ] == ["cot.dev.jsonl", "direct.dev.jsonl"]
    assert outcome.manifest["seed"] == 3 and split_files(paths(folder), test=10, seed=3).unchanged


def test_files_that_are_there_are_kept(folder):
    write(folder / "cot.test.jsonl", [row(1)])
    told = refused(folder, "exists already and has other content", paths(folder))
    assert str(folder / "cot.test.jsonl") in told
    assert split_files(paths(folder), test=10, overwrite=True).unchanged is False
    # What was changed by hand after the split is not replaced by --again either.
    write(folder / "cot.test.jsonl", [row(1)])
    refused(folder, "exists already", paths(folder), seed=4, redo="again")


def test_no_file_is_written_over_one_that_is_read(folder):
    write(folder / "direct.test.jsonl", [row(1)])
    told = refused(folder, "would replace this file", paths(folder, "direct", "direct.test"), overwrite=True)
    assert "--out" in told
    refused(folder, "would be written to one file", paths(folder, "direct", "direct"))


def test_sizes_that_cannot_be_met(folder):
    refused(folder, "40 questions: with 20 for dev and 20 for test, none is left", paths(folder), test=20, dev=0.5)
    shared = write(folder / "shared.jsonl", [row(n, context="共有") for n in range(9)])
    refused(folder, "would be empty: the largest group has 9 questions", [shared], test=3)
    write(folder / "shared.jsonl", [row(n, context="共有" if n < 9 else f"第{n}条") for n in range(12)])
    outcome = split_files([shared], test=6)
    assert [note.split(":")[0] for note in outcome.notes[:2]] == [
        "train has 9 questions instead of 6",
        "test has 3 questions instead of 6",
    ]
    assert "9 of 12 questions stay together" in outcome.notes[2]


def test_another_manifest_beside_the_first(folder):
    split_files(paths(folder, "direct"), test=10)
    outcome = split_files(paths(folder, "cot"), test=10, manifest_name="split-cot.json")
    assert outcome.path.name == "split-cot.json" and (folder / "split.json").exists()
    assert json.loads(outcome.path.read_text("utf-8"))["inputs"][0]["path"] == "cot.jsonl"
