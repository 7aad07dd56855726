"""Checkpoints are whole or not there, wherever writing one fails."""

import errno
import itertools
import os
import resource
import shutil
from operator import attrgetter
from types import SimpleNamespace

import pytest
from support.paths import folders_in

from slimtune.core import output_folders
from slimtune.core.errors import SlimtuneError
from slimtune.train.safeguards import checkpoints, saving

pytestmark = pytest.mark.unsloth


def test_higher_steps_that_were_passed_over_go_first(elsewhere, copied):
    shutil.copytree(copied, elsewhere.folder, dirs_exist_ok=True)
    (elsewhere.folder / "checkpoint-8" / "optimizer.pt").unlink()
    elsewhere.trainer.args.save_total_limit = 1
    elsewhere.save(4)
    assert folders_in(elsewhere.folder) == ["checkpoint-4"]
    elsewhere.trainer.args.save_total_limit = 3
    for step in (5, 6, 7):
        elsewhere.save(step)
    assert folders_in(elsewhere.folder) == ["checkpoint-5", "checkpoint-6", "checkpoint-7"]


def test_a_partial_folder_is_never_considered_and_goes_before_the_next_save(elsewhere):
    elsewhere.save(1)
    shutil.copytree(elsewhere.folder / "checkpoint-1", elsewhere.folder / ".partial-checkpoint-2" / "checkpoint-2")
    assert checkpoints.newest_valid(elsewhere.folder).step == 1
    elsewhere.save(2)
    assert folders_in(elsewhere.folder) == ["checkpoint-1", "checkpoint-2"]
    assert checkpoints.newest_valid(elsewhere.folder) == checkpoints.Found(elsewhere.folder / "checkpoint-2", 2, ())


def strange(folder, *names):
    """A folder of somebody's under a name that we use."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("years of work", encoding="utf-8")
    return folder


def content(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_what_somebody_put_among_the_checkpoints_is_never_removed_or_renamed(elsewhere, caplog):
    names = (
        "checkpoint-2",
        ".replaced-checkpoint-1",
        ".partial-checkpoint-3",
        ".partial-removed-checkpoint-9",
        "notes",
    )
    for name in names:
        strange(elsewhere.folder / name, "thesis.txt")
    strange(elsewhere.folder / "checkpoint-7", "checkpoint.json", "adapter_model.safetensors")
    before = content(elsewhere.folder)
    assert checkpoints.clear_leftovers(elsewhere.folder) == ()
    assert len(checkpoints.strangers(elsewhere.folder)) == len(names)
    elsewhere.trainer.args.save_total_limit = 1
    for step in (4, 5):
        elsewhere.save(step)
    (elsewhere.folder / "checkpoint-5/notes.txt").write_text("why this one is good", encoding="utf-8")
    elsewhere.save(6)
    assert folders_in(elsewhere.folder) == sorted([*names, "checkpoint-5", "checkpoint-6", "checkpoint-7"])
    for step, reason in (
        (2, "Slimtune did not write it"),
        (5, r"Slimtune did not write: notes\.txt"),
        (3, "in the way"),
    ):
        with pytest.raises(SlimtuneError, match=reason) as caught:
            elsewhere.save(step)
        assert f"checkpoint-{step}" in str(caught.value) and "move it elsewhere" in str(caught.value)
    assert content(elsewhere.folder).items() > before.items()
    with pytest.raises(SlimtuneError, match=r"checkpoint-7: a checkpoint would replace this"):
        checkpoints.require_room(elsewhere.folder, 6)
    checkpoints.require_room(elsewhere.folder, 7)


def test_a_checkpoint_whose_manifest_is_lost_is_known_by_its_marker(elsewhere):
    for step in (1, 2):
        elsewhere.save(step)
        (elsewhere.folder / f"checkpoint-{step}/checkpoint.json").unlink()
    elsewhere.save(1)
    assert checkpoints.verify(elsewhere.folder / "checkpoint-1") is None
    elsewhere.trainer.args.save_total_limit = 1
    elsewhere.save(3)
    assert folders_in(elsewhere.folder) == ["checkpoint-3"]


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
    assert folders_in(elsewhere.folder) == ["checkpoint-1"]
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
        patched.setattr(output_folders, "remove", lambda *arguments, **named: None)
        with pytest.raises(Killed):
            elsewhere.save(1)
    elsewhere.trainer.state.log_history.pop()
    checkpoints.clear_leftovers(elsewhere.folder)
    assert folders_in(elsewhere.folder) == ["checkpoint-1"]
    assert checkpoints.verify(elsewhere.folder / "checkpoint-1") is None
    after = checkpoints.sha256_file(elsewhere.folder / "checkpoint-1" / "trainer_state.json")
    assert (after == before) is (renames < 2)


def test_a_broken_checkpoint_of_the_same_step_is_replaced(elsewhere):
    elsewhere.save(1)
    (elsewhere.folder / "checkpoint-1" / "optimizer.pt").unlink()
    elsewhere.save(1)
    assert folders_in(elsewhere.folder) == ["checkpoint-1"]
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
    assert folders_in(elsewhere.folder) == ["checkpoint-1"]
    assert checkpoints.newest_valid(elsewhere.folder).step == 1
    elsewhere.save(2)  # room was made
    assert checkpoints.newest_valid(elsewhere.folder).step == 2


WRITERS = {  # sizes here: adapter 135 kB, tokenizer.json 78 kB, optimizer.pt 286 kB
    "Rust, safetensors": ("model.save_pretrained", 60_000, "File too large"),
    "Rust, tokenizers": ("processing_class.save_pretrained", 60_000, "File too large"),
    "C++, torch": (
        "_save_optimizer_and_scheduler",
        200_000,
        "PyTorch could not write a file to its end, as on a full disk",
    ),
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
    assert folders_in(elsewhere.folder) == ["checkpoint-1"]


def test_room_is_asked_for_before_anything_is_written(elsewhere, monkeypatch):
    usage = SimpleNamespace(free=2**20)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(SlimtuneError, match="no checkpoint was written before it"):
        elsewhere.save(1)  # 32 MiB of text and 12 bytes for each trainable parameter
    usage.free = 2**30
    elsewhere.save(1)
    usage.free = sum(path.stat().st_size for path in (elsewhere.folder / "checkpoint-1").iterdir()) // 2
    with pytest.raises(SlimtuneError, match="No space left on device"):
        elsewhere.save(2)  # as large as the first
    assert folders_in(elsewhere.folder) == ["checkpoint-1"]


def test_other_errors_keep_their_type(elsewhere, monkeypatch):
    import torch

    def out_of_memory(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("torch.save", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        elsewhere.save(1)
    assert folders_in(elsewhere.folder) == []
