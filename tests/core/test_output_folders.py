"""Folders that are replaced whole: what is not ours is never removed, and a kill or a full disk loses nothing."""

import errno
import json
import os

import psutil
import pytest

from slimtune.core import files
from slimtune.core import output_folders as outputs
from slimtune.core.errors import SlimtuneError


def make(target, *names, what="an export"):
    """A finished folder of ours with files of these names."""
    with outputs.staged_folder(target, what=what) as folder:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("ours", encoding="utf-8")
    return target


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_a_folder_of_ours_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    make(tmp_path / "exp", "a", "merged/b")
    make(tmp_path / "exp", "c")
    assert names_in(tmp_path) == ["exp/.slimtune", "exp/c"]
    marker = json.loads((tmp_path / "exp/.slimtune").read_text("utf-8"))
    # It may be given away, and then says nothing of this machine.
    assert marker.keys() == {"made_by", "what", "files"} and "c" in marker["files"]


@pytest.mark.parametrize("name", ["thesis.txt", "merged/notes.md", "link"])
def test_a_folder_into_which_somebody_put_a_file_is_not(tmp_path, name):
    target = make(tmp_path / "exp", "a", "merged/b")
    if name == "link":
        (target / name).symlink_to(tmp_path)
    else:
        (target / name).write_text("years of work", encoding="utf-8")
    before = names_in(tmp_path)
    with pytest.raises(SlimtuneError, match=f"holds files that Slimtune did not write: {name}") as caught:
        make(target, "c")
    assert str(target) in str(caught.value) and names_in(tmp_path) == before
    with pytest.raises(SlimtuneError, match="did not write"):
        outputs.discard(target)
    assert names_in(tmp_path) == before


def test_a_file_that_is_noted_is_ours_and_one_that_is_being_written_too(tmp_path):
    target = make(tmp_path / "exp", "a")
    outputs.add(target, "later.json")
    files.write_json(target / "later.json", {})
    (target / ".later.json.slimtune-1-0123abcd.partial").touch()
    assert outputs.foreign_files(target) == []
    outputs.discard(target)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("what", ["file", "folder", "link", "a list", "a lie"])
def test_what_has_the_name_and_not_our_marker_stays(tmp_path, what):
    target, mine = tmp_path / "exp", tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").touch()
    if what == "file":
        target.touch()
    elif what == "link":
        target.symlink_to(mine)
    else:
        mine.rename(target)
        lies = {"a list": "[1]", "a lie": '{"made_by": "slimtune", "what": "x", "files": {"thesis.txt": 1}}'}
        if what in lies:
            (target / ".slimtune").write_text(lies[what], encoding="utf-8")
    before = names_in(tmp_path)
    with pytest.raises(SlimtuneError) as caught:
        make(target, "a")
    assert str(target) in str(caught.value) and caught.value.exit_code == 2
    assert names_in(tmp_path) == before


def test_names_that_we_would_use_are_nobodys_reason_to_remove(tmp_path):
    for name in ("exp.old", "exp.partial", "exp.unverified", ".exp.old", ".exp.0123456789abcdef.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").touch()
    before = names_in(tmp_path)
    make(tmp_path / "exp", "a")
    outputs.discard(tmp_path / "exp")
    assert names_in(tmp_path) == before


@pytest.fixture
def a_dead_process():
    """The number and the start of a process that has ended."""
    child = os.fork()
    if not child:
        os._exit(0)
    started = psutil.Process(child).create_time()
    os.waitpid(child, 0)
    return child, started


def test_a_kill_between_two_renames_gives_the_earlier_folder_back(tmp_path, a_dead_process):
    make(tmp_path / "exp", "first").rename(tmp_path / ".exp.0123456789abcdef.old")
    (tmp_path / ".exp.fedcba9876543210.partial").mkdir()
    left = {"made_by": "slimtune", "what": "x", "host": os.uname().nodename}
    left |= {"process": a_dead_process[0], "started": a_dead_process[1]}
    (tmp_path / ".exp.fedcba9876543210.partial/.slimtune").write_text(json.dumps(left), encoding="utf-8")
    outputs.remove_leftovers(tmp_path / "exp")
    assert names_in(tmp_path) == ["exp/.slimtune", "exp/first"]


def test_what_a_living_process_writes_is_not_a_leftover(tmp_path):
    make(tmp_path / "exp", "first")
    with outputs.staged_folder(tmp_path / "exp", what="x") as folder:
        outputs.remove_leftovers(tmp_path / "exp")
        assert (folder / ".slimtune").is_file()
    assert names_in(tmp_path) == ["exp/.slimtune"]


@pytest.mark.parametrize("earlier", [True, False])
def test_what_another_process_makes_meanwhile_stays(tmp_path, earlier):
    if earlier:
        make(tmp_path / "exp", "first")

    def both():
        with outputs.staged_folder(tmp_path / "exp", what="x"):
            make(tmp_path / "exp", "second")

    with pytest.raises(SlimtuneError, match="another process has made this folder meanwhile"):
        both()
    assert names_in(tmp_path) == ["exp/.slimtune", "exp/second"]


@pytest.mark.parametrize("when", ["work", "rename"])
def test_a_full_disk_is_one_sentence_and_the_earlier_folder_is_unharmed(tmp_path, monkeypatch, when):
    make(tmp_path / "exp", "a")
    before, rename = names_in(tmp_path), outputs.Path.rename

    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def rename_but_the_last(path, target):
        return full() if path.name.endswith(".partial") else rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(SlimtuneError) as caught:
        if when == "rename":
            patch.setattr(outputs.Path, "rename", rename_but_the_last)
        with outputs.staged_folder(tmp_path / "exp", what="x") as folder:
            if when == "work":
                patch.setattr(os, "fsync", full)
                files.write_text(folder / "b", "text")
    said = str(caught.value)
    assert "the disk is full" in said and str(tmp_path / "exp") in said and ".partial" not in said
    assert names_in(tmp_path) == before


def test_outputs_lie_apart_from_inputs_and_from_each_other(tmp_path):
    adapter, base = tmp_path / "adapter", tmp_path / "base"
    adapter.mkdir()
    (tmp_path / "same").symlink_to(adapter)
    inputs = {"the adapter": adapter, "the base model": base}
    outputs.require_apart({"--out": tmp_path / "exp", "--merged": tmp_path / "weights"}, inputs)
    wrong = {"--out": tmp_path / "same", "--merged": tmp_path / "same" / "x"}
    with pytest.raises(SlimtuneError) as caught:
        outputs.require_apart(wrong, inputs)
    said = [f"{one.where.split()[0]}: {one.what}" for one in caught.value.problems]
    assert said == [
        f"--out: the output is the adapter ({adapter})",
        f"--merged: the output lies in the adapter ({adapter})",
        f"--merged: the output lies in --out ({tmp_path / 'same'})",
    ]
    with pytest.raises(SlimtuneError, match=r"the output holds the adapter .*\n.*\n.*the output holds the base model"):
        outputs.require_apart({"--out": tmp_path}, inputs)
