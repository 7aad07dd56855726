"""Checkpoints that are whole or not there, and that are checked before a run resumes from one.

A checkpoint is written below `.partial-checkpoint-N`, flushed, sealed with a manifest of sizes and hashes, and renamed
(saving.py); whatever carries the final name was complete once, and the manifest tells whether it still is.

    checkpoints/checkpoint-N/checkpoint.json     {"step": N, "files": {"optimizer.pt": {"bytes": 1, "sha256": "…"}, …}}

A folder is removed or replaced only if it is ours, by its manifest or its marker (core/output_folders.py), and holds no file
that somebody else put there. The manifest proves that nothing was damaged, not who wrote it: resuming also unpickles nothing (`saving.load_safely`).
No torch.
"""

import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core import inputs, output_folders
from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.files import sha256_file, sync_path, write_text

log = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"
PARTIAL = ".partial-"
"""Begins the name of what may be thrown away: a checkpoint that is being written or removed."""
REPLACED = ".replaced-"
"""Begins the name of a whole checkpoint that makes room for a new one of the same step."""

_TEXT_BYTES = 32 * 2**20  # tokenizer (16 MiB for Qwen3), template and trainer state: what is not tensors
_LAST = (output_folders.MARKER, MANIFEST)
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
# And rng_state.pth, all read with weights_only=True.
_PICKLED_BY_TRAINER = {"optimizer.pt", "scheduler.pt", "scaler.pt"}


@dataclass(frozen=True, slots=True)
class Found:
    """The checkpoint to go on from, None where none is valid. skipped: (name, reason) of each newer, broken one."""

    path: Path | None
    step: int | None
    skipped: tuple[tuple[str, str], ...] = ()


def most_bytes(parameters: int, stored: int) -> int:
    """An upper bound of a checkpoint's size: the trainable parameters, `stored` bytes of them, Adam's two moments of each in
    fp32, and the tokenizer."""
    return stored + 8 * parameters + _TEXT_BYTES


def verify(folder: Path, name: str | None = None) -> str | None:
    """What is wrong with a checkpoint, None where it is valid. Reads every byte and unpickles nothing.
    name: verify the folder as if it had this name."""
    try:
        return _first_fault(folder, name or folder.name)
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read: {error.strerror or error}"


def newest_valid(checkpoints: Path) -> Found:
    """The valid checkpoint with the highest step, and the broken ones that were passed over to find it."""
    skipped: list[tuple[str, str]] = []
    for step, folder in reversed(by_step(checkpoints)):
        reason = verify(folder)
        if reason is None:
            return Found(folder, step, tuple(skipped))
        skipped.append((folder.name, reason))
    return Found(None, None, tuple(skipped))


def not_ours(folder: Path, name: str | None = None) -> str | None:
    """Why a checkpoint's folder must neither be removed nor replaced; None where it is ours, whole or broken."""
    if folder.is_symlink() or not folder.is_dir():
        return "it is not a folder"
    listed = _read_manifest(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    if output_folders.is_marked(folder):
        others = output_folders.foreign_files(folder)
    elif listed is not None:
        others = [one for one in output_folders.names_in(folder) if one not in listed["files"] and one != MANIFEST]
    else:
        return f"Slimtune did not write it, or its {MANIFEST} is lost"
    return f"it holds files that Slimtune did not write: {', '.join(sorted(others)[:5])}" if others else None


def strangers(checkpoints: Path) -> dict[str, str]:
    """The names of all that is called as we call ours and is not, and why: it is left as it is."""
    named = [path for _, path in by_step(checkpoints)] + _leftovers(checkpoints)
    reasons = {path.name: _not_left_by_us(path) if path.name.startswith(PARTIAL) else not_ours(path) for path in named}
    return {name: reason for name, reason in reasons.items() if reason}


def require_room(checkpoints: Path, after: int) -> None:
    """Raise SlimtuneError where something that is not ours has the name of a checkpoint of a step after this one."""
    for step, path in by_step(checkpoints):
        if step > after and (reason := not_ours(path)):
            raise fail(f"a checkpoint would replace this: {reason}", where=str(path), fix="move it elsewhere")


def clear_leftovers(checkpoints: Path) -> tuple[str, ...]:
    """Remove what a killed process left half written or half removed, and say what was done, a sentence each.
    Only for the one process that owns the run's folder."""
    done = []
    for folder in _leftovers(checkpoints):
        if folder.name.startswith(REPLACED) and not_ours(folder) is None:
            original = checkpoints / folder.name.removeprefix(REPLACED)
            if original.exists():
                discard(folder)
            else:
                folder.rename(original)
                sync_path(checkpoints)
                done.append(f"{original.name} was being replaced when the process ended; the earlier one is restored")
        elif folder.name.startswith(PARTIAL) and _not_left_by_us(folder) is None:
            output_folders.remove(folder, _LAST)
            done.append(f"{folder.name}, left by an interrupted process, was removed")
    return tuple(done)


def _leftovers(checkpoints: Path) -> list[Path]:
    return [*sorted(checkpoints.glob(f"{REPLACED}*")), *sorted(checkpoints.glob(f"{PARTIAL}*"))]


def _not_left_by_us(folder: Path) -> str | None:
    """As `not_ours`, of a folder that was being written or removed: around a checkpoint, or what is left of one."""
    if folder.is_symlink() or not folder.is_dir():
        return "it is not a folder"
    inside = [path for path in folder.iterdir() if path.name != output_folders.MARKER]
    if len(inside) == 1 and _NAME.fullmatch(inside[0].name):
        return None if output_folders.is_marked(folder) else not_ours(inside[0])
    return not_ours(folder) if any(output_folders.names_in(folder)) else None


def seal(folder: Path, step: int) -> int:
    """Mark it, flush every file to the disk, write the manifest last, flush the folder; returns the bytes of all."""
    output_folders.mark_finished(folder, "a checkpoint", MANIFEST)
    entries, size = {}, 0
    for path in files_of(folder):
        sync_path(path)
        size += path.stat().st_size
        entries[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    text = _manifest_text({"step": step, "files": entries})
    write_text(folder / MANIFEST, text)
    for inner in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        sync_path(inner)
    return size + len(text.encode("utf-8"))


def publish(written: Path, final: Path) -> None:
    """Give the sealed folder its final name. One that has the name already is whole at every moment, see REPLACED.

    Raises SlimtuneError where something has it that is not ours.
    """
    aside = final.with_name(f"{REPLACED}{final.name}")
    if os.path.lexists(final):
        if reason := not_ours(final):
            raise fail(f"the checkpoint would replace this: {reason}", where=str(final), fix="move it elsewhere")
        final.rename(aside)
    try:
        written.rename(final)
    except BaseException:
        if aside.exists():
            aside.rename(final)
        raise
    sync_path(final.parent)
    if aside.exists():
        discard(aside)


def discard(folder: Path) -> None:
    """Remove a whole checkpoint, which is never seen half removed under its own name. What is not ours stays."""
    if reason := not_ours(folder):
        log.warning("%s is left as it is: %s", folder, reason)
        return
    doomed = folder.with_name(f"{PARTIAL}removed-{folder.name.removeprefix(REPLACED)}")
    try:
        folder.rename(doomed)
        output_folders.remove(doomed, _LAST)
    except OSError as error:
        # The new checkpoint is safe; the next one tries again.
        log.warning("%s could not be removed: %s", folder, error)


def _first_fault(folder: Path, name: str) -> str | None:
    named = _NAME.fullmatch(name)
    if named is None or not folder.is_dir():
        return "it is not a folder named checkpoint-N"
    step = int(named[1])
    present = {path.relative_to(folder).as_posix(): path for path in files_of(folder)}
    if not (folder / MANIFEST).is_file():
        return f"{MANIFEST} is missing: Slimtune did not write this checkpoint, or did not finish it"
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
            return f"{name} is an unexpected pickled file"
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
        reached = inputs.json_object(path)["global_step"]
    except (SlimtuneError, KeyError):
        return f"{path.name} is unreadable"
    return None if reached == step else f"{path.name} is of step {reached}, and the folder's name says {step}"


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest; None where it is not, byte for byte, what `seal` writes, so that no flipped bit goes unseen."""
    try:
        text = inputs.read_text(path)
        manifest = inputs.json_value(text, str(path))
        whole = manifest.keys() == {"step", "files"} and type(manifest["step"]) is int
        for entry in manifest["files"].values():
            whole &= entry.keys() == {"bytes", "sha256"} and type(entry["bytes"]) is int
    except (SlimtuneError, ValueError, TypeError, KeyError, AttributeError):  # not JSON, or no such mappings
        return None
    return manifest if whole and text == _manifest_text(manifest) else None


def _manifest_text(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"


def by_step(checkpoints: Path, prefix: str = "") -> list[tuple[int, Path]]:
    """(step, folder) of all that carry a checkpoint's name after the prefix, lowest step first."""
    paths = checkpoints.glob(f"{prefix}checkpoint-*")
    named = [(_NAME.fullmatch(path.name.removeprefix(prefix)), path) for path in paths]
    return sorted((int(match[1]), path) for match, path in named if match)


def files_of(folder: Path) -> list[Path]:
    """All files of a checkpoint but its manifest, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
