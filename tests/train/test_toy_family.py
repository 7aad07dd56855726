"""A family registered from outside goes through plan, load, training, audit and judging: no file of the package names it."""

import json

import pytest
import yaml
from support.paths import ROOT
from support.toy_family import toy_family, write_model  # noqa: F401  a fixture

pytestmark = pytest.mark.unsloth


def test_a_toy_family_is_planned_trained_audited_and_judged(tmp_path, toy_family, monkeypatch):  # noqa: F811
    import io

    from slimtune.core.console import Console
    from slimtune.recipe import loading
    from slimtune.run import pipeline

    monkeypatch.chdir(ROOT)
    base = tmp_path / "base"
    base.mkdir()
    write_model(base)
    recipe = tmp_path / "toy.yaml"
    settings = {
        "name": "toy",
        "model": {"base": str(base), "max_seq_length": 256},
        "data": {"train": [{"path": "data/quickstart/train.jsonl"}]},
        "train": {"max_steps": 2, "effective_batch_size": 4, "learning_rate": 1e-3, "gradient_checkpointing": False},
        "budget": {"vram_gb": None},
        "evaluate": {"data": "data/quickstart/test.jsonl", "max_items": 4},
        "run": {"output_dir": str(tmp_path / "outputs")},
    }
    recipe.write_text(yaml.safe_dump(settings), encoding="utf-8")
    run = pipeline.run(loading.load(recipe), Console(file=io.StringIO()))
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    assert manifest["complete"]
    settings = json.loads((run / "plan.json").read_text("utf-8"))["settings"]
    assert settings["lora_targets"]["value"] == list(toy_family.lora_targets["full"])
    audit = (run / "mask_audit.json").read_text("utf-8")
    assert json.loads(audit)
    assert len((run / "eval/tuned.jsonl").read_text("utf-8").splitlines()) == 4
