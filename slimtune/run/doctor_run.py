"""`slimtune doctor RUN`: what became of a run, which of its files are whole, and how to go on with it.

Nothing is changed: checkpoints are hashed, and nothing of them is loaded.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from slimtune.core import run_lock, versions
from slimtune.core.files import sha256_file
from slimtune.core.findings import Finding
from slimtune.core.run_folder import as_dict, as_list, lines, mapping
from slimtune.core.units import size_text
from slimtune.run import resume
from slimtune.train.safeguards import checkpoints

_WORTH_KNOWING = ("out_of_memory", "overfitting", "memory_differs", "checkpoint_skipped")


def run(folder: Path) -> list[Finding]:
    """What became of a run, which of its files are whole, and how to go on with it. Reads every checkpoint's bytes."""
    directory = folder.resolve()
    if not (directory / "manifest.json").is_file():
        inside = (directory / "latest" / "manifest.json").is_file()
        fix = f"slimtune doctor {folder / 'latest'}" if inside else "name a run's folder: outputs/<name>/<UTC time>"
        return [Finding("error", f"{folder} is no run's folder: it has no manifest.json", fix)]
    try:
        return list(_run(directory))
    except OSError as error:
        fix = "look at its owner and permissions, and at the disk"
        return [Finding("error", f"{error.filename or directory} cannot be read: {error.strerror}", fix)]


def _run(directory: Path) -> Iterator[Finding]:
    unreadable = [f"{name}: missing" for name in ("plan.json", "recipe.yaml") if not (directory / name).is_file()]
    manifest, plan, _ = (mapping(directory, name, unreadable) for name in ("manifest.json", "plan.json", "recipe.yaml"))
    resumable = not unreadable
    events = lines(directory, "events.jsonl", unreadable)
    lines(directory, "metrics.jsonl", unreadable)
    live, lock = _lock(directory)
    complete = bool(manifest.get("complete"))
    unfinished = not complete and not live

    yield _ending(manifest, events, live)
    yield from lock
    for text in unreadable:
        yield Finding("error", text, "" if resumable else "the run cannot be resumed without it: start a new one")
    found, newest, size = _checkpoints(directory / "checkpoints", live, complete)
    yield from found
    if not live:
        yield from _leftovers(directory)
    yield from _adapter(directory / "adapter", complete)
    yield from _told(events)
    if unfinished:
        yield from _changed_since(manifest)
        yield from _no_room(directory, size)
        if resumable:
            yield _go_on(directory, manifest, plan, newest)


def _ending(manifest: dict[str, Any], events: Sequence[dict[str, Any]], live: bool) -> Finding:
    name = f"run {manifest.get('run_id')} of recipe {manifest.get('name')}"
    status = manifest.get("status")
    if live:
        return Finding("ok", f"{name} is going on; what follows may change meanwhile")
    if manifest.get("complete"):
        return Finding("ok", f"{name} is complete since {manifest.get('finished')}")
    last = events[-1] if events else {}
    if status in ("failed", "interrupted"):
        why = next((str(event.get("message")) for event in reversed(events) if event.get("event") == status), "")
        first, _, rest = why.partition("\n")
        what = f"{name} {'failed' if status == 'failed' else 'was interrupted'}, {manifest.get('finished')}: {first}"
        return Finding("error" if status == "failed" else "warning", what, rest)
    told = f"{last.get('event')} ({last.get('message')}), {last.get('time')}" if last else "none"
    what = f"{name} did not come to its end: its process was killed, or the machine stopped. Its last event: {told}"
    return Finding("warning", what)


def _lock(directory: Path) -> tuple[bool, list[Finding]]:
    """Whether a process holds the run's folder, and what there is to say of the lock.

    The kernel's lock is taken, shared, for a moment: where nobody holds it that changes nothing, but a run that
    starts in this very moment would be refused once.
    """
    path = directory / run_lock.FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False, []
    try:
        owner = _owner(os.pread(descriptor, 1 << 20, 0))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            held = False
        except BlockingIOError:
            held = True
        except OSError:
            held = owner is not None and owner.running  # a file system without locks
    finally:
        os.close(descriptor)
    if held:
        return True, [Finding("ok", f"locked by {owner or 'a process that has not written its name yet'}")]
    if owner is not None and owner.host != socket.gethostname():
        what = f"locked by {owner}; from here it cannot be seen whether that process still runs"
        return False, [Finding("error", what, f"if it has ended, delete the lock:  rm {shlex.quote(str(path))}")]
    return False, [
        Finding("warning", f"a lock was left over by {owner or 'nobody'}", "nothing: the next run on it replaces it")
    ]


def _owner(content: bytes) -> run_lock.Owner | None:
    try:
        return run_lock.Owner(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _checkpoints(folder: Path, live: bool, complete: bool) -> tuple[list[Finding], str | None, int]:
    """A finding for each checkpoint, the newest valid one's name, and the bytes of the largest."""
    reasons = {path.name: checkpoints.verify(path) for path in _named(folder, "checkpoint-")}
    reasons |= {name: _verify_as(name, path) for name, path in _set_aside(folder) if name not in reasons}
    order = sorted(reasons, key=_step)
    newest = next((name for name in reversed(order) if reasons[name] is None), None)
    findings, largest = [], 0
    for name in order:
        path = folder / name if (folder / name).exists() else folder / f"{checkpoints.REPLACED}{name}"
        if live and not path.exists():
            continue  # removed meanwhile, to make room for a newer one
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        largest = max(largest, size)
        if reasons[name] is None:
            findings.append(Finding("ok", f"{name} is valid, {size_text(size)}"))
        else:
            fix = f"nothing: {newest} is used instead" if newest else ""
            findings.append(Finding("warning", f"{name} is broken: {reasons[name]}", fix))
    if order and newest is None and not complete:
        fix = "resuming begins with the first step again, unless you bring a copy of one back"
        findings.append(Finding("error", "no checkpoint is valid", fix))
    if not order:
        findings.append(Finding("ok", "no checkpoint was written" + (" yet" if live else "")))
    return findings, newest, largest


def _named(folder: Path, prefix: str) -> list[Path]:
    """What is called `prefix` and a step's number."""
    return [path for path in folder.glob(f"{prefix}*") if re.fullmatch("0|[1-9][0-9]*", path.name.removeprefix(prefix))]


def _set_aside(folder: Path) -> list[tuple[str, Path]]:
    """(name it gets back on resuming, path) of each checkpoint whose replacement was never put in its place."""
    prefix = checkpoints.REPLACED
    return [(path.name.removeprefix(prefix), path) for path in _named(folder, f"{prefix}checkpoint-")]


def _verify_as(name: str, path: Path) -> str | None:
    """Verify a checkpoint as if it had this name, through a link elsewhere."""
    with tempfile.TemporaryDirectory() as elsewhere:
        link = Path(elsewhere) / name
        link.symlink_to(path, target_is_directory=True)
        return checkpoints.verify(link)


def _step(name: str) -> int:
    return int(name.removeprefix("checkpoint-"))


def _leftovers(directory: Path) -> Iterator[Finding]:
    folder = directory / "checkpoints"
    for name, path in sorted(_set_aside(folder)):
        done = "is removed" if (folder / name).exists() else "gets its name back"
        yield Finding(
            "warning", f"{path.name} was being replaced by a process that ended", f"nothing: it {done} by --resume"
        )
    for path in sorted(folder.glob(f"{checkpoints.PARTIAL}*")):
        what = f"{path.name} was left by a process that ended while writing or removing it"
        yield Finding("warning", what, "nothing: --resume removes it")
    for path in sorted(directory.glob(".*.partial")):
        what = f"{path.name} was left by a process that ended while writing it; the file itself is whole"
        yield Finding("warning", what, "nothing: the next run on this folder writes over it")


def _adapter(folder: Path, complete: bool) -> Iterator[Finding]:
    if not folder.exists() and not complete:
        yield Finding("ok", "no adapter yet: it is written when training has come to its end")
        return
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    faults = [fault for fault in (_fault(weights, _tensors), _fault(config, _json)) if fault]
    fix = (
        "train again, or take both files from the checkpoint that you trust"
        if complete
        else "nothing: --resume writes it anew"
    )
    for fault in faults:
        yield Finding("error" if complete else "warning", f"the adapter is not whole: {fault}", fix)
    if not faults:
        yield Finding("ok", f"the adapter is whole: {_tensors(weights)} tensors, {size_text(weights.stat().st_size)}")


def _fault(path: Path, read: Callable[[Path], Any]) -> str | None:
    from safetensors import SafetensorError

    if not path.is_file():
        return f"{path.name} is missing"
    try:
        read(path)
    except (SafetensorError, ValueError) as error:
        return f"{path.name} is damaged ({error})"
    return None


def _tensors(path: Path) -> int:
    """How many tensors the header names, which must agree with the file's size."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return len(file.keys())


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _told(events: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """What happened on the way, the same only once."""
    told = Counter(
        (str(event["event"]), str(event.get("message", ""))) for event in events if event.get("event") in _WORTH_KNOWING
    )
    for (event, message), times in told.items():
        first, _, rest = message.partition("\n")
        yield Finding("warning", f"{event}{f' ({times} times)' if times > 1 else ''}: {first}", rest)


def _changed_since(manifest: dict[str, Any]) -> Iterator[Finding]:
    """What would make a resumed run another one: other data, which is refused, and other versions, which are not."""
    recorded = as_dict(as_dict(manifest.get("hashes")).get("data"))
    for name, digest in recorded.items():
        path = Path(name)
        if not path.is_file():
            fix = "run this from the folder where the run was started, or put the file back"
            yield Finding("warning", f"{name} is not there, and the run was trained on it", fix)
        elif sha256_file(path) != digest:
            fix = "put the old file back, or start a new run: this one is not resumed with other data"
            yield Finding("error", f"{name} has changed since the run began", fix)
    here = versions.installed()
    for name, version in as_dict(manifest.get("versions")).items():
        if name in here and version != here[name]:
            fix = f"install {name} {version} again for the very same run" if version != "absent" else ""
            yield Finding(
                "warning", f"{name} was {version} and is {here[name]}: a resumed run may turn out different", fix
            )


def _no_room(directory: Path, needed: int) -> Iterator[Finding]:
    free = shutil.disk_usage(directory).free
    if free < needed:
        what = f"{size_text(free)} are free, and the next checkpoint takes {size_text(needed)}"
        yield Finding("error", what, "make room, then resume")
    if not os.access(directory, os.W_OK | os.X_OK):
        yield Finding("error", f"{directory} cannot be written to", "make it writable, then resume")


def _go_on(directory: Path, manifest: dict[str, Any], plan: dict[str, Any], newest: str | None) -> Finding:
    """From where the run goes on, and with which command."""
    total = as_dict(as_dict(plan.get("settings")).get("total_steps")).get("value")
    runs = [path.parent.name for path in directory.parent.glob("*/manifest.json") if not path.parent.is_symlink()]
    latest = directory.name == max(runs)
    since = f"after step {_step(newest)} of {total} ({newest})" if newest else "from the beginning"
    instead = "" if latest else f"; it is not the latest run of its recipe (that is {max(runs)}), so name its folder"
    wanted = "auto" if latest else str(directory)
    began = [str(part) for part in as_list(manifest.get("command"))] or ["train_unsloth.py"]
    command = resume.command(began, wanted)
    return Finding("ok", f"--resume {wanted} goes on {since}{instead}", command)
