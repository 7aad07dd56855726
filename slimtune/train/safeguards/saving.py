"""A trainer that saves its checkpoints whole or not at all, and resumes from none that is broken.

Transformers' Trainer writes into `checkpoint-N` in place, so a killed process leaves half of one under the final name.
"""

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slimtune.core import output_folders
from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.files import existing, failure_to_write
from slimtune.core.units import size_text
from slimtune.train.safeguards.checkpoints import (
    PARTIAL,
    by_step,
    clear_leftovers,
    discard,
    files_of,
    most_bytes,
    not_ours,
    publish,
    seal,
    verify,
)

log = logging.getLogger(__name__)

OnSaved = Callable[[int, Path, int, float], None]
"""step, folder, size in bytes, seconds that the saving took."""


def keep_whole(trainer: Any, on_saved: OnSaved) -> None:
    """Make the built trainer write its checkpoints whole or not at all. Call `on_saved` after each is on the disk.

    Wraps methods of the trainer (transformers 5.17, trainer.py). `_save_checkpoint` writes to
    `_get_output_dir(trial)/checkpoint-N`, names the best checkpoint below that folder if it exists there, and rotates
    there. Pointed to an empty folder it does all three to the new checkpoint alone; the rest is done here on the real one.
    `_load_from_checkpoint` and `_load_best_model` are refused broken checkpoints. Both call PEFT's load_adapter, which
    turns a bf16 adapter into fp32 (`autocast_adapter_dtype`); a resumed run would train in another precision, so it is
    turned back.

    training_args.bin, a pickle that nothing reads, is left out of the checkpoints. A full disk or any other failure to
    write raises SlimtuneError and leaves the earlier checkpoints as they were.
    """
    save, load, load_best = trainer._save_checkpoint, trainer._load_from_checkpoint, trainer._load_best_model

    def save_whole(model: Any, trial: Any) -> None:
        started, step = time.monotonic(), trainer.state.global_step
        best_before = trainer.state.best_model_checkpoint
        checkpoints = Path(trainer._get_output_dir(trial))
        partial = checkpoints / f"{PARTIAL}checkpoint-{step}"
        needed = _expected_bytes(checkpoints, trainer.model)
        try:
            size = _write(trainer, lambda: save(model, trial), checkpoints, partial, needed)
        except BaseException as error:
            trainer.state.best_model_checkpoint = best_before
            if trainer.args.should_save:
                # What cannot be removed now is removed before the next checkpoint is written.
                output_folders.remove_own(partial)
            failure = failure_to_write(error)
            if failure is None:
                raise
            raise _cannot_write(checkpoints, step, needed, failure.strerror or str(failure)) from error
        if trainer.args.should_save:
            final, best = checkpoints / f"checkpoint-{step}", trainer.state.best_model_checkpoint
            _rotate(checkpoints, trainer.args.save_total_limit, (step, final), Path(best) if best else None)
            on_saved(step, final, size, time.monotonic() - started)

    def load_valid(resume_from_checkpoint: str, model: Any = None) -> None:
        if load_safely(Path(resume_from_checkpoint)):
            log.warning("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is ignored, since it lets a checkpoint run code")
        with _same_precision(trainer.model):
            load(resume_from_checkpoint, model)

    def load_valid_best() -> None:
        best = Path(trainer.state.best_model_checkpoint)
        reason = verify(best)
        if reason is not None:
            raise fail(
                f"the best checkpoint is broken: {reason}",
                where=str(best),
                fix="remove that folder and resume the run, which then ends with the weights of its last step",
            )
        with _same_precision(trainer.model):
            load_best()

    trainer._save_checkpoint = save_whole
    trainer._load_from_checkpoint, trainer._load_best_model = load_valid, load_valid_best


def load_safely(folder: Path) -> bool:
    """Make sure that resuming from this folder runs nothing in it as code.

    Transformers 5.17 reads optimizer.pt, scheduler.pt, scaler.pt (trainer.py, _load_optimizer_and_scheduler and
    _load_scaler) and rng_state.pth (_load_rng_state) with weights_only=True spelt out, the adapter from safetensors,
    and training_args.bin never. TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD would turn every other torch.load into unpickling, so
    it is taken out of this process's environment: returns True where it was there.
    Raises SlimtuneError for a checkpoint that does not verify, which includes any pickled file beyond those four.
    """
    reason = verify(folder)
    if reason is not None:
        raise fail(
            f"this checkpoint is broken: {reason}",
            where=str(folder),
            fix="resume without naming a checkpoint, to use the newest valid one",
        )
    return os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None) is not None


def _write(trainer: Any, save: Callable[[], None], checkpoints: Path, partial: Path, needed: int) -> int:
    """Write the checkpoint of the trainer's step by way of `partial`; returns its bytes, 0 in a process that saves none.
    Every process of a distributed run comes here; one of them writes most of the files and renames the folder."""
    state, saves = trainer.state, trainer.args.should_save
    best_before, size = state.best_model_checkpoint, 0
    if saves:
        checkpoints.mkdir(exist_ok=True)  # not the run's folder, which may be gone
        for sentence in clear_leftovers(checkpoints):
            log.warning(sentence)
        if shutil.disk_usage(checkpoints).free < needed:
            raise _cannot_write(checkpoints, state.global_step, needed, os.strerror(errno.ENOSPC))
        if os.path.lexists(partial):
            raise fail("this is in the way of a checkpoint", where=str(partial), fix="move it elsewhere, then resume")
        partial.mkdir()
        output_folders.mark(partial, "an unfinished checkpoint")
    trainer.accelerator.wait_for_everyone()
    with _output_dir(trainer, partial):
        save()
    state.best_model_checkpoint = _best(checkpoints, state) or best_before
    trainer.accelerator.wait_for_everyone()
    if saves:
        written = partial / f"checkpoint-{state.global_step}"
        # The one that the trainer has just written may name the best checkpoint by its temporary path.
        state.save_to_json(str(written / "trainer_state.json"))
        (written / "training_args.bin").unlink(missing_ok=True)
        size = seal(written, state.global_step)
        publish(written, checkpoints / written.name)
        output_folders.remove_own(partial)
    trainer.accelerator.wait_for_everyone()
    return size


@contextmanager
def _output_dir(trainer: Any, folder: Path) -> Iterator[None]:
    original = trainer._get_output_dir
    trainer._get_output_dir = lambda trial: str(folder)
    try:
        yield
    finally:
        trainer._get_output_dir = original


@contextmanager
def _same_precision(model: Any) -> Iterator[None]:
    """The parameters keep the type they had; bf16 made fp32 goes back without loss."""
    before = {name: parameter.dtype for name, parameter in model.named_parameters()}
    yield
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(before[name])


def _best(checkpoints: Path, state: Any) -> str | None:
    """The path of the best step's checkpoint, as the trainer would name it; None where none was saved."""
    best = checkpoints / f"checkpoint-{state.best_global_step}"
    exists = state.best_global_step and (state.best_global_step == state.global_step or best.is_dir())
    return str(best) if exists else None


def _rotate(checkpoints: Path, limit: int | None, newest: tuple[int, Path], best: Path | None) -> None:
    """Keep `limit` checkpoints, the newest and the best among them, as transformers' rotate_checkpoints does.

    It tells the newest by its time of change or highest number; here it is the one just written, and those of higher
    steps, which the run passed over when it resumed, go first.
    """
    found = [(step, folder) for step, folder in by_step(checkpoints) if not_ours(folder) is None]
    expendable = [(step < newest[0], step, folder) for step, folder in found if folder not in (newest[1], best)]
    excess = len(found) - limit if limit and limit > 0 else 0
    for _, _, folder in sorted(expendable)[: max(0, excess)]:
        discard(folder)


def _expected_bytes(checkpoints: Path, model: Any) -> int:
    """Size of the largest checkpoint there is. Before the first one, an upper bound: the trainable parameters as stored,
    Adam's two moments of each in fp32, and the tokenizer."""
    sizes = [sum(path.stat().st_size for path in files_of(folder)) for _, folder in by_step(checkpoints)]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    most = most_bytes(sum(p.numel() for p in trainable), sum(p.nbytes for p in trainable))
    return max(sizes, default=most)


def _cannot_write(checkpoints: Path, step: int, needed: int, reason: str) -> SlimtuneError:
    earlier = [name.name for _, name in by_step(checkpoints)]
    kept = f"{' and '.join(earlier[-2:])} stay as they were" if earlier else "no checkpoint was written before it"
    free = shutil.disk_usage(existing(checkpoints)).free
    room = f"it needs about {size_text(needed)}, and {size_text(free)} are free"
    return fail(
        f"checkpoint-{step} could not be written: {reason} ({room}); {kept}",
        where=str(checkpoints),
        fix="free some space there, or make it writable, then resume with  --resume auto",
    )
