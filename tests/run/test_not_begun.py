"""`--resume auto` after a run that was killed before it had begun."""

import json
import os
import signal
import time

import pytest

from slimtune.core import run_record
from slimtune.core.errors import SlimtuneError
from slimtune.recipe.schema import Recipe
from slimtune.run import resume


@pytest.fixture
def recipe(tmp_path):
    data = {"train": [{"path": "unused"}]}
    return Recipe.model_validate({"name": "r", "data": data, "run": {"output_dir": str(tmp_path)}})


def opened(tmp_path, **changes):
    return run_record.open_run(tmp_path, "r", recipe="name: r\n", plan={}, command=["train"], hashes={}, **changes)


def killed_while_opening(tmp_path, monkeypatch):
    child = os.fork()
    if child == 0:  # pragma: no cover
        monkeypatch.setattr(run_record, "_named", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        opened(tmp_path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def found(recipe):
    said = []
    return resume.find("auto", recipe, said.append), said


def test_killed_while_it_was_opened_it_is_started_again(recipe, tmp_path, monkeypatch):
    killed_while_opening(tmp_path, monkeypatch)
    earlier, [said] = found(recipe)
    assert earlier is None and said.endswith("ended before the run had begun. A new run is started.")
    record = opened(tmp_path)
    earlier, said = found(recipe)
    assert (earlier.directory.name, said) == (record.directory.name, [])
    assert [path.name for path in record.directory.parent.iterdir() if path.name.startswith(".")] == []


def test_the_newest_counts(recipe, tmp_path, monkeypatch):
    record = opened(tmp_path)
    record.close("complete")
    assert found(recipe)[0].complete
    time.sleep(0.02)
    killed_while_opening(tmp_path, monkeypatch)
    assert found(recipe)[0] is None
    os.utime(record.directory, (time.time() + 10,) * 2)  # it was used later
    assert found(recipe)[0].complete


@pytest.mark.parametrize("content", [{}, {"recipe.yaml": "na"}, {"recipe.yaml": "name: r\n", "plan.json": '{"set'}])
def test_a_folder_that_an_earlier_version_left_half_made(recipe, tmp_path, content):
    record = opened(tmp_path)
    folder = tmp_path / "r" / "29991231T235959Z"
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_text(text, encoding="utf-8")
    earlier, [said] = found(recipe)
    assert earlier is None and said.startswith(f"{folder} ended before the run had begun")
    with pytest.raises(SlimtuneError, match="29991231T235959Z: ") as caught:
        resume.find(str(folder), recipe, print)
    assert not content or "start the run again, without --resume" in str(caught.value)
    assert resume.find(str(record.directory), recipe, print).directory == record.directory


@pytest.mark.parametrize("name", ["manifest.json", "plan.json", "recipe.yaml"])
def test_a_record_that_is_cut_off_is_named(recipe, tmp_path, name):
    record = opened(tmp_path)
    path = record.directory / name
    path.write_bytes(path.read_bytes()[:1])
    with pytest.raises(SlimtuneError, match=name):
        found(recipe)


def test_no_run_at_all_is_said(recipe):
    with pytest.raises(SlimtuneError, match="no run to resume"):
        found(recipe)


def test_a_run_that_another_process_has_finished_meanwhile_is_not_begun_again(recipe, tmp_path):
    record = opened(tmp_path)
    earlier = found(recipe)[0]
    resume.require_unchanged(earlier)
    record.close("complete")
    with pytest.raises(SlimtuneError, match="another process has gone on with this run"):
        resume.require_unchanged(earlier)
    assert json.loads((record.directory / "manifest.json").read_text("utf-8"))["complete"]
