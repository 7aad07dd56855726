"""Checkpoints are whole or not there; a damaged one is never gone on from; a resumed run equals a straight one."""

import errno
import itertools
import json
import os
import pickle
import resource
import shutil
from operator import attrgetter
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation, Message
from slimtune.train.safeguards import checkpoints, saving

pytestmark = pytest.mark.unsloth


@pytest.fixture(scope="module")
def build(tiny_model, a_plan):
    """(directory, eval_losses=None, **plan changes) -> a trainer of 16 rows: 4 optimizer steps an epoch, 2 epochs.

    eval_losses: what the evaluations are made to say, one after the other.
    """
    from slimtune.models import load as models
    from slimtune.train.methods import sft

    folder = tiny_model("qwen3")
    tokenizer = ChatTokenizer(folder)
    rows = [Conversation((Message("user", f"第{n}条は。"), Message("assistant", "abcd"[n % 4]))) for n in range(16)]
    examples = [example for row in rows for example in tokenizer.examples(row)]

    def trainer(directory, eval_losses=None, **changes):
        plan = a_plan(
            **{
                "epochs": 2,
                "per_device_train_batch_size": 2,
                "gradient_accumulation_steps": 2,
                "lora_dropout": 0.1,
                "learning_rate": 2e-3,
                "lr_scheduler_type": "cosine",
                "warmup_steps": 2,
                "logging_steps": 1,
                "save_steps": 3,
                "save_total_limit": 3,
                "cpu_threads": 1,
                "eval_steps": 1 if eval_losses else None,
                **changes,
            }
        )
        model, hf_tokenizer = models.load(folder, plan)
        built = sft.build_trainer(
            models.add_lora(model, plan), hf_tokenizer, examples, examples[:2], plan, directory=directory
        )
        if eval_losses:
            losses = iter(eval_losses)

            def evaluate(**ignored):
                metrics = {"eval_loss": next(losses)}
                built.log(dict(metrics))
                built.control = built.callback_handler.on_evaluate(built.args, built.state, built.control, metrics)
                return metrics

            built.evaluate = evaluate
        return built

    return trainer


@pytest.fixture(scope="module")
def finished(build, tmp_path_factory):
    """A run of 8 steps with checkpoints 3, 6 and 8, and what was said of them."""
    directory = tmp_path_factory.mktemp("finished")
    trainer = build(directory)
    saved = []
    saving.keep_whole(trainer, lambda *told: saved.append(told))
    trainer.train()
    return SimpleNamespace(trainer=trainer, folder=directory / "checkpoints", saved=saved)


@pytest.fixture
def copied(finished, tmp_path):
    """The finished run's checkpoints, to be damaged."""
    return shutil.copytree(finished.folder, tmp_path / "copied")


@pytest.fixture
def elsewhere(finished, tmp_path):
    """The finished run's trainer, saving into a folder that has nothing yet: save(step) writes one checkpoint."""
    trainer, folder = finished.trainer, tmp_path / "checkpoints"
    before = trainer.args.output_dir, trainer.state.global_step, trainer.args.save_total_limit
    trainer.args.output_dir = str(folder)
    folder.mkdir()

    def save(step):
        trainer.state.global_step = step
        trainer._save_checkpoint(trainer.model, None)

    yield SimpleNamespace(trainer=trainer, folder=folder, save=save)
    trainer.args.output_dir, trainer.state.global_step, trainer.args.save_total_limit = before


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def adapter(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def logged(trainer):
    keys = ("step", "loss", "learning_rate", "grad_norm")
    return [tuple(entry[key] for key in keys) for entry in trainer.state.log_history if "loss" in entry]


def test_a_saved_checkpoint_is_valid_and_nothing_else_is_left(finished):
    assert names(finished.folder) == ["checkpoint-3", "checkpoint-6", "checkpoint-8"]
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
    assert names(folder) == ["checkpoint-2", "checkpoint-5"]
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


def test_higher_steps_that_were_passed_over_go_first(elsewhere, copied):
    shutil.copytree(copied, elsewhere.folder, dirs_exist_ok=True)
    (elsewhere.folder / "checkpoint-8" / "optimizer.pt").unlink()
    elsewhere.trainer.args.save_total_limit = 1
    elsewhere.save(4)
    assert names(elsewhere.folder) == ["checkpoint-4"]
    elsewhere.trainer.args.save_total_limit = 3
    for step in (5, 6, 7):
        elsewhere.save(step)
    assert names(elsewhere.folder) == ["checkpoint-5", "checkpoint-6", "checkpoint-7"]


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


def test_a_partial_folder_is_never_considered_and_goes_before_the_next_save(elsewhere):
    elsewhere.save(1)
    shutil.copytree(elsewhere.folder / "checkpoint-1", elsewhere.folder / ".partial-checkpoint-2" / "checkpoint-2")
    assert checkpoints.newest_valid(elsewhere.folder).step == 1
    elsewhere.save(2)
    assert names(elsewhere.folder) == ["checkpoint-1", "checkpoint-2"]
    assert checkpoints.newest_valid(elsewhere.folder) == checkpoints.Found(elsewhere.folder / "checkpoint-2", 2, ())


class Killed(BaseException):
    """Nothing of the library's catches it."""


def test_a_crash_before_the_rename_leaves_no_checkpoint(elsewhere, monkeypatch):
    elsewhere.save(1)
    best = elsewhere.trainer.state.best_model_checkpoint

    def crash(*arguments):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(saving, "publish", crash)
        with pytest.raises(Killed):
            elsewhere.save(2)
    assert names(elsewhere.folder) == ["checkpoint-1"]
    assert checkpoints.newest_valid(elsewhere.folder).step == 1
    assert elsewhere.trainer.state.best_model_checkpoint == best


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_repeated_step_is_replaced_and_whole_wherever_the_process_dies(elsewhere, monkeypatch, renames):
    """The process dies after so many renames, running no handler: nothing is renamed or removed any more."""
    elsewhere.save(1)
    before = checkpoints.sha256_file(elsewhere.folder / "checkpoint-1" / "trainer_state.json")
    elsewhere.trainer.state.log_history.append({"step": 1, "marked": 1.0})
    left = itertools.count(renames, -1)
    rename = checkpoints.Path.rename

    def dying(path, target):
        if next(left) <= 0:
            raise Killed
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.Path, "rename", dying)
        patched.setattr(checkpoints.shutil, "rmtree", lambda *arguments, **named: None)
        with pytest.raises(Killed):
            elsewhere.save(1)
    elsewhere.trainer.state.log_history.pop()
    checkpoints.clear_leftovers(elsewhere.folder)
    assert names(elsewhere.folder) == ["checkpoint-1"]
    assert checkpoints.verify(elsewhere.folder / "checkpoint-1") is None
    after = checkpoints.sha256_file(elsewhere.folder / "checkpoint-1" / "trainer_state.json")
    assert (after == before) is (renames < 2)


def test_a_broken_checkpoint_of_the_same_step_is_replaced(elsewhere):
    elsewhere.save(1)
    (elsewhere.folder / "checkpoint-1" / "optimizer.pt").unlink()
    elsewhere.save(1)
    assert names(elsewhere.folder) == ["checkpoint-1"]
    assert checkpoints.verify(elsewhere.folder / "checkpoint-1") is None


def no_room(*arguments, **named):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["torch.save", "safetensors.torch.save_file", "os.fsync", "pathlib.Path.rename"])
def test_a_full_disk_leaves_the_earlier_checkpoints_and_says_what_to_do(elsewhere, monkeypatch, where):
    elsewhere.save(1)
    with monkeypatch.context() as patched:
        patched.setattr(where, no_room)
        if where.startswith("safetensors"):
            patched.setattr("peft.peft_model.safe_save_file", no_room)
        with pytest.raises(SlimtuneError) as caught:
            elsewhere.save(2)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "checkpoint-2 could not be written: No space left on device (it needs about " in message
    assert " are free); checkpoint-1 stay" in message
    assert "--resume" in message
    assert names(elsewhere.folder) == ["checkpoint-1"]
    assert checkpoints.newest_valid(elsewhere.folder).step == 1
    elsewhere.save(2)  # room was made
    assert checkpoints.newest_valid(elsewhere.folder).step == 2


WRITERS = {  # sizes here: adapter 135 kB, tokenizer.json 78 kB, optimizer.pt 286 kB
    "Rust, safetensors": ("model.save_pretrained", 60_000, "File too large"),
    "Rust, tokenizers": ("processing_class.save_pretrained", 60_000, "File too large"),
    "C++, torch": ("_save_optimizer_and_scheduler", 200_000, "PyTorch could not write a file to its end"),
    "Python": ("state.save_to_json", 2_000, "File too large"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_each_writer_says_of_a_real_limit_is_understood(elsewhere, monkeypatch, writer):
    """While it writes, the system refuses files beyond a limit: EFBIG, which takes the way of ENOSPC."""
    elsewhere.save(1)
    where, limit, reason = WRITERS[writer]
    owner, _, method = f"trainer.{where}".rpartition(".")
    owner = attrgetter(owner)(elsewhere)
    write = getattr(owner, method)

    def limited(*arguments, **named):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            return write(*arguments, **named)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(owner, method, limited)
    with pytest.raises(SlimtuneError, match=f"checkpoint-2 could not be written: {reason} "):
        elsewhere.save(2)
    assert names(elsewhere.folder) == ["checkpoint-1"]


def test_room_is_asked_for_before_anything_is_written(elsewhere, monkeypatch):
    usage = SimpleNamespace(free=2**20)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(SlimtuneError, match="no checkpoint was written before it"):
        elsewhere.save(1)  # 32 MiB of text and 12 bytes for each trainable parameter
    usage.free = 2**30
    elsewhere.save(1)
    usage.free = sum(path.stat().st_size for path in (elsewhere.folder / "checkpoint-1").iterdir()) // 2
    with pytest.raises(SlimtuneError, match="No space left on device"):
        elsewhere.save(2)  # as large as the first
    assert names(elsewhere.folder) == ["checkpoint-1"]


def test_other_errors_keep_their_type(elsewhere, monkeypatch):
    import torch

    def out_of_memory(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("torch.save", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        elsewhere.save(1)
    assert names(elsewhere.folder) == []


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
