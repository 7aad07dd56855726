"""A trained adapter among other people's files: an ensemble, an evaluation and an export write what was named, and no more."""

import shutil

import pytest
from support.command_line import run
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
