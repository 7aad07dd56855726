"""A trained adapter among other people's files: an ensemble, an evaluation and an export write what was named, and no more."""

import shutil

import pytest
from support.command_line import run
from support.disks import small_disk
from support.paths import ROOT
from support.sentinels import WORK, changed, ends, plant, tree

pytestmark = [pytest.mark.unsloth, pytest.mark.slow]


def test_what_a_model_gives_is_written_where_it_was_named(good, tmp_path, monkeypatch):
    trained, _ = good
    monkeypatch.chdir(ROOT)  # the run's recipe names its data from here
    plant(tmp_path)
    shutil.rmtree(
        tmp_path / "exp.unverified"
    )  # somebody's folder there is refused: an export that fails needs the name
    shutil.rmtree(tmp_path / "mm.unverified")
    checkpoint = max((trained / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    before, of_run = tree(tmp_path), tree(trained)
    commands = {
        "ens": ("ensemble", trained, checkpoint, "--max-items", "8", "--out", tmp_path / "ens"),
        "ev": ("evaluate", trained, "--max-items", "8", "--out", tmp_path / "ev"),
        "exp": (
            *("export", trained / "adapter", "--gguf", "q8_0", "--out", tmp_path / "exp"),
            "--merged",
            tmp_path / "mm",
        ),
    }
    for name, arguments in commands.items():
        ends(run(*arguments), 0)
        folders = (name, "mm") if name == "exp" else (name,)
        written = changed(before, tree(tmp_path))
        assert written and {path.partition("/")[0] for path in written} == set(folders)
        if name != "exp":
            (tmp_path / name / "notes.jsonl").write_bytes(WORK)
        before = tree(tmp_path)
        ends(run(*arguments, "--fresh"), 0)
        assert {path.partition("/")[0] for path in changed(before, tree(tmp_path))} == set(folders)
        before = tree(tmp_path)
        assert before.get(f"{name}/notes.jsonl") or name == "exp"
    assert changed(of_run, tree(trained)) == set()


@pytest.mark.parametrize("share", [0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_an_export_on_a_disk_that_fills_is_one_sentence_and_leaves_nothing(good, tmp_path, monkeypatch, share):
    """Another program fills it after the room was checked; share: of what the export holds."""
    trained, _ = good
    plant(tmp_path / "others")
    arguments = ("export", trained / "adapter", "--gguf", "q8_0")
    ends(run(*arguments, "--out", tmp_path / "whole", "--merged", tmp_path / "whole-16bit"), 0)
    written = [path for name in ("whole", "whole-16bit") for path in (tmp_path / name).rglob("*") if path.is_file()]
    (tmp_path / "disk").mkdir()
    before, of_run = tree(tmp_path), tree(trained)
    monkeypatch.chdir(tmp_path)
    with small_disk(tmp_path / "disk", int(share * sum(path.stat().st_size for path in written))) as enlarge:
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(2**40, 0, 2**40))
            done = run(*arguments, "--out", "disk/exp", "--merged", "disk/mm")
        ends(done, 2)
        assert "No space left on device" in done.stderr or "the disk is full" in done.stderr
        assert changed(before, tree(tmp_path)) == set()
        enlarge()
        ends(run(*arguments, "--out", "disk/exp", "--merged", "disk/mm"), 0)
    assert changed(of_run, tree(trained)) == set()
