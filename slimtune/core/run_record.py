"""The record of a run: its folder, manifest, events and metrics. The report and the experiment log read these alone.

The folder appears with recipe, plan and manifest, and the manifest is marked complete last: it tells how far a run came.
"""

import datetime
import errno
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from slimtune.core import files, output_folders
from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.git import git_state
from slimtune.core.memory import Meter
from slimtune.core.redaction import redact, redacted_command

OPENING = "opening"
"""Begins, after a dot, the name of a run's folder that is being made."""
_LINK = re.compile(r"\.latest\.([0-9]{1,9})-[0-9a-f]{8}")
_RUN_ID = re.compile(r"\d{8}T\d{6}Z(-\d+)?")


class RunRecord:
    """A run's folder while the run is being written. Make one with `open_run`.

    Every method that writes raises SlimtuneError where the folder has gone meanwhile, or cannot be written to.
    """

    def __init__(self, directory: Path, manifest: dict[str, Any], meter: Meter):
        self.directory = directory
        self._folder = directory.stat()
        self.manifest = manifest
        self.meter = meter

    def event(self, event: str, message: str, *, step: int | None = None, **details: Any) -> None:
        """Append to events.jsonl: what happened, in words, with its details."""
        self._append(
            "events.jsonl", {"time": now(), "event": event, "step": step, "message": redact(message), **details}
        )

    def metric(self, record: dict[str, Any]) -> None:
        """Append a logged step to metrics.jsonl."""
        self._append("metrics.jsonl", {**record, "time": now()})

    def update(self, **values: Any) -> None:
        """Set values in the manifest; mappings are merged one level deep."""
        for key, value in values.items():
            old = self.manifest.get(key)
            self.manifest[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        files.write_json(self.path("manifest.json"), self.manifest)

    def path(self, name: str = "") -> Path:
        """The path of a file of the run, of the folder itself for "". Raises SlimtuneError where the folder has gone."""
        try:
            same = os.path.samestat(self.directory.stat(), self._folder)
        except OSError:
            same = False
        if not same:
            what = "the run's folder was moved or removed while the run was using it"
            fix = "put it back and resume the run, or start the run again without --resume"
            raise fail(what, where=str(self.directory), fix=fix)
        return self.directory / name

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, whole or not at all."""
        files.write_json(self.path(name), value)

    def write_lines(self, name: str, records: Sequence[dict[str, Any]]) -> None:
        """Write a JSONL file of the run, whole or not at all."""
        files.write_lines(self.path(name), records)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a phase of the run: seconds into the manifest's `timings`, peak bytes into `memory.phases`."""
        started = time.monotonic()
        try:
            with self.meter.phase(name):
                yield
        except BaseException:
            with suppress(SlimtuneError):  # the first failure is the one to be told
                self._measured(name, started)
            raise
        self._measured(name, started)

    def _measured(self, name: str, started: float) -> None:
        # A run that is resumed or exported again has a new meter, and keeps what the earlier one measured.
        before = self.manifest.get("memory", {}).get("phases", {})
        seconds = round(time.monotonic() - started, 3)
        self.update(timings={name: seconds}, memory={"phases": {**before, **self.meter.phases}})

    def close(self, status: str) -> None:
        """The last write: `complete` is true only for a run that came to its end.

        If its status is complete already, it keeps the moment that the report shows.
        """
        told = status == self.manifest.get("status") == "complete"
        finished = self.manifest["finished"] if told else now()
        self.update(status=status, finished=finished, complete=status == "complete")

    def _append(self, name: str, record: dict[str, Any]) -> None:
        files.append_line(self.path(name), json.dumps(record, ensure_ascii=False))


def open_run(
    output_dir: Path,
    name: str,
    *,
    recipe: str,
    plan: dict[str, Any],
    command: Sequence[str],
    hashes: dict[str, Any],
    meter: Meter | None = None,
    **facts: Any,
) -> RunRecord:
    """A new folder `output_dir/name/<UTC time>` with recipe.yaml, plan.json and manifest.json; `latest` points to it.

    It is made under another name: a run that is killed meanwhile leaves no folder that looks like a run.
    meter: measures the phases' memory. facts: more values of the manifest. Raises SlimtuneError if the folder is not
    writable, or if `latest` is not a link of ours.
    """
    parent = output_dir / name
    require_link(parent / "latest")
    manifest = {
        "name": name,
        "run_id": None,
        "status": "running",
        "complete": False,
        "command": redacted_command(command),
        "started": now(),
        "finished": None,
        "git": git_state(),
        "hashes": hashes,
        "timings": {},
        "differences": list(plan.get("notes", [])),
        **facts,
    }
    opening = output_folders.beside(parent / OPENING, "partial")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        output_folders.remove_leftovers(parent / OPENING)
        opening.mkdir()
        output_folders.mark(opening, "a run")
        files.write_text(opening / "recipe.yaml", recipe)
        files.write_json(opening / "plan.json", plan)
        for part in ("checkpoints", "eval", "export"):
            (opening / part).mkdir()
        directory = _named(opening, parent / datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ"), manifest)
        (directory / output_folders.MARKER).unlink()
        _point_latest(parent / "latest", directory)
    except OSError as error:
        what = f"the output folder cannot be written: {error.strerror}"
        fix = "set run.output_dir to a folder that you may write to"
        raise fail(what, where=str(error.filename or parent), fix=fix) from error
    finally:
        output_folders.remove_own(opening)  # unless it has its name
    record = RunRecord(directory, manifest, meter or Meter())
    record.event("run_opened", f"run {directory.name} of recipe {name}")
    return record


def _named(opening: Path, directory: Path, manifest: dict[str, Any]) -> Path:
    """Give the folder the first name of directory, directory-2, … that is free: two runs may begin in the same second."""
    for ending in ("", *(f"-{number}" for number in range(2, 100))):
        candidate = directory.with_name(directory.name + ending)
        if not os.path.lexists(candidate):
            manifest["run_id"] = candidate.name
            files.write_json(opening / "manifest.json", manifest)
            # A folder that another run gave this name meanwhile is not empty, and so is not replaced.
            try:
                opening.rename(candidate)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            else:
                files.sync_path(candidate.parent)
                return candidate
    raise fail("too many runs began in one second", where=str(directory), fix="start it again")


def require_link(link: Path) -> None:
    """Raise SlimtuneError where `latest` is there and is not as `open_run` makes it, a link to a run's folder beside it."""
    try:
        target = str(link.readlink())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        what = "this is not a link that Slimtune made, so it cannot lead to the newest run"
    else:
        if _RUN_ID.fullmatch(target):
            return
        what = f"this is a link to {target}, and not to a run's folder beside it"
    raise fail(what, where=str(link), fix="rename it, or set run.output_dir to another folder")


def _point_latest(link: Path, directory: Path) -> None:
    require_link(link)
    for left in link.parent.glob(".latest.*"):
        found = _LINK.fullmatch(left.name)
        if found and left.is_symlink() and not psutil.pid_exists(int(found[1])):
            left.unlink(missing_ok=True)
    temporary = link.with_name(f".latest.{os.getpid()}-{secrets.token_hex(4)}")
    temporary.symlink_to(directory.name, target_is_directory=True)
    try:
        temporary.replace(link)
    except BaseException:
        temporary.unlink()
        raise


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
