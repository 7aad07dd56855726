"""A damaged checkpoint is never gone on from; a resumed run equals a straight one."""

import json
import os
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.paths import folders_in

from slimtune.core.errors import SlimtuneError
from slimtune.train.safeguards import checkpoints, saving

pytestmark = pytest.mark.unsloth


def adapter(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def logged(trainer):
    keys = ("step", "loss", "learning_rate", "grad_norm")
    return [tuple(entry[key] for key in keys) for entry in trainer.state.log_history if "loss" in entry]


def test_a_saved_checkpoint_is_valid_and_nothing_else_is_left(finished):
    assert folders_in(finished.folder) == ["checkpoint-3", "checkpoint-6", "checkpoint-8"]
    assert [checkpoints.verify(path) for path in finished.folder.glob("checkpoint-*")] == [None] * 3
    assert [(step, path.name) for step, path, _, _ in finished.saved] == [
        (3, "checkpoint-3"),
        (6, "checkpoint-6"),
        (8, "checkpoint-8"),
    ]
    newest = finished.folder / "checkpoint-8"
    assert finished.saved[-1][2] == sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
    manifest = json.loads((newest / "checkpoint.json").read_text("utf-8"))
    listed = set(manifest["files"])
    assert manifest["step"] == 8
    assert listed == {path.name for path in newest.iterdir()} - {"checkpoint.json"}
    assert {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} < listed
    assert "training_args.bin" not in listed  # a pickle that nothing reads
    assert checkpoints.newest_valid(finished.folder) == checkpoints.Found(newest, 8, ())


@pytest.mark.fault
def test_resumed_in_mid_epoch_equals_straight_bit_for_bit(build, finished, tmp_path):
    """Straight: 8 steps and one checkpoint, HF's own, at the end. Interrupted in step 5: goes on from step 3 of 4."""
    straight = build(tmp_path / "straight", save_steps=100)
    straight.train()

    interrupted = build(tmp_path / "run")
    saving.keep_whole(interrupted, lambda *told: None)
    step = interrupted.training_step

    def until_the_fifth(*arguments, **named):
        if interrupted.state.global_step == 4:
            raise KeyboardInterrupt
        return step(*arguments, **named)

    interrupted.training_step = until_the_fifth
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()

    found = checkpoints.newest_valid(tmp_path / "run" / "checkpoints")
    assert (found.step, found.skipped) == (3, ())
    resumed = build(tmp_path / "run")
    saving.keep_whole(resumed, lambda *told: None)
    resumed.train(resume_from_checkpoint=str(found.path))

    assert len(logged(straight)) == 8
    assert len({loss for _, loss, _, _ in logged(straight)}) == 8
    assert logged(resumed) == logged(straight) == logged(finished.trainer)
    wanted, got, unbroken = adapter(straight), adapter(resumed), adapter(finished.trainer)
    assert wanted.keys() == got.keys()
    assert all((wanted[name] == got[name]).all() and (wanted[name] == unbroken[name]).all() for name in wanted)
    # The files that the two runs ended with hold the same, too.
    assert {p.dtype for p in got.values()} == {p.dtype for p in wanted.values()}
    ended = [tmp_path / "run/checkpoints/checkpoint-8", finished.folder / "checkpoint-8"]
    for name in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        assert ended[0].joinpath(name).read_bytes() == ended[1].joinpath(name).read_bytes(), name


@pytest.mark.fault
def test_rotation_keeps_the_best_and_every_path_is_the_final_one(build, tmp_path):
    trainer = build(tmp_path, eval_losses=[3.0, 1.0, 2.0, 2.5, 2.2], save_steps=1, save_total_limit=2, max_steps=5)
    saving.keep_whole(trainer, lambda *told: None)
    loaded, load, precision = [], trainer._load_best_model, {p.dtype for p in adapter(trainer).values()}
    trainer._load_best_model = lambda: (loaded.append(trainer.state.best_model_checkpoint), load())
    trainer.train()
    folder = tmp_path / "checkpoints"
    assert folders_in(folder) == ["checkpoint-2", "checkpoint-5"]
    assert trainer.state.best_model_checkpoint == str(folder / "checkpoint-2")
    assert loaded == [str(folder / "checkpoint-2")]
    assert {p.dtype for p in adapter(trainer).values()} == precision  # PEFT would have made it fp32
    for path in folder.glob("checkpoint-*"):  # the best one names itself
        state = json.loads((path / "trainer_state.json").read_text("utf-8"))
        assert state["best_model_checkpoint"] == str(folder / "checkpoint-2")
        assert checkpoints.verify(path) is None

    (folder / "checkpoint-2" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(SlimtuneError, match=r"best checkpoint is broken: adapter_model.safetensors is truncated"):
        trainer._load_best_model()


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path, at=-3):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def rewrite_state(path, text):
    """A trainer state that the manifest agrees with."""
    path.write_text(text, "utf-8")
    (path.parent / "checkpoint.json").unlink()
    checkpoints.seal(path.parent, 8)


DAMAGE = {
    "manifest missing": ("checkpoint.json", lambda path: path.unlink(), "checkpoint.json is missing"),
    "manifest cut": ("checkpoint.json", cut, "checkpoint.json is damaged"),
    "manifest not UTF-8": ("checkpoint.json", lambda path: path.write_bytes(b"\xff"), "checkpoint.json is damaged"),
    "manifest a list": ("checkpoint.json", lambda path: path.write_text("[]\n"), "checkpoint.json is damaged"),
    "manifest nested": ("checkpoint.json", lambda path: path.write_text("[" * 100_000), "checkpoint.json is damaged"),
    "adapter missing": ("adapter_model.safetensors", lambda path: path.unlink(), "is missing (the adapter)"),
    "optimizer missing": ("optimizer.pt", lambda path: path.unlink(), "is missing (the optimizer's state)"),
    "scheduler missing": ("scheduler.pt", lambda path: path.unlink(), "is missing (the scheduler's state)"),
    "rng missing": ("rng_state.pth", lambda path: path.unlink(), "is missing (the random number generators' state)"),
    "state missing": ("trainer_state.json", lambda path: path.unlink(), "is missing (the trainer's state)"),
    "tokenizer missing": ("tokenizer.json", lambda path: path.unlink(), "tokenizer.json is missing"),
    "adapter cut": ("adapter_model.safetensors", cut, "adapter_model.safetensors is truncated"),
    "optimizer empty": ("optimizer.pt", lambda path: path.write_bytes(b""), "optimizer.pt is truncated: 0 of "),
    "scheduler longer": ("scheduler.pt", lambda path: path.open("ab").write(b"x"), "scheduler.pt has another size"),
    "one bit of the adapter": ("adapter_model.safetensors", flip, "adapter_model.safetensors is damaged"),
    "one bit of the rng": ("rng_state.pth", flip, "rng_state.pth is damaged"),
    "state unreadable": (
        "trainer_state.json",
        lambda path: rewrite_state(path, "{"),
        "trainer_state.json is unreadable",
    ),
    "state of another step": (
        "trainer_state.json",
        lambda path: rewrite_state(path, '{"global_step": 6}'),
        "trainer_state.json is of step 6, and the folder's name says 8",
    ),
    "an adapter that PEFT would unpickle": (
        "adapter_model.bin",
        lambda path: path.write_bytes(pickle.dumps({})),
        "adapter_model.bin is an unexpected pickled file",
    ),
    "whole weights added": ("model.safetensors", lambda path: path.write_bytes(b"x"), "it was added later"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_damage_has_its_reason_and_the_next_older_one_is_found(finished, copied, damage):
    name, harm, reason = DAMAGE[damage]
    harm(copied / "checkpoint-8" / name)
    found = checkpoints.newest_valid(copied)
    assert (found.path, found.step) == (copied / "checkpoint-6", 6)
    ((skipped, why),) = found.skipped
    assert skipped == "checkpoint-8"
    assert reason in why
    with pytest.raises(SlimtuneError, match="this checkpoint is broken"):
        finished.trainer.train(resume_from_checkpoint=str(copied / "checkpoint-8"))


def test_a_renamed_checkpoint_is_not_of_its_names_step(copied):
    (copied / "checkpoint-8").rename(copied / "checkpoint-9")
    assert checkpoints.verify(copied / "checkpoint-9") == "checkpoint.json is of step 8, and the folder's name says 9"


def test_where_nothing_is_valid_every_reason_is_told(copied, tmp_path):
    for path in copied.glob("checkpoint-*"):
        (path / "rng_state.pth").unlink()
    found = checkpoints.newest_valid(copied)
    assert (found.path, found.step) == (None, None)
    assert [name for name, _ in found.skipped] == ["checkpoint-8", "checkpoint-6", "checkpoint-3"]
    assert checkpoints.newest_valid(tmp_path / "not there") == checkpoints.Found(None, None)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_checkpoint_with_any_fault_anywhere_is_never_chosen(copied, data):
    newest = copied / "checkpoint-8"
    path = newest / data.draw(st.sampled_from(names_of_files(newest)), label="file")
    whole = path.read_bytes()
    try:
        kind = data.draw(st.sampled_from(["flip", "truncate", "delete"]), label="fault")
        if kind == "delete":
            path.unlink()
        elif kind == "truncate":
            path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1), label="length")])
        else:
            at, bit = data.draw(st.integers(0, len(whole) - 1), label="at"), data.draw(st.integers(0, 7), label="bit")
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        found = checkpoints.newest_valid(copied)
        assert found.step == 6
        assert [name for name, _ in found.skipped] == ["checkpoint-8"]
    finally:
        path.write_bytes(whole)
    assert checkpoints.newest_valid(copied).step == 8


def names_of_files(folder):
    return sorted(path.name for path in folder.iterdir())


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_resuming_runs_no_code_from_a_checkpoint_that_was_made_to_verify(finished, copied, tmp_path, monkeypatch, name):
    import torch

    newest, marker = copied / "checkpoint-8", tmp_path / "ran"
    torch.save(Payload(marker), newest / name)
    (newest / "checkpoint.json").unlink()
    checkpoints.seal(newest, 8)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):  # already without `load_safely`
        finished.trainer._load_optimizer_and_scheduler(str(newest))
        finished.trainer._load_rng_state(str(newest))
    assert saving.load_safely(newest) is True
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
    assert not marker.exists()
