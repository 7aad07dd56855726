"""It loses nothing: the real command with a real fault in it, then resumed.

Every story begins in a place of its own. Resumed = undisturbed means the same bits: the adapter, and every loss, gradient
norm, learning rate and evaluation loss that was logged.
"""

import json
import os
import re
import shutil
import signal

import pytest
from support.short_run import differences, logged

pytestmark = pytest.mark.fault

SAME_LOSS = 4e-6
"""Pieces of a batch add up the same products in another order, see tests/support/scarce_memory.py."""
BAD_INPUT = 2


FIRST_RUNS = {
    "killed": {"fault": "kill_while_writing", "step": 6},
    "killed_after_training": {"fault": "kill_after_training"},
    "ctrl_c": {"fault": "send", "number": signal.SIGINT, "step": 3},
    "sigterm": {"fault": "send", "number": signal.SIGTERM, "step": 3},
    "ctrl_c_twice": {"fault": "send", "number": signal.SIGINT, "step": 4, "times": 2},
    "standing_still": {"fault": "send", "number": signal.SIGSTOP, "step": 3},
    "full_disk": {"fault": "no_space", "step": 4},
    "full_disk_under_the_metrics": {"fault": "no_space_for", "name": "metrics.jsonl"},
    "output_closed": {"fault": "output_closed", "step": 3},
    "output_full": {"fault": "output_full", "step": 3},
    "terminal_closed": {"fault": "terminal_closed", "step": 3},
    "nan": {"fault": "nan_loss", "step": 5},
}


@pytest.fixture(scope="module")
def first_runs(runs):
    """name -> (place, run begun there): side by side, which takes half the time on two cores."""
    places = {name: runs.place(name) for name in FIRST_RUNS}
    return {name: (place, place.start(**FIRST_RUNS[name])) for name, place in places.items()}


@pytest.fixture
def place(runs, request):
    return runs.place(re.sub(r"\W+", "_", request.node.name))


@pytest.fixture(scope="module")
def killed(first_runs):
    """A place where a run was killed in its last step: it has checkpoint-2 and checkpoint-4."""
    place, run = first_runs["killed"]
    assert run.ended()[0] == -signal.SIGKILL
    assert place.checkpoints() == [".partial-checkpoint-6", "checkpoint-2", "checkpoint-4"]
    return place


def assert_same_as_undisturbed(place):
    assert differences(place.run(), place.runs.undisturbed) == []


def finish(place, *arguments):
    """Resume, with no fault, to the undisturbed end; returns what was printed."""
    code, text = place.resume(*arguments)
    assert code == 0, text
    assert_same_as_undisturbed(place)
    return text


def how_to_go_on(place):
    return f"Resume with: python train_unsloth.py --recipe {place.folder / 'recipe.yaml'} --resume auto"


def test_the_undisturbed_run_trains_at_all(runs):
    losses = [line["loss"] for line in logged(runs.undisturbed) if "loss" in line]
    assert len(losses) == 6 and losses[-1] < losses[0]
    assert [line["step"] for line in logged(runs.undisturbed) if "eval_loss" in line] == [2, 4, 6]


def test_killed_while_a_checkpoint_was_written(place, killed):
    place.copy_of(killed)
    text = finish(place)
    assert "Resumed after step 4" in text
    [told] = place.events("leftover")
    assert told["message"].startswith(".partial-checkpoint-6, left by an interrupted process")
    assert [event["step"] for event in place.events("resumed")] == [4]
    assert place.checkpoints() == ["checkpoint-4", "checkpoint-6"]


@pytest.mark.parametrize(("name", "code"), [("ctrl_c", 130), ("sigterm", 143)])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(first_runs, name, code):
    place, run = first_runs[name]
    ended, text = run.ended()
    assert ended == code, text
    assert "stopping after this step" in text and how_to_go_on(place) in text
    assert place.checkpoints() == ["checkpoint-2", "checkpoint-3"]
    assert place.manifest()["status"] == "interrupted" and not place.manifest()["complete"]
    [event] = place.events("interrupted")
    assert event["resume"].endswith("--resume auto")
    assert "Resumed after step 3" in finish(place)


def test_a_second_ctrl_c_quits_at_once(first_runs):
    place, run = first_runs["ctrl_c_twice"]
    code, text = run.ended()
    assert code == 130, text
    assert how_to_go_on(place) in text and "Traceback" not in text
    assert place.checkpoints() == ["checkpoint-2"]
    finish(place)


def test_killed_after_its_last_step_it_trains_no_other(first_runs):
    # The last step is not an epoch's last: transformers alone would take a seventh one.
    place, run = first_runs["killed_after_training"]
    assert run.ended()[0] == -signal.SIGKILL
    assert (place.run() / "adapter").is_dir()
    assert "Resumed after step 6" in finish(place)
    assert place.checkpoints() == ["checkpoint-4", "checkpoint-6"]
    assert [event["step"] for event in place.events("trained")] == [6, 6]


@pytest.mark.slow
def test_early_stopping_remembers_its_count(runs):
    # Only wrong letters are learned: first that letters are answered, then which, and the evaluation loss rises.
    undisturbed, resumed = runs.place("stopped_early"), runs.place("stopped_early_resumed")
    wrong = runs.folder / "wrong.jsonl"
    rows = [json.loads(line) for line in (runs.folder / "train.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        row["output"] = next(letter for letter in "abcd" if letter != row["meta"]["correct"])
    wrong.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    for place in (undisturbed, resumed):
        place.write_recipe(
            data={"train": [{"path": str(wrong)}]}, train={"max_steps": 24, "early_stopping_patience": 2}
        )
    assert undisturbed.do()[0] == 0
    last = undisturbed.events("trained")[0]["step"]
    assert last < 24
    assert resumed.do(fault="send", number=signal.SIGINT, step=last - 1)[0] == 130  # one rise is counted
    assert resumed.resume(fault="kill_after_training")[0] == -signal.SIGKILL
    assert resumed.resume()[0] == 0
    assert [event["step"] for event in resumed.events("trained")] == [last, last]
    assert differences(resumed.run(), undisturbed.run()) == []


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("optimizer.pt", lambda path: os.truncate(path, 1000), "optimizer.pt is truncated: 1,000 of"),
        ("rng_state.pth", lambda path: path.unlink(), "rng_state.pth is missing (the random number generators' state)"),
        ("adapter_model.safetensors", flip, "adapter_model.safetensors is damaged: its SHA-256 is another"),
    ],
)
def test_a_broken_checkpoint_is_passed_over_with_its_reason(place, killed, name, damage, reason):
    place.copy_of(killed)
    damage(place.run() / "checkpoints/checkpoint-4" / name)
    text = finish(place)
    [event] = place.events("checkpoint_skipped")
    assert event["message"].startswith(f"checkpoint-4 is not used: {reason}")
    assert "warning: checkpoint-4 is not used" in text and "Resumed after step 2" in text


def test_a_changed_recipe_is_refused_with_old_and_new_value(place, killed):
    place.copy_of(killed)
    before = sorted(path.relative_to(place.outputs) for path in place.outputs.rglob("*"))
    code, text = place.resume("train.learning_rate=1e-3", "lora.dropout=0")
    assert code == BAD_INPUT
    assert "train.learning_rate: was 0.005, is 0.001" in text and "lora.dropout: was 0.1, is 0.0" in text
    assert "Loading Unsloth" not in text
    assert sorted(path.relative_to(place.outputs) for path in place.outputs.rglob("*")) == before


def test_a_change_that_teaches_nothing_else_is_accepted(place, killed):
    place.copy_of(killed)
    finish(place, "train.save_total_limit=1", "about.purpose=another")


def test_changed_data_are_refused(place, killed):
    place.copy_of(killed)
    path = place.runs.folder / "train.jsonl"
    content = path.read_bytes()
    try:
        path.write_bytes(content.replace("次のうち".encode(), "次の中".encode(), 1))
        code, text = place.resume()
    finally:
        path.write_bytes(content)
    assert code == BAD_INPUT
    assert "train.jsonl: the file has changed since the run began" in text and "put the old file back" in text


def test_a_finished_run_says_so(place):
    shutil.copytree(place.runs.undisturbed.parent.parent, place.outputs, symlinks=True)
    code, text = place.resume()
    assert (code, "is complete already" in text) == (0, True)
    assert_same_as_undisturbed(place)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "checkpoints/checkpoint-6/thesis.txt",
            "checkpoint-6: a checkpoint would replace this: Slimtune did not write it",
        ),
        ("adapter/thesis.txt", "adapter: this is not a folder that Slimtune made"),
        ("export/thesis.txt", "export: this folder holds something else"),
    ],
)
def test_what_somebody_put_into_the_run_is_named_and_stays(place, killed, name, told):
    place.copy_of(killed)
    mine = place.run() / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("years of work", encoding="utf-8")
    code, text = place.resume()
    assert code == BAD_INPUT and told in text and "Loading Unsloth" not in text
    assert mine.read_text(encoding="utf-8") == "years of work"
    mine.unlink()
    if name.startswith("checkpoints"):
        mine.parent.rmdir()
        finish(place)


def test_nothing_to_resume(place):
    code, text = place.resume()
    assert code == BAD_INPUT
    assert "no run to resume" in text and "leave --resume out" in text


def test_two_runs_on_one_folder_and_the_lock_of_a_dead_one(first_runs):
    place, first = first_runs["standing_still"]
    assert first.answer() == "stopped"
    before = (place.run() / "events.jsonl").read_bytes()
    code, text = place.resume()
    assert code == BAD_INPUT
    assert f"another run is using this folder: process {first.pid} on" in text and f"kill {first.pid}" in text
    assert (place.run() / "events.jsonl").read_bytes() == before
    os.kill(first.pid, signal.SIGKILL)
    assert first.ended()[0] == -signal.SIGKILL
    text = finish(place)
    assert f"replaced a lock left over by process {first.pid}" in text and "that process is gone" in text


def test_an_output_folder_that_cannot_be_written_fails_before_the_model_loads(place):
    place.outputs.write_text("", encoding="utf-8")
    code, text = place.do()
    assert code == BAD_INPUT
    assert "the output folder cannot be written" in text and "set run.output_dir" in text
    assert "Loading Unsloth" not in text


def test_a_read_only_output_folder_fails_before_the_model_loads(place):
    place.outputs.mkdir(mode=0o555)
    code, text = place.do(fault="give_up_privileges")
    assert code == BAD_INPUT
    assert "the output folder cannot be written: Permission denied" in text and "Loading Unsloth" not in text


def test_a_full_disk(first_runs):
    place, run = first_runs["full_disk"]
    code, text = run.ended()
    assert code == BAD_INPUT
    assert "checkpoint-4 could not be written: No space left on device" in text and how_to_go_on(place) in text
    assert place.checkpoints() == ["checkpoint-2"]
    assert place.manifest()["status"] == "failed"
    [event] = place.events("failed")
    assert "checkpoint-2 stay" in event["message"] or "checkpoint-2 stays" in event["message"]
    finish(place)


def test_a_full_disk_under_another_file(first_runs):
    place, run = first_runs["full_disk_under_the_metrics"]
    code, text = run.ended()
    assert code == BAD_INPUT, text
    assert text.count("metrics.jsonl: the disk is full") == 1 and how_to_go_on(place) in text
    assert "defect" not in text and "Traceback" not in text
    assert place.manifest()["status"] == "failed"
    finish(place)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["events.jsonl", "manifest.json", "base.jsonl", "tuned.jsonl", "verdict.json", "report"]
)
def test_a_full_disk_under_any_file(place, name):
    code, text = place.do(fault="no_space_for", name=name)
    assert code in (0, BAD_INPUT), text
    assert "defect" not in text and "Traceback" not in text
    assert code == 0 or "the disk is full" in text
    finish(place)


@pytest.mark.parametrize(("name", "code"), [("output_closed", 141), ("output_full", 2), ("terminal_closed", 129)])
def test_a_lost_output_ends_the_step_and_saves(first_runs, name, code):
    place, run = first_runs[name]
    ended, text = run.ended()
    assert ended == code, text
    # A closed output is noticed when something is printed, which is not in every step.
    last = logged(place.run())[-1]["step"]
    assert place.checkpoints()[-1] == f"checkpoint-{last}" and (last == 3 or name != "terminal_closed")
    assert place.manifest()["status"] == "interrupted"
    assert "Traceback" not in text and "Exception ignored" not in text
    if name != "terminal_closed":  # standard error is there still
        assert "the output cannot be written: " in text and how_to_go_on(place) in text
    finish(place)


def test_an_output_folder_that_is_removed_is_not_made_again(place):
    code, text = place.do(fault="folder_gone", step=3, outputs=str(place.outputs))
    assert code == BAD_INPUT, text
    assert "the run's folder was moved or removed while the run was using it" in text
    assert "start the run again without --resume" in text and "Resume with" not in text
    assert "Traceback" not in text and not place.outputs.exists()
    assert place.do()[0] == 0
    assert_same_as_undisturbed(place)


def test_a_loss_that_is_not_a_number(first_runs):
    place, run = first_runs["nan"]
    code, text = run.ended()
    assert code == BAD_INPUT
    assert "step 5 is not finite and was not taken" in text
    rows = re.findall(r"train\.jsonl:\d+: in the batch", text)
    assert len(rows) == 4  # of one micro-batch
    assert place.checkpoints() == ["checkpoint-2", "checkpoint-4"]
    assert "the last finite checkpoint is kept" in text and "checkpoint-4" in text
    finish(place)


def test_out_of_memory_at_the_first_step_later_and_in_evaluation(runs):
    # Without dropout, which a step that is begun anew draws anew. A micro-batch has 4 examples of 42 tokens: 168 in all.
    enough, short = runs.place("enough_memory"), runs.place("short_of_memory")
    same = ("lora.dropout=0", "train.learning_rate=1e-3")
    limits = {"training": [[1, 100], [4, 50]], "evaluation": 100}
    undisturbed = enough.start(*same, fault="short_of_memory", training=[], evaluation=None)
    code, text = short.do(*same, fault="short_of_memory", **limits)
    assert undisturbed.ended()[0] == 0
    assert code == 0, text

    happened = [(event["phase"], event["step"], event["limit_tokens"]) for event in short.events("out_of_memory")]
    assert happened == [("training", 1, 84), ("evaluation", 2, 84), ("training", 4, 42)]
    assert text.count("warning: Out of memory in") == 3
    kept = short.manifest()["memory_limits"]
    assert kept == {"training_tokens": 42, "evaluation_tokens": 84, "recompute_all": False}

    ours, theirs = logged(short.run()), logged(enough.run())
    for line, expected in zip(ours, theirs, strict=True):
        for key in ("step", "epoch", "learning_rate", "num_input_tokens_seen"):
            assert line.get(key) == expected.get(key)
        for key in {"loss", "eval_loss"} & expected.keys():
            assert line[key] == pytest.approx(expected[key], abs=SAME_LOSS, rel=0)
