"""Resume a run: find it, check that recipe and data are unchanged, and restore its plan."""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from slimtune.core import run_folder
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.files import write_text
from slimtune.core.run_folder import RecordedRun
from slimtune.plan.make import Plan
from slimtune.recipe import loading as recipes
from slimtune.recipe.schema import Recipe

# Changing these alters neither what the model learns nor what it is asked. All other values must be unchanged.
HARMLESS = ("about", "export", "run.report_to", "run.output_dir", "budget.price_per_hour", "train.save_total_limit")


def latest_folder(runs: Path) -> Path | None:
    """The newest run's folder among the runs of one recipe; None where there is none."""
    folders = [path.parent for path in runs.glob("*/manifest.json") if not path.parent.is_symlink()]
    return max(folders, key=_age, default=None)


def _age(folder: Path) -> tuple[str, int]:
    """Runs of the same second are numbered: …Z, …Z-2, …Z-10."""
    time, _, number = folder.name.partition("-")
    return time, int(number) if number.isdigit() else 1


def find(wanted: str, recipe: Recipe) -> RecordedRun:
    """The run to resume: the recipe's latest for "auto", or a run's folder. Raises SlimtuneError where there is none."""
    runs = Path(recipe.run.output_dir) / recipe.name
    folder = latest_folder(runs) if wanted == "auto" else Path(wanted)
    if folder is None:
        raise fail("no run to resume", where=str(runs), fix="leave --resume out to start one")
    return run_folder.read(folder)


def require_same(earlier: RecordedRun, recipe: Recipe, data_hashes: dict[str, str]) -> None:
    """Raise SlimtuneError where recipe or data have changed, with each old and new value."""
    before, now = _flat(earlier.recipe), _flat(yaml.safe_load(recipes.dump(recipe)))
    harmless = tuple(f"{one}." for one in HARMLESS)
    problems = [
        Problem(f"was {before.get(key)!r}, is {now.get(key)!r}", key, "resume with the old value, or start a new run")
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not f"{key}.".startswith(harmless)
    ]
    recorded = earlier.manifest.get("hashes", {}).get("data", {})
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
    Raises SlimtuneError for a run of another version of Slimtune or on another kind of device."""
    settings = earlier.plan.get("settings", {})
    if settings.keys() != plan.settings.keys():
        where = str(earlier.directory / "plan.json")
        raise fail("another version of Slimtune made the plan", where=where, fix="start a new run")
    recorded = ((name, entry["value"]) for name, entry in settings.items())
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in recorded}
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
    program, *arguments = started_with
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
    if metrics.is_file():
        # A last line without a line end was cut off when the process died.
        lines = metrics.read_text(encoding="utf-8").split("\n")[:-1]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        write_text(metrics, "".join(line + "\n" for line in kept))


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {key: part for below in value for key, part in _flat(value[below], f"{name}.{below}".strip(".")).items()}
