"""Where a run writes. Checked in the plan: a run must not find out after hours that it may not."""

from pathlib import Path

from slimtune.core import outputs, run_record
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.export import folders as exports
from slimtune.recipe.places import data_files
from slimtune.recipe.schema import Recipe

_FIX = "set run.output_dir to a folder that you may write to"


def require(recipe: Recipe, base: Path | None, resumed: Path | None = None) -> None:
    """Raise SlimtuneError, with every problem at once, where the run could not write, or would replace something.

    base: the base model's folder, None where it is not on this machine. resumed: the run's folder that is resumed.
    """
    problems: list[Problem] = []
    for check in (_require_run, _require_merged):
        try:
            check(recipe, base, resumed)
        except SlimtuneError as error:
            problems += error.problems
    if problems:
        raise SlimtuneError(problems)


def _require_run(recipe: Recipe, base: Path | None, resumed: Path | None) -> None:
    runs = outputs.named(Path(recipe.run.output_dir, recipe.name), "run.output_dir")
    try:
        outputs.require_writable(resumed or runs, "run.output_dir")
    except SlimtuneError as error:
        what = f"the output folder cannot be written: {error.problems[0].what}"
        raise fail(what, where=error.problems[0].where, fix=_FIX) from None
    if resumed is None:
        run_record.require_link(runs / "latest")


def _require_merged(recipe: Recipe, base: Path | None, resumed: Path | None) -> None:
    merged = recipe.export.merged if recipe.export else None
    if merged is None:
        return
    runs = outputs.named(Path(recipe.run.output_dir, recipe.name), "run.output_dir")
    option = "export.merged"
    read = {**data_files(recipe), "the base model": str(base) if base else None}
    exports.require_apart({option: merged}, read)
    # The folder of the runs does not exist yet, or is the user's own: the merged weights lie beside it.
    exports.require_apart({"run.output_dir": runs, option: merged}, {})
    adapter = resumed / "adapter" if resumed else None
    fix = "name a folder that does not exist yet"
    exports.require_merged_free(merged, option, adapter=adapter, fresh=False, fix=fix)
