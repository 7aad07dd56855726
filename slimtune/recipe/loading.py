"""Read a recipe's file: parents, overrides, and every mistake at once, with its line."""

import difflib
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.outputs import named
from slimtune.core.units import plural
from slimtune.recipe import yaml_lines
from slimtune.recipe.schema import Recipe

_MOST_PARENTS, _MOST_EXPLAINED = 20, 200
_PART = re.compile(r"(?P<name>[^.\[\]=]+)(?P<indices>(?:\[[0-9]{1,6}\])*)")


def load(path: Path | str, overrides: Sequence[str] = (), methods: Collection[str] | None = None) -> Recipe:
    """Read a recipe with its `base:` parent and the command line's `section.key=value` overrides.

    methods: the names that `train.method` may have; any, where not given.
    Raises SlimtuneError with every problem of the file and the overrides at once (exit code 2).
    """
    return load_with_sources(path, overrides, methods)[0]


def load_with_sources(
    path: Path | str, overrides: Sequence[str] = (), methods: Collection[str] | None = None
) -> tuple[Recipe, dict[str, str]]:
    """As `load`, and where each value that the recipe sets comes from: {"train.epochs": "recipes/direct.yaml:14"}."""
    values, places = _with_parent(Path(path), ())
    problems = _apply_overrides(values, places, overrides)
    recipe = _validated(values, places, str(path), problems, methods)
    return recipe, {yaml_lines.dotted(where): place for where, place in places.items()}


def of_files(files: Sequence[str], base: str | None = None) -> Recipe:
    """A recipe with these training files, this base model and only defaults. Raises SlimtuneError for what they cannot be."""
    values = {"name": "data", "data": {"train": [{"path": path} for path in files]}}
    values |= {"model": {"base": base}} if base else {}
    return _validated(values, {(): "command line"}, "", [])


def _validated(
    values: dict[str, Any],
    places: dict[yaml_lines.Path_, str],
    path: str,
    problems: list[Problem],
    methods: Collection[str] | None = None,
) -> Recipe:
    """The recipe of these values. Raises SlimtuneError with `problems` and all that are found."""
    try:
        recipe = Recipe.model_validate(values, context=None if methods is None else {"methods": methods})
    except ValidationError as error:
        explained: dict[str, Problem] = {}
        for detail in error.errors(include_url=False)[:_MOST_EXPLAINED]:
            problem = _explain(detail, places, path)
            # A value that fits no member of a union fails once for each; the first says what was meant.
            explained.setdefault(problem.where, problem)
        problems += explained.values()
    if problems:
        summary = f"{plural(len(problems), 'problem')} in recipe {path}" if path else ""
        raise SlimtuneError(problems, summary=summary)
    return recipe


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML: every value spelled out, ready to be loaded again."""
    return yaml.safe_dump(recipe.model_dump(), allow_unicode=True, sort_keys=False)


def _with_parent(path: Path, children: tuple[Path, ...]) -> tuple[dict[str, Any], dict[yaml_lines.Path_, str]]:
    """The file's values over its parent's; for each value the "file:line" it came from."""
    resolved = named(path, "--recipe")
    if resolved in children:
        chain = " → ".join(p.name for p in (*children, resolved))
        raise fail("recipes inherit from each other in a circle", where=str(path), fix=f"break the chain {chain}")
    if len(children) > _MOST_PARENTS:
        fix = "merge some of these recipes"
        raise fail(f"more than {_MOST_PARENTS} recipes inherit from each other", where=str(path), fix=fix)
    values, lines = yaml_lines.load(path)
    places = {where: f"{path}:{line}" for where, line in lines.items()}
    parent = values.pop("base", None)
    if parent is None:
        return values, places
    where = f"{places[('base',)]} base"
    if not isinstance(parent, str):
        raise fail("must name one recipe file", where=where, fix="write base: direct.yaml")
    parent_path = path.parent / parent
    if not inputs.exists(parent_path):
        raise fail(
            f"no such recipe: {parent_path}",
            where=where,
            fix="name a file that exists; the path is relative to this file",
        )
    inherited, inherited_places = _with_parent(parent_path, (*children, resolved))
    for place in places:
        if not isinstance(_value_at(values, place), dict):
            _forget_below(inherited_places, place)
    return _merge(inherited, values), {**inherited_places, **places}


def _value_at(values: Any, path: yaml_lines.Path_) -> Any:
    for part in path:
        # `base`, which names the parent, has been taken out.
        values = values.get(part) if isinstance(values, dict) else values[part]
    return values


def _forget_below(places: dict[yaml_lines.Path_, str], path: yaml_lines.Path_) -> None:
    """A value that is replaced whole takes the places of its parts with it."""
    for below in [where for where in places if len(where) > len(path) and where[: len(path)] == path]:
        del places[below]


def _merge(parent: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key; anything else of the child replaces the parent's."""
    merged = dict(parent)
    for key, value in child.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply_overrides(
    values: dict[str, Any], places: dict[yaml_lines.Path_, str], overrides: Sequence[str]
) -> list[Problem]:
    problems: list[Problem] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = _parts(key)
        if not equals or not parts:
            fix = "write section.key=value, e.g. train.epochs=1"
            if not equals and override.endswith((".yaml", ".yml")):
                fix = f"name a recipe with --recipe {override}"
            problems.append(Problem(f"'{override}' is not an override", "command line", fix))
            continue
        try:
            _set(values, parts, yaml_lines.parse_value(text, f"command line {key}"))
        except SlimtuneError as error:
            problems.extend(error.problems)
            continue
        _forget_below(places, parts)
        for depth in range(1, len(parts) + 1):
            places[parts[:depth]] = "command line"
    return problems


def _parts(key: str) -> yaml_lines.Path_:
    """data.train[0].path as ("data", "train", 0, "path"); () for what is no such key."""
    parts: list[str | int] = []
    for text in key.split("."):
        part = _PART.fullmatch(text)
        if part is None:
            return ()
        parts += [part["name"], *map(int, re.findall("[0-9]+", part["indices"]))]
    return tuple(parts)


def _set(values: dict[str, Any], parts: yaml_lines.Path_, value: Any) -> None:
    """Put a value into nested mappings, which are made, and lists, whose entries are there already."""
    target: Any = values
    for depth, part in enumerate(parts):
        if isinstance(part, int) and not (isinstance(target, list) and part < len(target)):
            place, wanted = yaml_lines.dotted(parts[:depth]), yaml_lines.dotted(parts[: depth + 1])
            last = f"{place} ends with [{len(target) - 1}]" if isinstance(target, list) else f"{place} is no list"
            fix = f"count from 0, or write the whole list: {place}=[…]"
            raise fail(f"there is no {wanted}: in the recipe {last}", where="command line", fix=fix)
        if depth == len(parts) - 1:
            target[part] = value
            return
        below = target[part] if isinstance(part, int) else target.get(part)
        if isinstance(parts[depth + 1], str) and not isinstance(below, dict):
            below = target[part] = {}
        target = below


def _explain(detail: ErrorDetails, places: dict[yaml_lines.Path_, str], path: str) -> Problem:
    """A pydantic error in the words of someone who wrote the file."""
    kind, given = detail["type"], detail.get("input")
    last = kind == "extra_forbidden"
    # Union members add their own name to the location, such as "list[str]": keep the part that exists in the file.
    within = (part for part in detail["loc"][: -1 if last else None] if not re.search(r"[\[\(]", str(part)))
    location = (*within, *detail["loc"][-1 if last else len(detail["loc"]) :])
    location += getattr(detail.get("ctx", {}).get("error"), "key", ())
    known = (location[:depth] for depth in range(len(location), -1, -1) if location[:depth] in places)
    shown = location
    while shown and shown not in places and shown[-1] in {"bool", "str"}:
        shown = shown[:-1]
    where = f"{places.get(next(known, ()), path)} {yaml_lines.dotted(shown)}".strip()
    if kind == "extra_forbidden":
        return Problem(f"unknown key '{location[-1]}'", where, _did_you_mean(location))
    if kind == "missing":
        return Problem("is missing", where, "add it; see recipes/direct.yaml")
    if kind == "literal_error":
        choices = str(detail.get("ctx", {}).get("expected", ""))
        near = difflib.get_close_matches(str(given), re.findall(r"'([^']*)'", choices), n=1)
        return Problem(f"'{given}' is not one of {choices}", where, f"did you mean '{near[0]}'?" if near else "")
    if kind == "string_pattern_mismatch":
        return Problem(f"'{given}' is not a usable name", where, "use lower-case letters, digits, '.', '_' and '-'")
    if kind == "value_error":
        return Problem(str(detail.get("ctx", {}).get("error", detail["msg"])), where)
    message = detail["msg"].removeprefix("Input ").replace("should be", "must be")
    return Problem(f"{message}, not {given!r}", where)


def _did_you_mean(location: tuple[str | int, ...]) -> str:
    model: Any = Recipe
    for part in (part for part in location[:-1] if isinstance(part, str)):
        model = _section_type(model, part)
        if model is None:
            return ""
    names, wrong = list(model.model_fields), str(location[-1])
    elsewhere: dict[str, list[str]] = {}
    for section in Recipe.model_fields:
        for name in getattr(_section_type(Recipe, section), "model_fields", ()):
            elsewhere.setdefault(name, []).append(f"{section}.{name}")
    near = difflib.get_close_matches(wrong, [*names, *elsewhere], n=1, cutoff=0.5)
    if wrong in elsewhere:
        return f"did you mean {' or '.join(repr(name) for name in elsewhere[wrong])}?"
    if near:
        meant = [near[0]] if near[0] in names else elsewhere[near[0]]
        return f"did you mean {' or '.join(repr(name) for name in meant)}?"
    return f"known keys: {', '.join(names)}"


def _section_type(model: Any, field: str) -> type[BaseModel] | None:
    info = model.model_fields.get(field)
    if info is None:
        return None
    for candidate in (info.annotation, *getattr(info.annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
