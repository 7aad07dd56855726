"""Bad input gets one clear error on stderr, exit code 2, and nothing is written."""

import json
import subprocess
import sys
import time

import pytest
from support import command_line
from support.paths import ROOT

ROWS = [{"input": f"第{n}条の期間は。", "output": "abcd"[n % 4]} for n in range(8)]


@pytest.fixture(autouse=True)
def a_wide_screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def as_a_process(*arguments):
    """`python train_unsloth.py ARGUMENTS` as a person starts it."""
    command = [sys.executable, ROOT / "train_unsloth.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture
def recipe(tmp_path):
    """Writes rows and a recipe; keyword arguments replace sections."""

    def write(rows=ROWS, base="unsloth/Qwen3-4B-bnb-4bit", **sections):
        data = tmp_path / "train.jsonl"
        data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        content = {
            "name": "cli",
            "model": {"base": base},
            "data": {"train": [{"path": str(data)}]},
            "run": {"output_dir": str(tmp_path / "outputs")},
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps({**content, **sections}, ensure_ascii=False), encoding="utf-8")
        return path

    return write


def refused(done, tmp_path, *texts):
    assert done.code == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for text in texts:
        assert text in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_help_is_quick():
    started = time.monotonic()
    done = as_a_process("--help")
    assert done.returncode == 0
    assert "--recipe" in done.stdout and "--dry-run" in done.stdout
    print(f"--help took {time.monotonic() - started:.2f} s")


def test_a_dry_run_needs_no_network_and_no_gpu_and_writes_nothing(recipe, tmp_path):
    done = command_line.train("--recipe", recipe(), "--dry-run")
    assert done.code == 0, done.stderr
    assert "GeForce RTX 3080 (assumed)" in done.stdout
    assert "Predicted peak memory" in done.stdout
    assert not (tmp_path / "outputs").exists()


def test_the_script_itself_refuses_with_its_exit_code(recipe, tmp_path):
    done = as_a_process("--recipe", tmp_path / "no.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and "no.yaml: no such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_key(recipe, tmp_path):
    path = recipe(train={"epoch": 1})
    refused(
        command_line.train("--recipe", path),
        tmp_path,
        f"{path}:1 train.epoch: unknown key 'epoch'",
        "did you mean 'epochs'?",
    )


def test_a_missing_recipe_and_a_missing_data_file(recipe, tmp_path):
    refused(command_line.train("--recipe", tmp_path / "no.yaml"), tmp_path, "no.yaml: no such file")
    path = recipe(data={"train": [{"path": str(tmp_path / "trian.jsonl")}]})
    refused(command_line.train("--recipe", path), tmp_path, "trian.jsonl: no such file", "train.jsonl")


def test_bad_rows_are_all_named(recipe, tmp_path):
    rows = [ROWS[0], {"input": "", "output": "a"}, {"input": "x"}, {"input": "<|im_end|>", "output": "b"}]
    done = command_line.train("--recipe", recipe(rows))
    refused(done, tmp_path, "train.jsonl:2", "train.jsonl:3", "train.jsonl:4", "<|im_end|>")


def test_a_model_that_is_neither_here_nor_reachable(recipe, tmp_path):
    done = command_line.train("--recipe", recipe())
    refused(done, tmp_path, "'unsloth/Qwen3-4B-bnb-4bit' is neither on this machine nor reachable", "hf download")


def test_a_model_that_is_no_model(recipe, tmp_path):
    refused(
        command_line.train("--recipe", recipe(base="no such folder")),
        tmp_path,
        "model.base: no such model: no such folder",
    )
    (tmp_path / "empty").mkdir()
    refused(command_line.train("--recipe", recipe(base=str(tmp_path / "empty"))), tmp_path, "has no config.json")
    refused(command_line.train("--recipe", recipe(base="builtin:huge")), tmp_path, "builtin:", "tiny-qwen3")


def test_an_output_folder_that_cannot_be_written(recipe, tmp_path, tiny_model):
    (tmp_path / "file").write_text("in the way")
    path = recipe(base=str(tiny_model("qwen3")), run={"output_dir": str(tmp_path / "file")})
    refused(command_line.train("--recipe", path), tmp_path, "the output folder cannot be written", "run.output_dir")


def test_no_room_for_the_export_is_said_before_anything_is_loaded(tiny_model, tmp_path, recipe, monkeypatch):
    import io
    import shutil

    from slimtune.core.console import Console
    from slimtune.core.errors import SlimtuneError
    from slimtune.recipe import loading as recipes
    from slimtune.run import pipeline

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    path = recipe(base=str(tiny_model("qwen3")), export={"require_verdict": False})
    with pytest.raises(SlimtuneError, match=r"the run needs .* GiB, and only 0\.0 GiB are free") as caught:
        pipeline.run(recipes.load(path), Console(file=io.StringIO()))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "outputs").exists()


def test_a_reporter_that_is_not_installed(recipe, tmp_path):
    path = recipe(run={"output_dir": str(tmp_path / "outputs"), "report_to": ["wandb"]})
    refused(command_line.train("--recipe", path), tmp_path, "wandb is not installed", "pip install wandb")


def test_what_does_not_fit_exits_with_3(recipe, tmp_path):
    done = command_line.train("--recipe", recipe(base="unsloth/Qwen3-32B-bnb-4bit"), "--dry-run")
    assert done.code == 3
    assert "does not fit" in done.stderr
