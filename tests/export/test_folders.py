"""What an export replaces: one of ours that holds nothing else, by its content; and never an input."""

import errno
import json
import os
import shutil
from types import SimpleNamespace

import pytest
from support import command_line, fake_records
from support.silent import SILENT

from slimtune.core import output_folders
from slimtune.core.errors import SlimtuneError, fail
from slimtune.evaluate.targets.opening import Loading
from slimtune.export import folders, from_adapter
from slimtune.recipe.schema import ExportSection

CARD = "---\ntags:\n- slimtune\n---\n"
PROVEN = {"passed": True, "reference": "merged model", "files": {"law.q8_0.gguf": {"passed": True}}}
OLD_EXPORT = {
    "parity.json": json.dumps(PROVEN),
    "law.q8_0.gguf": "GGUF",
    "law.lora.gguf": "GGUF",
    "Modelfile": "FROM ./law.q8_0.gguf\n",
    "golden.jsonl": "",
    "ollama.json": "{}",
    "merged/model-00001-of-00002.safetensors": "",
    "merged/README.md": CARD,
    "merged/chat_template.jinja": "",
}
OLD_MERGED = {"README.md": CARD, "config.json": "{}", "model.safetensors": "", "tokenizer.json": "{}"}


def fill(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def said(ours, folder):
    before = sorted(folder.rglob("*"))
    with pytest.raises(SlimtuneError) as caught:
        ours(folder)
    assert sorted(folder.rglob("*")) == before and str(folder) in str(caught.value)
    return str(caught.value)


def test_what_earlier_versions_made_is_known_by_its_content(tmp_path):
    folders.require_ours(fill(tmp_path / "exp", OLD_EXPORT))
    folders.require_merged_ours(fill(tmp_path / "mm", OLD_MERGED))
    # Before the proof had its file, the run's manifest named what was exported.
    run = fill(tmp_path / "run", {"manifest.json": json.dumps({"export": {"gguf": ["law.q8_0.gguf"]}})})
    folders.require_ours(fill(run / "export", {"law.q8_0.gguf": "GGUF", "Modelfile": ""}))
    with output_folders.staged_folder(tmp_path / "exp", what=folders.EXPORT, ours=folders.require_ours) as folder:
        fill(folder, {"parity.json": "{}"})
    assert sorted(path.name for path in (tmp_path / "exp").iterdir()) == [".slimtune", "parity.json"]


@pytest.mark.parametrize(
    "name", ["thesis.txt", "merged/notes.md", "other.q8_0.gguf", "merged/a/b.json", "x/parity.json"]
)
def test_names_that_an_export_never_has_are_somebodys(tmp_path, name):
    folder = fill(tmp_path / "exp", {**OLD_EXPORT, name: "years of work"})
    assert f"holds files that Slimtune did not write: {name}" in said(folders.require_ours, folder)
    merged = fill(tmp_path / "mm", {**OLD_MERGED, name: "years of work"})
    assert "holds files that Slimtune did not write" in said(folders.require_merged_ours, merged)


@pytest.mark.parametrize(
    "files",
    [
        {"parity.json": "{}"},
        {"parity.json": "[1]", "Modelfile": ""},
        {"parity.json": '{"passed": 1, "files": 7}'},
        {"Modelfile": "FROM x", "x.q8_0.gguf": "GGUF"},
        {"README.md": "---\ntags: other\n---\n", "model.safetensors": ""},
        {"manifest.json": "{}"},
    ],
)
def test_a_look_alike_is_not_ours(tmp_path, files):
    folder = fill(tmp_path / "exp", files)
    assert "this folder holds something else" in said(folders.require_ours, folder)
    assert "is no export of merged weights" in said(folders.require_merged_ours, folder)


@pytest.fixture
def adapter(tmp_path):
    """An adapter of the built-in model, as far as it is looked at before it is asked."""
    config = {"base_model_name_or_path": "builtin:tiny-qwen3", "peft_type": "LORA", "r": 8}
    return fill(tmp_path / "adapter", {"adapter_config.json": json.dumps(config), "adapter_model.safetensors": ""})


class NothingBegun:
    """Progress that must not begin."""

    def step(self, text):
        raise AssertionError(f"begun: {text}")

    say = warn = step


def content(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def refused(adapter, out, merged=None):
    """What is said of these places before the adapter is asked; nothing has changed."""
    before = content(adapter.parent)
    wanted = ExportSection(merged=str(merged) if merged else None)
    with pytest.raises(SlimtuneError) as caught:
        from_adapter.export(adapter, wanted, Loading(), NothingBegun(), out=out, fresh=True)
    assert caught.value.exit_code == 2 and content(adapter.parent) == before
    return str(caught.value)


@pytest.mark.parametrize(
    ("out", "merged", "what"),
    [
        ("adapter", None, "the output is the adapter"),
        ("adapter/exp", None, "the output lies in the adapter"),
        (".", None, "the output holds the adapter"),
        ("link", None, "the output is the adapter"),
        ("exp", "adapter", "the output is the adapter"),
        ("exp", "link/mm", "the output lies in the adapter"),
        ("exp", "exp", "the output is --out"),
        ("exp", "exp/mm", "the output lies in --out"),
        ("mm/exp", "mm", "the output holds --out"),
        ("file", None, "this is a file; an export needs a folder"),
        ("file/exp", None, "is a file, not a folder"),
        ("mine", None, "this folder holds something else"),
        ("exp", "mine", "is no export of merged weights"),
        ("exp", "file", "this is a file; a merged model needs a folder"),
        ("ours", None, "holds files that Slimtune did not write: notes.txt"),
        ("proven", None, "proven.unverified: this folder holds something else"),
        ("exp", "~nobody-of-this-name/mm", "there is no user"),
    ],
)
def test_places_that_would_cost_somebody_a_file_are_refused_before_anything_is_asked(
    adapter, tmp_path, out, merged, what
):
    (tmp_path / "link").symlink_to(adapter)
    fill(tmp_path, {"file": "years of work", "mine/thesis.txt": "", "proven.unverified/thesis.txt": ""})
    fill(tmp_path / "ours", {**OLD_EXPORT, "notes.txt": ""})
    if merged and merged.startswith("~"):
        told = command_line.run("export", adapter, "--out", tmp_path / out, "--merged", merged)
        assert told.code == 2 and what in told.stderr and "defect" not in told.stderr
    else:
        assert what in refused(adapter, tmp_path / out, merged and tmp_path / merged)


def test_a_runs_adapter_is_not_exported_into_the_run(adapter, tmp_path):
    run = tmp_path / "run"
    fill(run, {"manifest.json": "{}"})
    for place in ("adapter", "checkpoints/checkpoint-4"):
        adapter = shutil.copytree(adapter, run / place)
        assert "the output lies in its run" in refused(adapter, run / "mine")
        assert "the output is its run" in refused(adapter, tmp_path / "exp", merged=run)


@pytest.fixture
def ship(tmp_path, monkeypatch):
    """ship(make, merged=None) -> an export to `exp` of what `make(staged, merged folder)` writes, without a model."""
    from slimtune.export import build

    monkeypatch.setattr(build.adapter_files, "check", lambda *given: None)
    shipment = SimpleNamespace(adapter=tmp_path / "adapter", base_folder=None, sixteen_bit_base=lambda say: (None, ""))

    def run(make, merged=None):
        shipment.merged_folder = merged
        monkeypatch.setattr(build, "_make", lambda shipment, twin, staged, folder, *more: make(staged, folder) or {})
        return build.ship(shipment, tmp_path / "exp", SILENT)

    return run


def export(staged, merged):
    fill(staged, {"parity.json": json.dumps(PROVEN), "law.q8_0.gguf": "new"})
    fill(merged, OLD_MERGED)


def test_an_export_and_its_merged_weights_are_replaced_whole(ship, tmp_path):
    around = {
        f"{name}/thesis.txt": "" for name in ("exp.old", "exp.unverified", "mm.old", "mm.unverified", "mm.partial")
    }
    fill(tmp_path, {**around, "mm-16bit.unverified/thesis.txt": "", ".exp.partial/thesis.txt": ""})
    before = content(tmp_path)
    fill(tmp_path / "exp", OLD_EXPORT)
    fill(tmp_path / "mm", OLD_MERGED)
    for _ in range(2):
        ship(export, tmp_path / "mm")
    assert content(tmp_path).items() > before.items()
    made = {str(path.relative_to(tmp_path)) for path in content(tmp_path).keys() - before.keys()}
    exported = {"exp", "exp/.slimtune", "exp/parity.json", "exp/law.q8_0.gguf"}
    assert made == exported | {"mm", "mm/.slimtune"} | {f"mm/{name}" for name in OLD_MERGED}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_write_that_fails_leaves_the_earlier_export_and_nothing_else(ship, tmp_path, number):
    ship(export, tmp_path / "mm")
    before = content(tmp_path)

    def fail(staged, merged):
        export(staged, merged)
        raise OSError(number, os.strerror(number), str(staged / "law.q8_0.gguf"))

    with pytest.raises(SlimtuneError) as caught:
        ship(fail, tmp_path / "mm")
    assert str(tmp_path / "exp") in str(caught.value) and ".partial" not in str(caught.value)
    assert content(tmp_path) == before


@pytest.mark.parametrize("where", ["exp", "mm"])
def test_a_file_that_somebody_puts_there_meanwhile_keeps_both_as_they_were(ship, tmp_path, where):
    ship(export, tmp_path / "mm")

    def put(staged, merged):
        export(staged, merged)
        (tmp_path / where / "notes.txt").touch()

    with pytest.raises(SlimtuneError, match=r"holds files that Slimtune did not write: notes\.txt"):
        ship(put, tmp_path / "mm")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp", "mm"]
    assert (tmp_path / where / "notes.txt").is_file()


def test_what_fails_its_proof_stays_as_evidence_and_its_error_names_the_place(ship, tmp_path):
    from slimtune.export import build

    def unproven(staged, merged):
        with build._evidence_kept(staged, folders.unverified(tmp_path / "exp")):
            fill(staged, {"parity.json": '{"passed": false, "reference": "x"}'})
            raise fail("another model", where=str(staged / "parity.json"))

    for _ in range(2):
        with pytest.raises(SlimtuneError) as caught:
            ship(unproven)
        assert str(tmp_path / "exp.unverified/parity.json") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["exp.unverified"]
    (tmp_path / "exp.unverified/notes.txt").touch()
    with pytest.raises(SlimtuneError, match=r"exp\.unverified: the folder would be replaced"):
        folders.require_free(tmp_path / "exp", fresh=True)


def test_a_runs_own_folder_is_no_place_for_merged_weights(tmp_path):
    run = fill(tmp_path / "outputs/direct/20261201T104816Z", {"adapter/adapter_config.json": "{}"})
    recipe, manifest = fake_records.recipe(), fake_records.manifest()
    records = {"recipe.yaml": recipe, "manifest.json": manifest, "plan.json": fake_records.plan()}
    fill(run, {name: json.dumps(record) for name, record in records.items()})
    fill(run, {f"export/{name}": text for name, text in OLD_EXPORT.items()})
    before = content(tmp_path)
    for merged, what in ((run, "is the run"), (run / "mm", "lies in the run"), (tmp_path, "holds the run")):
        told = command_line.run("export", run, "--fresh", "--force", "--merged", merged)
        assert told.code == 2 and what in told.stderr, told.stderr
    (run / "export/notes.txt").touch()
    told = command_line.run("export", run, "--fresh", "--force")
    assert told.code == 2 and "holds files that Slimtune did not write: notes.txt" in told.stderr
    (run / "export/notes.txt").unlink()
    assert content(tmp_path) == before
