"""Where a run may write: said in the plan, and nothing that is there is replaced."""

import pytest
from support import command_line, unprivileged
from support.paths import ROOT

from slimtune.core import output_folders
from slimtune.core.errors import SlimtuneError
from slimtune.recipe.schema import Recipe
from slimtune.run import folders

QUICKSTART = ROOT / "recipes/quickstart.yaml"


def recipe(folder, merged=None):
    made = {
        "name": "direct",
        "data": {"train": [{"path": str(folder / "data.jsonl")}]},
        "run": {"output_dir": str(folder / "outputs")},
    }
    return Recipe.model_validate(
        made | ({"export": {"merged": str(merged), "require_verdict": False}} if merged else {})
    )


def said(folder, merged=None, base=None, resumed=None):
    """What is wrong with the places; nothing has changed."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(SlimtuneError) as caught:
        folders.require(recipe(folder, merged), base, resumed)
    assert caught.value.exit_code == 2 and sorted(folder.rglob("*")) == before
    return str(caught.value)


def place(path, what):
    path.parent.mkdir(parents=True, exist_ok=True)
    if what == "file":
        path.write_text("years of work", encoding="utf-8")
    elif what == "folder":
        path.mkdir()
        (path / "thesis.txt").touch()
    elif what:
        path.symlink_to(what)


@pytest.mark.parametrize("what", ["file", "folder", "../../elsewhere", "/tmp", "notes.txt", "latest"])
def test_a_latest_that_we_did_not_make_is_refused(tmp_path, what):
    latest = tmp_path / "outputs/direct/latest"
    place(latest, what)
    assert f"{latest}: this is " in said(tmp_path)


def test_a_latest_of_ours_is_fine_also_where_its_run_is_gone(tmp_path):
    place(tmp_path / "outputs/direct/latest", "20261201T104816Z-2")
    folders.require(recipe(tmp_path), None)
    assert (tmp_path / "outputs/direct/latest").is_symlink()


@pytest.mark.parametrize("name", ["outputs", "outputs/direct"])
def test_an_output_folder_that_is_a_file(tmp_path, name):
    place(tmp_path / name, "file")
    assert f"the output folder cannot be written: {tmp_path / name} is a file, not a folder" in said(tmp_path)


@unprivileged.as_user
def test_a_read_only_output_folder(tmp_path):
    (tmp_path / "outputs").mkdir(mode=0o555)
    assert f"{tmp_path / 'outputs'}: the output folder cannot be written: Permission denied" in said(tmp_path)


@pytest.mark.parametrize(
    ("merged", "what"),
    [
        ("base", "the output is the base model"),
        ("base/merged", "the output lies in the base model"),
        (".", "the output holds the base model"),
        ("data.jsonl", "the output is data.train[0].path"),
        ("outputs", "the output holds run.output_dir"),
        ("outputs/direct/latest/merged", "the output lies in run.output_dir"),
        ("file", "this is a file; a merged model needs a folder"),
        ("mine", "this folder is there already, and is no export of merged weights"),
        ("file/merged", "is a file, not a folder"),
    ],
)
def test_merged_weights_never_replace_anything(tmp_path, merged, what):
    (tmp_path / "base").mkdir()
    (tmp_path / "data.jsonl").touch()
    place(tmp_path / "file", "file")
    place(tmp_path / "mine", "folder")
    found = said(tmp_path, tmp_path / merged, base=tmp_path / "base")
    assert what in found and "export.merged" in found


def test_merged_weights_of_another_run_are_refused_and_those_of_a_resumed_one_are_not(tmp_path):
    merged, run = tmp_path / "weights", tmp_path / "outputs/direct/20261201T104816Z"
    run.mkdir(parents=True)
    with output_folders.staged_folder(merged, what=folders.exports.merged_model_of(run / "adapter")):
        pass
    (merged / "model.safetensors").touch()
    output_folders.add(merged, "model.safetensors")
    assert "there is a merged model already" in said(tmp_path, merged)
    folders.require(recipe(tmp_path, merged), None, run)
    (merged / "notes.txt").touch()
    assert "holds files that Slimtune did not write: notes.txt" in said(tmp_path, merged, resumed=run)


@pytest.mark.parametrize("command", ["plan", "train"])
def test_it_is_said_before_anything_is_loaded_and_with_what_else_is_wrong(tmp_path, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    place(tmp_path / "quickstart/latest", "file")
    given = [f"run.output_dir={tmp_path}", f"export.merged={tmp_path}", "evaluate.max_items=100000"]
    told = (
        command_line.train("--recipe", QUICKSTART, *given)
        if command == "train"
        else command_line.run("plan", QUICKSTART, *given)
    )
    assert told.code == 2 and told.stderr.count("error:") == 1
    text = " ".join(told.stderr.split())
    assert "quickstart/latest: this is not a link that Slimtune made" in text and "export.merged" in text
    assert [path.name for path in tmp_path.rglob("*")] == ["quickstart", "latest"]
