"""Whatever can be refused is refused before a run's folder is opened: one message, exit code 2, nothing written.

Each case is the quickstart's recipe with a fault in it. Both `plan` and `train` must name the fault, without Unsloth,
torch or a network.
"""

import importlib.machinery
import json
import shutil
import sys
from pathlib import Path

import pytest
from support import command_line
from support.faulty_recipes import CASES, Place
from support.paths import ROOT

from slimtune.cli.plan import plan
from slimtune.core import run_record
from slimtune.core.defects import MARK
from slimtune.core.errors import SlimtuneError
from slimtune.models import builtin, files
from slimtune.recipe import loading
from slimtune.run import prepare

ROWS = {"train": 12, "dev": 4, "test": 6}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few rows of the quickstart's data, by file."""
    folder = tmp_path_factory.mktemp("data")
    rows = {}
    for name, count in ROWS.items():
        lines = (ROOT / f"data/quickstart/{name}.jsonl").read_text("utf-8").splitlines(keepends=True)[:count]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        rows[name] = [json.loads(line) for line in lines]
    return folder, rows


class Refusing(importlib.machinery.PathFinder):
    """Finds Unsloth and torch, so that both can be looked for, but does not let them be imported."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target) if name in ("unsloth", "torch") else None
        if spec is not None:
            spec.loader = cls()
        return spec

    def create_module(self, spec):
        raise AssertionError(f"{spec.name} is imported")

    def exec_module(self, module):
        raise AssertionError("what is not created is not run")


@pytest.fixture(autouse=True)
def nothing_happens(monkeypatch):
    """No run's folder, no download, no heavy library."""

    def never(*_, **__):
        raise AssertionError("the fault was not found before")

    monkeypatch.setattr(run_record, "open_run", never)
    monkeypatch.setattr(files, "fetch", never)
    monkeypatch.setattr(sys, "meta_path", [Refusing, *sys.meta_path])


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_by_plan_and_by_train(name, tmp_path, data, monkeypatch):
    change, where, what = CASES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    place = Place(tmp_path, data)
    change(place)
    recipe = place.save()
    before = sorted(tmp_path.rglob("*"))
    trained = command_line.train("--recipe", recipe)
    told = " ".join(trained.stderr.split())
    assert trained.code == 2 and MARK not in told, (trained.code, trained.stderr)
    assert where in told and what in told, trained.stderr
    # A value of the recipe has its line, a row that of its file.
    assert f"{recipe}:" in told or where.endswith(": ") or where in ("mamba", "config.json of "), trained.stderr
    # Without the command line, whose other commands take longer to build than a plan.
    with pytest.raises(SlimtuneError) as planned:
        plan(str(recipe))
    assert planned.value.exit_code == 2
    assert " ".join(str(planned.value).split()) == told.removeprefix("error: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_seen_before_a_run(tmp_path, data, monkeypatch):
    place = Place(tmp_path, data)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    ended = command_line.train("--recipe", place.save())
    assert ended.code == 2 and "the run needs 0." in ended.stderr
    assert not (tmp_path / "outputs").exists()


def test_what_only_the_files_of_a_base_tell_is_told_before_its_weights_come(tmp_path, data, monkeypatch):
    place = Place(tmp_path, data)
    place.model(template="{% for m in messages %}{{ m.content }}<|endoftext|>{% endfor %}")
    folder, here, patterns = Path(place.recipe["model"]["base"]), [], []

    def download(base, revision, wanted):
        here.append(base)
        patterns.extend(wanted)
        return folder

    monkeypatch.setattr(files, "locate", lambda base, revision=None: folder if here else None)
    monkeypatch.setattr(files, "_download", download)
    place.set(model__base="Qwen/Qwen3-0.6B", export__merge_base="dequantised")
    ended = command_line.train("--recipe", place.save())
    assert ended.code == 2 and "ends a turn with <|endoftext|>" in ended.stderr, ended.stderr
    assert here == ["Qwen/Qwen3-0.6B"] and not any("safetensors" in one for one in patterns)
    assert not (tmp_path / "outputs").exists()


def with_end_of_text(place):
    """A copy of the built-in model whose tokenizer has </s>, which no family's row names."""
    place.model()
    folder, own = Path(place.recipe["model"]["base"]), builtin.resolve("builtin:tiny-qwen3")
    text = (own / "tokenizer.json").read_text("utf-8")
    (folder / "tokenizer.json").write_text(text.replace('"<|fim_pad|>"', '"</s>"'), encoding="utf-8")
    shutil.copy(own / "model.safetensors", folder)
    return folder


def test_the_control_tokens_in_texts_are_those_of_the_base(tmp_path, data):
    place = Place(tmp_path, data)
    with_end_of_text(place)
    place.rows["train"][1]["input"] += " <|eot_id|> [INST]"  # of other models
    place.set(data__train=[{"path": place.write("train")}])
    assert prepare.prepare(loading.load(place.save()), assume_card=True).examples
    place.rows["train"][4]["input"] += " </s>"
    place.set(data__train=[{"path": place.write("train")}])
    recipe = loading.load(place.save())
    with pytest.raises(SlimtuneError, match=r"train\.jsonl:5: 'input' \(user\) contains the control token </s>"):
        prepare.prepare(recipe, assume_card=True)
    other = loading.load(place.save(), ["model.base=builtin:tiny-qwen3"])
    assert prepare.prepare(other, assume_card=True).examples
    with pytest.raises(SlimtuneError, match="</s>"):
        prepare.prepare(recipe, assume_card=True)


def test_the_control_tokens_of_a_base_that_is_downloaded_are_looked_for_then(tmp_path, data, monkeypatch):
    place = Place(tmp_path, data)
    folder = with_end_of_text(place)
    place.rows["train"][4]["input"] += " </s>"
    place.set(model__base="Qwen/Qwen3-0.6B", data__train=[{"path": place.write("train")}])
    monkeypatch.setattr(files, "locate", lambda base, revision=None: None)
    prepared = prepare.prepare(loading.load(place.save()), assume_card=True)
    monkeypatch.setattr(files, "locate", lambda base, revision=None: folder)
    with pytest.raises(SlimtuneError, match=r"train\.jsonl:5: the text \(user\) contains the control token </s>"):
        prepare.after_download(prepared)


def test_faults_of_several_sections_are_shown_together(tmp_path, data):
    place = Place(tmp_path, data)
    place.meta(2, correct="e")
    place.set(data__eval="nowhere.jsonl", run__report_to=["wandb"], export__num_ctx=10**6)
    place.set(model__base="builtin:huge")
    told = command_line.train("--recipe", place.save()).stderr
    assert all(part in told for part in ("test.jsonl:2", "nowhere.jsonl", "run.report_to", "model.base")), told
    place.set(model__base="builtin:tiny-qwen3")
    assert "export.num_ctx" in command_line.train("--recipe", place.save()).stderr
