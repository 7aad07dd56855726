"""Where a base model comes from, and whether the disk has room."""

import shutil

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.models import files as base_model


def test_a_local_folder_is_taken_as_it_is(tiny_model):
    folder = tiny_model("qwen3")
    assert base_model.locate(str(folder)) == folder
    assert base_model.fetch(str(folder)) == folder


def test_a_hub_id_that_is_not_cached_is_not_at_hand():
    assert base_model.locate("unsloth/Qwen3-8B-bnb-4bit") is None


def test_a_folder_with_a_missing_shard_is_not_taken_for_a_model(tmp_path, tiny_model):
    folder = shutil.copytree(tiny_model("qwen3"), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    assert not base_model.has_weights(folder)
    with pytest.raises(SlimtuneError, match="no \\*\\.safetensors weights"):
        base_model.fetch(str(folder))
    index = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(index)
    (folder / "model-00001-of-00002.safetensors").touch()
    assert not base_model.has_weights(folder)


def test_no_room_on_the_disk_names_both_figures(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**30))
    with pytest.raises(SlimtuneError, match=r"the export needs 16\.0 GiB, and only 1\.0 GiB are free") as caught:
        base_model.require_disk_space(tmp_path / "not/there/yet", 16 * 2**30, "the export")
    assert caught.value.exit_code == 2
