"""The place in the recipe's file of a value that is refused after loading.

Checks below the command line know a value by its key alone ("model.base"). The command that loaded the recipe knows the
file and line of each key, and adds them here to whatever is raised.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError
from slimtune.recipe import yaml_lines
from slimtune.recipe.schema import Recipe


@contextlib.contextmanager
def naming(recipe: Recipe, path: Path | str, sources: Mapping[str, str]) -> Iterator[None]:
    """Within it, a SlimtuneError about a value of the recipe says where that value stands.

    path: the recipe's file. sources: where each value comes from, as `loading.load_with_sources` returns it.
    """
    try:
        yield
    except SlimtuneError as error:
        data = {path: key for key, path in reversed(data_files(recipe).items())}
        placed = error.mapped(lambda problem: _placed(problem, str(path), sources, data))
        if placed.every == error.every:
            raise
        raise placed from error


def files_of(recipe: Recipe, path: Path | str) -> list[str]:
    """The files that a recipe is made of and those that it names as data: what a command that takes it reads."""
    found: list[str] = []
    place: Path | None = Path(path)
    while place is not None and str(place) not in found:
        found.append(str(place))
        parent = yaml_lines.load(place)[0].get("base")
        place = place.parent / parent if parent else None
    return [*found, *dict.fromkeys(data_files(recipe).values())]


def _placed(problem: Problem, path: str, sources: Mapping[str, str], data: Mapping[str, str]) -> Problem:
    key = problem.where
    if key in data:
        # A data file that is missing, say. A fault in one of its lines has the file's own line.
        place = _place(data[key], path, sources)
        beside = Path(path).parent / key
        if problem.what == inputs.MISSING and inputs.is_file(beside):
            fix = f"it lies beside the recipe, and paths are relative to the working directory: write {beside}"
            problem = dataclasses.replace(problem, fix=fix)
        return dataclasses.replace(problem, where=f"{place} {data[key]}: {key}")
    if key.partition(".")[0] in Recipe.model_fields:
        # A path may follow the key.
        return dataclasses.replace(problem, where=f"{_place(key.partition(' ')[0], path, sources)} {key}")
    return problem


def _place(key: str, path: str, sources: Mapping[str, str]) -> str:
    """The line of the value; of its section where the value is a default; the file where that is one, too."""
    while key and key not in sources:
        key = key.rpartition(".")[0]
    return sources.get(key, path)


def data_files(recipe: Recipe) -> dict[str, str]:
    """The path of each data file, by its key in the recipe."""
    evaluated = {"evaluate.data": recipe.evaluate.data} if recipe.evaluate else {}
    held_out = {"data.eval": recipe.data.eval} if recipe.data.eval else {}
    return {f"data.train[{n}].path": source.path for n, source in enumerate(recipe.data.train)} | held_out | evaluated
