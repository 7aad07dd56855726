"""Checkpoints that are whole or not there, and that are checked before a run goes on from one.

Transformers' Trainer writes into `checkpoint-N` in place, so a killed process leaves half of one under the final name.
Here a checkpoint is written below `.partial-checkpoint-N`, flushed, sealed with a manifest of sizes and hashes, and
renamed; whatever carries the final name was complete once, and the manifest tells whether it still is.

    checkpoints/checkpoint-N/checkpoint.json     {"step": N, "files": {"optimizer.pt": {"bytes": 1, "sha256": "…"}, …}}

The manifest proves that nothing was damaged, not who wrote it: resuming also unpickles nothing (`load_safely`).
Reading and verifying needs no torch.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.files import sha256_file, write_text
from slimtune.core.units import size_text

log = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"
PARTIAL = ".partial-"
"""Begins the name of what may be thrown away: a checkpoint that is being written or removed."""
REPLACED = ".replaced-"
"""Begins the name of a whole checkpoint that makes room for a new one of the same step."""

OnSaved = Callable[[int, Path, int, float], None]
"""step, folder, size in bytes, seconds that the saving took."""

_NAME = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
_REQUIRED = {
    "adapter_model.safetensors": "adapter",
    "adapter_config.json": "adapter's configuration",
    "optimizer.pt": "optimizer's state",
    "scheduler.pt": "scheduler's state",
    "trainer_state.json": "trainer's state",
}
_RNG_STATE = re.compile(r"rng_state(_[0-9]+)?\.pth")  # one file, or one for each process
_PICKLED = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
_PICKLED_BY_TRAINER = {
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
}  # and rng_state.pth, all read with weights_only=True
_TEXT_BYTES = 32 * 2**20  # tokenizer (16 MiB for Qwen3), template and trainer state: what is not tensors


@dataclass(frozen=True, slots=True)
class Found:
    """The checkpoint to go on from.

    path, step: None where there is no valid one. skipped: (name, reason) of each newer one that is broken.
    """

    path: Path | None
    step: int | None
    skipped: tuple[tuple[str, str], ...] = ()


def verify(folder: Path, name: str | None = None) -> str | None:
    """None for a valid checkpoint, else what is wrong with it, in words. Reads every byte, unpickles nothing.

    name: verify the folder as if it had this name.
    """
    try:
        return _first_fault(folder, name or folder.name)
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read: {error.strerror or error}"


def newest_valid(checkpoints: Path) -> Found:
    """The valid checkpoint with the highest step, and the broken ones that were passed over to find it.

    Partial folders are never looked at. Call `clear_leftovers` first where nobody else writes to the folder.
    """
    skipped: list[tuple[str, str]] = []
    for step, folder in reversed(by_step(checkpoints)):
        reason = verify(folder)
        if reason is None:
            return Found(folder, step, tuple(skipped))
        skipped.append((folder.name, reason))
    return Found(None, None, tuple(skipped))


def clear_leftovers(checkpoints: Path) -> tuple[str, ...]:
    """Remove what a killed process left half written or half removed, and say what was done, a sentence each.

    A checkpoint that was killed between being set aside and being replaced gets its name back.
    Only for the one process that owns the run's folder.
    """
    done = []
    for folder in sorted(checkpoints.glob(f"{REPLACED}*")):
        original = checkpoints / folder.name.removeprefix(REPLACED)
        if original.exists():
            _discard(folder)
        else:
            folder.rename(original)
            _flush(checkpoints)
            done.append(f"{original.name} was being replaced when the process ended; the earlier one is back")
    for folder in sorted(checkpoints.glob(f"{PARTIAL}*")):
        shutil.rmtree(folder)
        done.append(f"{folder.name}, left by a process that ended while writing or removing it, was removed")
    return tuple(done)


def load_safely(folder: Path) -> bool:
    """Makes sure that resuming from this folder runs nothing in it as code; a trainer that `keep_whole` has seen calls it.

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
            fix="resume without naming a checkpoint: the newest valid one is taken",
        )
    return os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None) is not None


def require_space(checkpoints: Path, needed_bytes: int, step: int) -> None:
    """Raise SlimtuneError where the disk has less room than the checkpoint of this step will take."""
    if _free_bytes(checkpoints) < needed_bytes:
        raise _cannot_write(checkpoints, step, needed_bytes, os.strerror(errno.ENOSPC))


def keep_whole(trainer: Any, on_saved: OnSaved | None = None) -> None:
    """Make the built trainer write its checkpoints whole or not at all; `on_saved` hears of each that is on the disk.

    Wraps methods of the trainer (transformers 5.17, trainer.py). `_save_checkpoint` writes to
    `_get_output_dir(trial)/checkpoint-N`, names the best checkpoint below the same folder if it exists there, and
    rotates there: pointed to an empty folder it does all three to the new checkpoint alone, and the rest is done here
    on the real one. TRL's override (sft_trainer.py) first writes a model card into args.output_dir, which stays as it
    is. `_load_from_checkpoint` is refused what `load_safely` refuses, and `_load_best_model` a best checkpoint that was
    damaged meanwhile. Both call PEFT's load_adapter, which turns a bf16 adapter into fp32 (`autocast_adapter_dtype`),
    and the optimizer's state after it: a resumed run would train in another precision, so it is turned back.

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
                shutil.rmtree(partial, ignore_errors=True)
            reason = _failure_to_write(error)
            if reason is None:
                raise
            raise _cannot_write(checkpoints, step, needed, reason) from error
        if trainer.args.should_save:
            final, best = checkpoints / f"checkpoint-{step}", trainer.state.best_model_checkpoint
            _rotate(checkpoints, trainer.args.save_total_limit, (step, final), Path(best) if best else None)
            if on_saved is not None:
                on_saved(step, final, size, time.monotonic() - started)

    def load_valid(resume_from_checkpoint: str, model: Any = None) -> None:
        if load_safely(Path(resume_from_checkpoint)):
            log.warning("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD was set: ignored, since it lets a checkpoint run code")
        with _same_precision(trainer.model):
            load(resume_from_checkpoint, model)

    def load_valid_best() -> None:
        best = Path(trainer.state.best_model_checkpoint)
        reason = verify(best)
        if reason is not None:
            raise fail(
                f"the best checkpoint is broken: {reason}",
                where=str(best),
                fix="remove that folder and resume the run: it then ends with the weights of its last step",
            )
        with _same_precision(trainer.model):
            load_best()

    trainer._save_checkpoint = save_whole
    trainer._load_from_checkpoint, trainer._load_best_model = load_valid, load_valid_best


def _write(trainer: Any, save: Callable[[], None], checkpoints: Path, partial: Path, needed: int) -> int:
    """Write the checkpoint of the trainer's step by way of `partial`; returns its bytes, 0 in a process that saves none.

    Every process of a distributed run comes here; one of them writes most of the files and renames the folder.
    """
    state, saves = trainer.state, trainer.args.should_save
    best_before, size = state.best_model_checkpoint, 0
    if saves:
        checkpoints.mkdir(parents=True, exist_ok=True)
        for sentence in clear_leftovers(checkpoints):
            log.warning(sentence)
        require_space(checkpoints, needed, state.global_step)
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
        _publish(written, checkpoints / written.name)
        partial.rmdir()
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


def seal(folder: Path, step: int) -> int:
    """Flush every file to the disk, write the manifest last, flush the folder; returns the bytes of all."""
    entries, size = {}, 0
    for path in _files(folder):
        _flush(path)
        size += path.stat().st_size
        entries[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    text = _manifest_text({"step": step, "files": entries})
    write_text(folder / MANIFEST, text)
    for inner in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        _flush(inner)
    return size + len(text.encode("utf-8"))


def _publish(written: Path, final: Path) -> None:
    """Give the sealed folder its final name. One that has the name already is whole at every moment, see REPLACED."""
    aside = final.with_name(f"{REPLACED}{final.name}")
    if final.exists():
        final.rename(aside)
    try:
        written.rename(final)
    except BaseException:
        if aside.exists():
            aside.rename(final)
        raise
    _flush(final.parent)
    if aside.exists():
        _discard(aside)


def _rotate(checkpoints: Path, limit: int | None, newest: tuple[int, Path], best: Path | None) -> None:
    """Keep `limit` checkpoints, the newest and the best among them, as transformers' rotate_checkpoints does.

    It tells the newest by its time of change or highest number; here it is the one just written, and those of higher
    steps, which the run passed over when it resumed, go first.
    """
    existing = by_step(checkpoints)
    expendable = [(step < newest[0], step, folder) for step, folder in existing if folder not in (newest[1], best)]
    excess = len(existing) - limit if limit and limit > 0 else 0
    for _, _, folder in sorted(expendable)[: max(0, excess)]:
        _discard(folder)


def _discard(folder: Path) -> None:
    """Remove a whole checkpoint, which is never seen half removed under its own name."""
    doomed = folder.with_name(f"{PARTIAL}removed-{folder.name.removeprefix(REPLACED)}")
    try:
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        # The new checkpoint is safe; the next one tries again.
        log.warning("%s could not be removed: %s", folder, error)


def _first_fault(folder: Path, name: str) -> str | None:
    named = _NAME.fullmatch(name)
    if named is None or not folder.is_dir():
        return "it is not a folder named checkpoint-N"
    step = int(named[1])
    present = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    if not (folder / MANIFEST).is_file():
        return f"{MANIFEST} is missing: it was not written by Slimtune, or not to its end"
    listed = _read_manifest(folder / MANIFEST)
    if listed is None:
        return f"{MANIFEST} is damaged"
    if listed["step"] != step:
        return f"{MANIFEST} is of step {listed['step']}, and the folder's name says {step}"
    entries = listed["files"]

    for name, content in _REQUIRED.items():
        if name not in present:
            return f"{name} is missing (the {content})"
    if not any(_RNG_STATE.fullmatch(name) for name in present):
        return "rng_state.pth is missing (the random number generators' state)"
    for name, path in present.items():
        if path.suffix in _PICKLED and name not in _PICKLED_BY_TRAINER and not _RNG_STATE.fullmatch(name):
            return f"{name} is an unexpected pickled file: nothing of a checkpoint is stored so"
        if name not in entries and (path.suffix in {".safetensors", *_PICKLED} or name in _REQUIRED):
            return f"{name} is not in {MANIFEST}: it was added later"

    for name, entry in entries.items():
        if name not in present:
            return f"{name} is missing"
        size = present[name].stat().st_size
        if size < entry["bytes"]:
            return f"{name} is truncated: {size:,} of {entry['bytes']:,} bytes"
        if size > entry["bytes"]:
            return f"{name} has another size: {size:,} bytes instead of {entry['bytes']:,}"
    for name, entry in entries.items():
        if sha256_file(present[name]) != entry["sha256"]:
            return f"{name} is damaged: its SHA-256 is another"
    return _fault_of_state(folder / "trainer_state.json", step)


def _fault_of_state(path: Path, step: int) -> str | None:
    try:
        state = json.loads(path.read_bytes())
        reached = state["global_step"]
    except (ValueError, TypeError, KeyError):
        return f"{path.name} is unreadable"
    return None if reached == step else f"{path.name} is of step {reached}, and the folder's name says {step}"


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest; None where it is not, byte for byte, what `seal` writes, so that no flipped bit goes unseen."""
    try:
        text = path.read_bytes().decode("utf-8")
        manifest = json.loads(text)
    except ValueError:
        return None
    shape = isinstance(manifest, dict) and set(manifest) == {"step", "files"} and isinstance(manifest["files"], dict)
    if not shape or text != _manifest_text(manifest):
        return None
    entries = manifest["files"].values()
    complete = all(
        isinstance(entry, dict) and set(entry) == {"bytes", "sha256"} and type(entry["bytes"]) is int
        for entry in entries
    )
    return manifest if complete and type(manifest["step"]) is int else None


def _manifest_text(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"


def by_step(checkpoints: Path, prefix: str = "") -> list[tuple[int, Path]]:
    """(step, folder) of all that carry a checkpoint's name after the prefix, lowest step first."""
    named = [
        (_NAME.fullmatch(path.name.removeprefix(prefix)), path) for path in checkpoints.glob(f"{prefix}checkpoint-*")
    ]
    return sorted((int(match[1]), path) for match, path in named if match)


def _files(folder: Path) -> list[Path]:
    """All files of a checkpoint but its manifest, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)


def _expected_bytes(checkpoints: Path, model: Any) -> int:
    """Size of the largest checkpoint there is; before the first one, an upper bound of what it will be.

    The bound: the trainable parameters as stored, Adam's two moments of each in fp32, and the tokenizer.
    """
    sizes = [sum(path.stat().st_size for path in _files(folder)) for _, folder in by_step(checkpoints)]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return max(sizes, default=sum(p.nbytes + 8 * p.numel() for p in trainable) + _TEXT_BYTES)


def _free_bytes(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _failure_to_write(error: BaseException) -> str | None:
    """Why a file could not be written; None for any other error.

    Only Python's own writing raises OSError. safetensors and tokenizers raise errors of their own that end in
    "(os error 28)", and torch.save a RuntimeError of its C++ writer that does not say why.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    number = re.search(r"\(os error ([0-9]+)\)", str(error))
    if number and not isinstance(error, SlimtuneError):
        return os.strerror(int(number[1]))
    if isinstance(error, RuntimeError) and "inline_container" in str(error):
        return "PyTorch could not write a file to its end"
    return None


def _cannot_write(checkpoints: Path, step: int, needed: int, reason: str) -> SlimtuneError:
    earlier = [name.name for _, name in by_step(checkpoints)]
    kept = f"{' and '.join(earlier[-2:])} stay as they were" if earlier else "no checkpoint was written before it"
    room = f"it needs about {size_text(needed)}, and {size_text(_free_bytes(checkpoints))} are free"
    return fail(
        f"checkpoint-{step} could not be written: {reason} ({room}); {kept}",
        where=str(checkpoints),
        fix="make room there, or make it writable, then continue the run with  --resume auto",
    )


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk. Windows has no such thing for a folder."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
