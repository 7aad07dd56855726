"""`slimtune doctor RUN`: what happened to a run, which of its files are intact, and how to resume it.

The doctor changes nothing. It hashes checkpoints and loads nothing from them.
"""

import fcntl
import os
import shlex
import shutil
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slimtune.core import inputs, output_folders, run_folder, run_lock, versions
from slimtune.core.errors import SlimtuneError
from slimtune.core.files import sha256_file
from slimtune.core.findings import Finding, Level
from slimtune.core.outputs import named
from slimtune.core.run_folder import as_dict, as_list, at, lines, mapping
from slimtune.core.units import size_text
from slimtune.run import resume
from slimtune.train.safeguards import checkpoints

_WORTH_KNOWING = ("out_of_memory", "overfitting", "memory_differs", "checkpoint_skipped")


def run(folder: Path) -> list[Finding]:
    """What happened to a run, which of its files are intact, and how to resume it. Reads every checkpoint's bytes.

    Raises SlimtuneError where the folder is no run's.
    """
    directory = named(folder)
    run_folder.require(directory)
    try:
        return list(_run(directory))
    except OSError as error:
        fix = "check its owner, its permissions and the disk"
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
    status, finished = manifest.get("status"), manifest.get("finished")
    if live:
        return Finding("ok", f"{name} is still going on; the rest may change meanwhile")
    if manifest.get("complete"):
        return Finding("ok", f"{name} has been complete since {finished}")
    if status in ("failed", "interrupted"):
        messages = [str(event.get("message")) for event in events if event.get("event") == status]
        first, _, rest = "".join(messages[-1:]).partition("\n")
        level: Level = "error" if status == "failed" else "warning"
        return Finding(level, f"{name} {'' if status == 'failed' else 'was '}{status}, {finished}: {first}", rest)
    last = events[-1] if events else {}
    told = f"{last.get('event')} ({last.get('message')}), {last.get('time')}" if last else "none"
    what = f"{name} did not end: its process was killed, or the machine stopped. Its last event: {told}"
    return Finding("warning", what)


def _lock(directory: Path) -> tuple[bool, list[Finding]]:
    """Whether a process holds the run's folder, and the finding on its lock.
    This takes the kernel's lock, shared, for a moment: a run that starts just then would be refused once."""
    path = directory / run_lock.FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False, []
    try:
        owner = run_lock.read(descriptor)
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
        what = f"locked by {owner}; this machine cannot tell whether that process still runs"
        return False, [Finding("error", what, f"if it has ended, delete the lock:  rm {shlex.quote(str(path))}")]
    return False, [
        Finding("warning", f"{owner or 'nobody'} left a lock behind", "nothing: the next run on it replaces it")
    ]


def _checkpoints(folder: Path, live: bool, complete: bool) -> tuple[list[Finding], int | None, int]:
    """A finding for each checkpoint, the newest valid one's step, and the bytes of the largest."""
    # Resuming gives a checkpoint that was set aside and never replaced its name back.
    paths = dict(checkpoints.by_step(folder, checkpoints.REPLACED)) | dict(checkpoints.by_step(folder))
    reasons = {step: checkpoints.verify(paths[step], f"checkpoint-{step}") for step in sorted(paths)}
    newest = max((step for step, reason in reasons.items() if reason is None), default=None)
    findings, largest = [], 0
    for step, reason in reasons.items():
        if live and not paths[step].exists():
            continue  # removed meanwhile, to make room for a newer one
        size = sum(file.stat().st_size for file in paths[step].rglob("*") if file.is_file())
        largest = max(largest, size)
        if reason is None:
            findings.append(Finding("ok", f"checkpoint-{step} is valid, {size_text(size)}"))
        else:
            fix = "" if newest is None else f"nothing: checkpoint-{newest} is used instead"
            findings.append(Finding("warning", f"checkpoint-{step} is broken: {reason}", fix))
    if reasons and newest is None and not complete:
        fix = "resuming begins again with the first step, unless you restore a copy of a checkpoint"
        findings.append(Finding("error", "no checkpoint is valid", fix))
    if not reasons:
        findings.append(Finding("ok", "no checkpoint was written" + (" yet" if live else "")))
    return findings, newest, largest


def _leftovers(directory: Path) -> Iterator[Finding]:
    folder = directory / "checkpoints"
    strangers = checkpoints.strangers(folder)
    for name, reason in strangers.items():
        yield Finding("warning", f"{name} is left as it is: {reason}", "move it elsewhere")
    for step, path in checkpoints.by_step(folder, checkpoints.REPLACED):
        if path.name in strangers:
            continue
        done = "removes it" if (folder / f"checkpoint-{step}").exists() else "gives it its name back"
        yield Finding("warning", f"a process ended while it replaced {path.name}", f"nothing: --resume {done}")
    for path in sorted(folder.glob(f"{checkpoints.PARTIAL}*")):
        if path.name not in strangers:
            what = f"a process ended while it wrote or removed {path.name}"
            yield Finding("warning", what, "nothing: --resume removes it")
    for name in ("adapter", "export"):
        for path in output_folders.leftovers(directory / name):
            lost = path.suffix == ".old" and not (directory / name).exists()
            done = f"gives it the name {name} back" if lost else "removes it"
            yield Finding("warning", f"a process ended while it wrote {path.name}", f"nothing: the next export {done}")
    for path in sorted(directory.glob(".*.partial")):
        if path.is_file():
            what = f"a process ended while it wrote {path.name}; the file itself is intact"
            yield Finding("warning", what, "nothing: the next run on this folder overwrites it")


def _adapter(folder: Path, complete: bool) -> Iterator[Finding]:
    from safetensors import SafetensorError, safe_open

    if not folder.exists() and not complete:
        yield Finding("ok", "no adapter yet: it is written at the end of training")
        return
    tensors, faults = 0, []
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} is missing")
            continue
        try:
            if path.suffix == ".json":
                inputs.json_object(path)
            else:
                # This reads the header, which must agree with the file's size.
                with safe_open(path, framework="numpy") as file:
                    tensors = len(file.keys())
        except (SafetensorError, SlimtuneError, ValueError) as error:
            faults.append(f"{name} is damaged ({inputs.refused(error)})")
    level: Level = "error" if complete else "warning"
    retrain = "train again, or copy both files from a checkpoint that you trust"
    for fault in faults:
        yield Finding(
            level, f"the adapter is not intact: {fault}", retrain if complete else "nothing: --resume rewrites it"
        )
    if not faults:
        size = size_text((folder / "adapter_model.safetensors").stat().st_size)
        yield Finding("ok", f"the adapter is intact: {tensors} tensors, {size}")


def _told(events: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """The events worth knowing, each distinct one once."""
    told = Counter(
        (str(event["event"]), str(event.get("message", ""))) for event in events if event.get("event") in _WORTH_KNOWING
    )
    for (event, message), times in told.items():
        first, _, rest = message.partition("\n")
        yield Finding("warning", f"{event}{f' ({times} times)' if times > 1 else ''}: {first}", rest)


def _changed_since(manifest: dict[str, Any]) -> Iterator[Finding]:
    """Changes since the run began: with other data it cannot be resumed, with other versions it can."""
    recorded = at(manifest, "hashes.data", {})
    for name, digest in recorded.items():
        path = Path(name)
        if not inputs.is_file(path):
            fix = "run this from the folder where the run was started, or put the file back"
            yield Finding("warning", f"{name} is missing, and the run was trained on it", fix)
        elif sha256_file(path) != digest:
            fix = "put the old file back, or start a new run: a run cannot be resumed with other data"
            yield Finding("error", f"{name} has changed since the run began", fix)
    if changed := versions.differing(as_dict(manifest.get("versions"))):
        what = f"other versions are installed now, so a resumed run may give other results: {changed}"
        yield Finding("warning", what, "install the earlier versions to get the same run")


def _no_room(directory: Path, needed: int) -> Iterator[Finding]:
    free = shutil.disk_usage(directory).free
    if free < needed:
        what = f"{size_text(free)} are free, but the next checkpoint takes {size_text(needed)}"
        yield Finding("error", what, "make room, then resume")
    if not os.access(directory, os.W_OK | os.X_OK):
        yield Finding("error", f"{directory} cannot be written to", "make it writable, then resume")


def _go_on(directory: Path, manifest: dict[str, Any], plan: dict[str, Any], newest: int | None) -> Finding:
    """Where the run continues, and with which command."""
    total = at(plan, "settings.total_steps.value")
    since = "from the beginning" if newest is None else f"after step {newest} of {total} (checkpoint-{newest})"
    wanted, instead = "auto", ""
    latest = resume.latest_folder(directory.parent)
    if latest is not None and latest.name != directory.name:
        wanted = str(directory)
        instead = f"; it is not the latest run of its recipe (that is {latest.name}), so name its folder"
    began = [str(part) for part in as_list(manifest.get("command"))] or ["train_unsloth.py"]
    return Finding("ok", f"--resume {wanted} continues {since}{instead}", resume.command(began, wanted))
