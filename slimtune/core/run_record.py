"""The record of a run: its folder, manifest, events and metrics. The report and the experiment log read these alone.

The resolved recipe is written first and the manifest is marked complete last, so the folder tells how far a run came.
"""

import datetime
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from slimtune.core import files
from slimtune.core.errors import fail
from slimtune.core.git import git_state
from slimtune.core.memory import Meter
from slimtune.core.redaction import redact, redacted_command, without_keys


class RunRecord:
    """A run's folder while the run is being written. Make one with `open_run`."""

    def __init__(self, directory: Path, manifest: dict[str, Any], meter: Meter):
        self.directory = directory
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
        files.write_json(self.directory / "manifest.json", self.manifest)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, whole or not at all."""
        files.write_json(self.directory / name, value)

    def write_lines(self, name: str, records: Sequence[dict[str, Any]]) -> None:
        """Write a JSONL file of the run, whole or not at all."""
        files.write_lines(self.directory / name, records)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a phase of the run: seconds into the manifest's `timings`, peak bytes into `memory.phases`."""
        started = time.monotonic()
        try:
            with self.meter.phase(name):
                yield
        finally:
            seconds = round(time.monotonic() - started, 3)
            # A run that is resumed or exported again has a new meter, and keeps what the earlier one measured.
            before = self.manifest.get("memory", {}).get("phases", {})
            self.update(timings={name: seconds}, memory={"phases": {**before, **self.meter.phases}})

    def close(self, status: str) -> None:
        """The last write: `complete` is true only for a run that came to its end.

        If its status is complete already, it keeps the moment that the report shows.
        """
        told = status == self.manifest.get("status") == "complete"
        finished = self.manifest["finished"] if told else now()
        self.update(status=status, finished=finished, complete=status == "complete")

    def _append(self, name: str, record: dict[str, Any]) -> None:
        path = self.directory / name
        with files.writing(path), path.open("a", encoding="utf-8") as file:
            file.write(without_keys(json.dumps(record, ensure_ascii=False)) + "\n")


def open_run(
    output_dir: Path,
    name: str,
    *,
    recipe: str,
    plan: dict[str, Any],
    command: Sequence[str],
    hashes: dict[str, Any],
    meter: Meter | None = None,
) -> RunRecord:
    """A new folder `output_dir/name/<UTC time>` with recipe.yaml and plan.json; `latest` points to it.

    meter: measures the phases' memory. Raises SlimtuneError if the folder is not writable.
    """
    parent = output_dir / name
    directory = parent / datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        directory = _make_new(directory)
        files.write_text(directory / "recipe.yaml", recipe)
        for part in ("checkpoints", "eval", "export"):
            (directory / part).mkdir()
        _point_latest(parent / "latest", directory)
    except OSError as error:
        what = f"the output folder cannot be written: {error.strerror}"
        fix = "set run.output_dir to a folder that you may write to"
        raise fail(what, where=str(error.filename or parent), fix=fix) from None
    files.write_json(directory / "plan.json", plan)
    record = RunRecord(directory, {}, meter or Meter())
    record.update(
        name=name,
        run_id=directory.name,
        status="running",
        complete=False,
        command=redacted_command(command),
        started=now(),
        finished=None,
        git=git_state(),
        hashes=hashes,
        timings={},
        differences=list(plan.get("notes", [])),
    )
    record.event("run_opened", f"run {record.manifest['run_id']} of recipe {name}")
    return record


def _make_new(directory: Path) -> Path:
    """The first of directory, directory-2, … that does not exist yet: two runs may begin in the same second."""
    for ending in ("", *(f"-{number}" for number in range(2, 100))):
        with suppress(FileExistsError):
            candidate = directory.with_name(directory.name + ending)
            candidate.mkdir()
            return candidate
    raise FileExistsError(17, "too many runs in one second", str(directory))


def _point_latest(link: Path, directory: Path) -> None:
    if link.exists() and not link.is_symlink():
        raise OSError(17, "'latest' exists and is not a link", str(link))
    temporary = link.with_name(f".latest.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(directory.name, target_is_directory=True)
    temporary.replace(link)


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
