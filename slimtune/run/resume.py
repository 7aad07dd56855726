"""Resume a run: find it, check that recipe and data are unchanged, and restore its plan."""

import dataclasses
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from slimtune.core import inputs, output_folders, run_folder
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.files import write_lines
from slimtune.core.run_folder import RecordedRun, as_dict, at
from slimtune.core.run_record import OPENING
from slimtune.plan.make import Plan
from slimtune.recipe import loading as recipes
from slimtune.recipe.schema import Recipe

METRICS = "metrics.jsonl"
# Changing these alters neither what the model learns nor what it is asked. All other values must be unchanged.
HARMLESS = ("about", "export", "run.report_to", "run.output_dir", "budget.price_per_hour", "train.save_total_limit")


_MANIFEST = "manifest.json"
_RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z(-[0-9]+)?")


def latest_folder(runs: Path) -> Path | None:
    """The newest run's folder among the runs of one recipe; None where there is none."""
    folders = [path.parent for path in runs.glob(f"*/{_MANIFEST}") if not path.parent.is_symlink()]
    return max(folders, key=_age, default=None)


def _age(folder: Path) -> tuple[str, int]:
    """Runs of the same second are numbered: …Z, …Z-2, …Z-10."""
    time, _, number = folder.name.partition("-")
    return time, int(number) if number.isdecimal() else 1


def find(wanted: str, recipe: Recipe, say: Callable[[str], None]) -> RecordedRun | None:
    """The run to resume: the recipe's latest for "auto", or a run's folder. None, and said so, where the latest had not
    begun. Raises SlimtuneError where there is none."""
    runs = Path(recipe.run.output_dir) / recipe.name
    if wanted != "auto":
        return _read(Path(wanted))
    folder = latest_folder(runs)
    if not_begun := _not_begun(runs, folder):
        say(f"{not_begun} ended before the run had begun. A new run is started.")
        return None
    if folder is None:
        raise fail("no run to resume", where=str(runs), fix="leave --resume out to start one")
    return _read(folder)


def _read(folder: Path) -> RecordedRun:
    if inputs.exists(folder / "recipe.yaml") and not inputs.exists(folder / _MANIFEST):
        fix = "start the run again, without --resume"
        raise fail(f"this run ended before it had begun: it has no {_MANIFEST}", where=str(folder), fix=fix)
    earlier = run_folder.read_own(folder)
    _metrics(folder / METRICS)  # what is wrong with them is told before anything is loaded
    return earlier


def _not_begun(runs: Path, latest: Path | None) -> Path | None:
    """A folder newer than the latest run's in which a run was being prepared when its process ended."""
    opened = [path for path in runs.glob("*") if _RUN_ID.fullmatch(path.name) and not (path / _MANIFEST).exists()]
    if newer := [path for path in opened if latest is None or _age(path) > _age(latest)]:
        return max(newer, key=_age)
    since = 0.0 if latest is None else latest.stat().st_mtime
    opening = (path for path in output_folders.leftovers(runs / OPENING) if path.stat().st_mtime > since)
    return next(opening, None)


def require_unchanged(earlier: RecordedRun) -> None:
    """Raise SlimtuneError where another process has gone on with the run since it was read. Call it with the run's lock."""
    if run_folder.read_own(earlier.directory).manifest != earlier.manifest:
        what = "another process has gone on with this run since this command began"
        raise fail(what, where=str(earlier.directory), fix="run the command again")


def require_same(earlier: RecordedRun, recipe: Recipe, data_hashes: dict[str, str]) -> None:
    """Raise SlimtuneError where recipe or data have changed, with each old and new value."""
    before, now = _flat(earlier.recipe), _flat(yaml.safe_load(recipes.dump(recipe)))
    harmless = tuple(f"{one}." for one in HARMLESS)
    problems = [
        Problem(f"was {before.get(key)!r}, is {now.get(key)!r}", key, "resume with the old value, or start a new run")
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not f"{key}.".startswith(harmless)
    ]
    recorded = at(earlier.manifest, "hashes.data", {})
    problems += [
        Problem("the file has changed since the run began", path, "put the old file back, or start a new run")
        for path in sorted(recorded.keys() | data_hashes.keys())
        if recorded.get(path) != data_hashes.get(path)
    ]
    if problems:
        summary = f"{earlier.directory} cannot be resumed, because recipe or data have changed"
        raise SlimtuneError(problems, summary=summary)


def recorded_plan(plan: Plan, earlier: RecordedRun) -> Plan:
    """The plan that the run began with: a new one could differ where other programs hold more of the card.
    Raises SlimtuneError for a run of another version of Slimtune or on another kind of device, and for values of another
    type than the setting's."""
    settings = as_dict(earlier.plan.get("settings"))
    where = str(earlier.directory / "plan.json")
    if settings.keys() != plan.settings.keys():
        raise fail("another version of Slimtune made the plan", where=where, fix="start a new run")
    recorded = ((name, entry["value"]) for name, entry in settings.items())
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in recorded}
    types, problems = get_type_hints(Plan), []
    for name, value in values.items():
        try:
            TypeAdapter(types[name]).validate_python(value, strict=True)
        except ValidationError:
            problems.append(
                Problem(f"the setting {name} cannot be {value!r}", where, "put the file back, or start a new run")
            )
    if problems:
        raise SlimtuneError(problems)
    if values["device"] != plan.device or values["precision"] != plan.precision:
        raise fail(
            f"the run began on {values['device']} in {values['precision']}; this machine would continue on "
            f"{plan.device} in {plan.precision}",
            where=str(earlier.directory),
            fix="resume it on a machine like the first, or start a new run",
        )
    return dataclasses.replace(plan, **values)


def command(started_with: Sequence[str], wanted: str = "auto") -> str:
    """The command that resumes a run, from the one that started it (its program first)."""
    program, *arguments = started_with or ["train_unsloth.py"]
    # The first two are the module in runs of older versions, and `python -m slimtune.cli`.
    if program.endswith(("slimtune/cli.py", "slimtune/cli/__main__.py", "/slimtune")):
        begin = ["slimtune"]
    else:
        begin = ["python", program] if program.endswith(".py") else [program]
    if "--resume" in arguments:
        at = arguments.index("--resume")
        del arguments[at : at + 2]
    return shlex.join([*begin, *arguments, "--resume", wanted])


def forget_after(metrics: Path, step: int) -> None:
    """Drop later steps from metrics.jsonl, since they are trained again."""
    if inputs.exists(metrics):
        write_lines(metrics, [row for row in _metrics(metrics) if row["step"] <= step])


def _metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last line that was cut off when the process died is none of them."""
    return run_folder.read_lines(path, fix="remove this line", like=METRICS) if inputs.exists(path) else []


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {key: part for below in value for key, part in _flat(value[below], f"{name}.{below}".strip(".")).items()}
