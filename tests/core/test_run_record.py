"""A run's folder: recipe first, complete last, nothing reused, no tokens, nothing half-written."""

import json
import os
import shutil
import signal
import sys

import pytest

from slimtune.core import run_record
from slimtune.core.errors import SlimtuneError
from slimtune.core.files import write_json
from slimtune.core.memory import Meter


@pytest.fixture
def opened(tmp_path):
    def open_run(name="direct"):
        return run_record.open_run(
            tmp_path / "outputs",
            name,
            recipe="name: direct\n",
            plan={"settings": {}, "notes": ["On a CPU: padded batches instead of packing."]},
            command=["train_unsloth.py", "--token", "hf_abcdefghijklmnop"],
            hashes={"recipe": "0" * 64},
        )

    return open_run


def manifest(record):
    return json.loads((record.directory / "manifest.json").read_text(encoding="utf-8"))


def test_a_new_folder_holds_recipe_and_plan_and_is_the_latest(opened, tmp_path):
    record = opened()
    assert (record.directory / "recipe.yaml").read_text(encoding="utf-8") == "name: direct\n"
    assert json.loads((record.directory / "plan.json").read_text(encoding="utf-8"))["notes"]
    assert (tmp_path / "outputs/direct/latest").resolve() == record.directory.resolve()
    assert manifest(record)["complete"] is False
    assert manifest(record)["differences"] == ["On a CPU: padded batches instead of packing."]


def test_a_folder_is_never_reused(opened, tmp_path):
    first, second = opened(), opened()
    assert first.directory != second.directory
    assert (tmp_path / "outputs/direct/latest").resolve() == second.directory.resolve()


def test_the_manifest_is_complete_only_when_closed_so(opened):
    record = opened()
    record.update(timings={"load": 1.0})
    with record.phase("train"):
        assert manifest(record)["status"] == "running"
    record.close("complete")
    closed = manifest(record)
    assert (closed["status"], closed["complete"]) == ("complete", True)
    assert set(closed["timings"]) == {"load", "train"}


def test_the_moment_that_a_report_shows_stays(opened):
    record = opened()
    record.update(status="complete", finished="2026-11-22T05:41:17Z")
    record.close("complete")
    assert (manifest(record)["finished"], manifest(record)["complete"]) == ("2026-11-22T05:41:17Z", True)
    record.close("failed")
    assert manifest(record)["finished"] > "2026-11-22T05:41:17Z"


def test_tokens_do_not_reach_the_record(opened):
    text = (opened().directory / "manifest.json").read_text(encoding="utf-8")
    assert "hf_abcdefghijklmnop" not in text
    assert "hf_…" in text
    assert run_record.redact("key sk-abcdef123456 and wandb_v1_abcdefgh") == "key sk-… and wandb_v1_…"


def test_events_and_metrics_are_lines(opened):
    record = opened()
    record.event("overfitting", "the loss rises", step=3, values=[1, 2])
    record.metric({"step": 1, "loss": 0.5})
    events = [json.loads(line) for line in (record.directory / "events.jsonl").read_text("utf-8").splitlines()]
    assert [event["event"] for event in events] == ["run_opened", "overfitting"]
    assert events[1]["values"] == [1, 2]
    metric = json.loads((record.directory / "metrics.jsonl").read_text("utf-8"))
    assert (metric["step"], metric["loss"]) == (1, 0.5)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path, opened):
    (tmp_path / "outputs").write_text("a file stands in the way")
    with pytest.raises(SlimtuneError, match="the output folder cannot be written") as caught:
        opened()
    assert caught.value.exit_code == 2
    assert "run.output_dir" in str(caught.value)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert json.loads(path.read_text("utf-8")) == {"old": 1}


def test_what_an_earlier_process_measured_stays(opened):
    first = opened()
    with first.phase("train"):
        pass
    again = run_record.RunRecord(first.directory, manifest(first), Meter())
    with again.phase("export"):
        pass
    assert set(manifest(again)["memory"]["phases"]) == {"train", "export"}


def killed_at(moment, opened):
    """Open a run in a child that is killed at its moment-th change of the file system; False where it has fewer."""
    child = os.fork()
    if child == 0:  # pragma: no cover
        seen = 0

        def audit(event, arguments):
            nonlocal seen
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.symlink"):
                seen += 1
                if seen == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        run_record.files.sync_path = lambda path: None  # slow, and a kill is no power cut
        sys.addaudithook(audit)
        opened()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_is_opened_leaves_a_whole_folder_or_none(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(run_record, "git_state", lambda: None)
    runs, kills = tmp_path / "outputs" / "direct", 0
    while killed_at(kills + 1, opened):
        kills += 1
        for folder in runs.glob("2*"):
            assert (folder / "recipe.yaml").is_file() and json.loads((folder / "plan.json").read_text("utf-8"))
            assert json.loads((folder / "manifest.json").read_text("utf-8"))["run_id"] == folder.name
    assert kills > 10
    assert (runs / "latest").resolve() == max(runs.glob("2*"), key=lambda folder: folder.stat().st_mtime_ns)
    # A folder that was just made has no marker that says whose it is.
    assert [path for path in runs.glob(".opening.*") if (path / "recipe.yaml").exists()] == []


def test_two_runs_that_take_a_name_at_once_have_a_folder_each(opened, monkeypatch):
    monkeypatch.setattr(run_record.os.path, "lexists", lambda path: False)
    assert opened().directory != opened().directory


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_folder_that_has_gone_is_not_made_again(opened, how):
    record = opened()
    record.directory.rename(record.directory.with_name("elsewhere"))
    if how == "removed":
        shutil.rmtree(record.directory.with_name("elsewhere"))
    if how == "replaced":
        record.directory.mkdir()
    for write in (
        lambda: record.event("x", "y"),
        lambda: record.metric({"step": 1}),
        lambda: record.update(a=1),
        lambda: record.write_json("x.json", 1),
        lambda: record.write_lines("x.jsonl", [{}]),
    ):
        with pytest.raises(SlimtuneError, match="moved or removed while the run was using it"):
            write()
    assert record.directory.exists() == (how == "replaced")
    assert how != "replaced" or list(record.directory.iterdir()) == []


def test_an_interruption_is_told_rather_than_the_folder_that_has_gone_with_it(opened):
    record = opened()
    with pytest.raises(KeyboardInterrupt), record.phase("train"):
        shutil.rmtree(record.directory)
        raise KeyboardInterrupt


def test_a_line_that_was_cut_off_makes_room_for_the_next_one(opened):
    record = opened()
    path = record.directory / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"time": "20')
    record.event("resumed", "again")
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[0] == whole and json.loads(lines[1])["event"] == "resumed" and len(lines) == 2


@pytest.mark.parametrize("name", ["events.jsonl", "metrics.jsonl"])
def test_a_full_disk_under_a_line_is_one_sentence(opened, name):
    record = opened()
    (record.directory / name).unlink(missing_ok=True)
    (record.directory / name).symlink_to("/dev/full")
    with pytest.raises(SlimtuneError, match=r"jsonl: the disk is full\n    → free some space"):
        record.event("x", "y") if name == "events.jsonl" else record.metric({"step": 1})


def test_names_that_are_not_utf_8_are_recorded(tmp_path):
    record = run_record.open_run(
        tmp_path, "direct", recipe="", plan={}, command=["slimtune", "caf\udce9.yaml"], hashes={"caf\udce9": "0"}
    )
    record.event("read", "caf\udce9.yaml")
    assert manifest(record)["command"] == ["slimtune", "caf\udce9.yaml"]
    assert r"caf\udce9.yaml" in (record.directory / "events.jsonl").read_text("utf-8")
