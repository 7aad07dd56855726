"""Read a run's folder: the whole of it, or file by file where parts are missing or broken."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError, bad_data, fail

T = TypeVar("T")
_PUT_BACK = "put the file back as the run wrote it"
_ALWAYS = ("name", "run_id", "status")
"""What the manifest of every run says since the first version."""
_RECORDS = ("manifest.json", "plan.json", "recipe.yaml")
MODEL = ("base", "revision", "load_in_4bit", "max_seq_length", "thinking")
"""What loading a run's model needs of its recipe."""


@dataclass(frozen=True)
class RecordedRun:
    """A run's folder with its manifest, plan and resolved recipe."""

    directory: Path
    manifest: dict[str, Any]
    plan: dict[str, Any]
    recipe: dict[str, Any]

    @property
    def complete(self) -> bool:
        return bool(self.manifest.get("complete"))

    def section(self, name: str, *needed: str) -> dict[str, Any]:
        """A section of the recipe. Raises SlimtuneError where it lacks one of the needed keys."""
        section = as_dict(self.recipe.get(name))
        where = str(self.directory / "recipe.yaml")
        if missing := [Problem(f"{name}.{key} is missing", where, _PUT_BACK) for key in needed if key not in section]:
            raise SlimtuneError(missing)
        return section


def require(directory: Path) -> None:
    """Raise SlimtuneError where this is no run's folder."""
    if inputs.is_file(directory / "manifest.json"):
        return
    what = "not a run's folder: there is no manifest.json"
    if not inputs.is_folder(directory):
        what = "not a run's folder: this is a file" if inputs.exists(directory) else "there is no such folder"
    inside = inputs.is_file(directory / "latest" / "manifest.json")
    example = f"its latest run is {directory / 'latest'}" if inside else "e.g. outputs/direct/latest"
    raise fail(what, where=str(directory), fix=f"name a run's folder; {example}")


def read(directory: Path) -> RecordedRun:
    """The run in a folder. Raises SlimtuneError if there is none, and with everything that is wrong with its records."""
    require(directory)
    problems: list[Problem] = []
    contents = [_content(directory / name, problems) for name in _RECORDS]
    if problems:
        raise SlimtuneError(problems, summary=f"The records of the run in {directory} cannot be read")
    return RecordedRun(directory, *contents)


def read_own(directory: Path) -> RecordedRun:
    """As `read`, for who writes into the folder or removes something there: another program's manifest is refused, too."""
    found = read(directory)
    if missing := [key for key in _ALWAYS if not isinstance(found.manifest.get(key), str)]:
        what = f"not a run's folder: its manifest.json is another program's, without {' and '.join(missing)}"
        raise fail(what, where=str(directory), fix="name a run's folder, e.g. outputs/direct/latest")
    return found


def mapping(run_dir: Path, name: str, unreadable: list[str]) -> dict[str, Any]:
    """A JSON or YAML file's mapping; empty if the file is missing, or unreadable and then named in `unreadable`.

    A file that is named there already is not read.
    """
    path = run_dir / name
    if not inputs.exists(path) or _is_named(name, unreadable):
        return {}
    problems: list[Problem] = []
    content = _content(path, problems)
    unreadable += [_within(run_dir, problem) for problem in problems]
    return content


def required(run_dir: Path, name: str) -> dict[str, Any]:
    """As `mapping`, for a file that decides something: raises SlimtuneError where it is there and cannot be read."""
    problems: list[Problem] = []
    content = _content(run_dir / name, problems) if inputs.exists(run_dir / name) else {}
    if problems:
        raise SlimtuneError(problems, summary=f"{run_dir / name} cannot be read")
    return content


def lines(run_dir: Path, name: str, unreadable: list[str]) -> list[dict[str, Any]]:
    """The objects of a JSONL file. A last line that the end of the process cut off is left out."""
    path = run_dir / name
    if not inputs.exists(path) or _is_named(name, unreadable):
        return []
    problems: list[Problem] = []
    rows = _rows(path, problems)
    unreadable += [_within(run_dir, problem) for problem in problems]
    return rows


def forgiving(render: Callable[[list[str]], T], names: Sequence[str]) -> T:
    """What `render` makes of a run's folder, without the files whose content it cannot use: these are unreadable too.

    render: gets the list `unreadable` for `mapping` and `lines`. names: of the files that it reads with them. Somebody may
    have edited a value that no reader checks, and it shows only where it is used.
    """
    from jinja2 import TemplateError

    unusable = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, TemplateError)
    with contextlib.suppress(*unusable):
        return render([])
    broken = list(names)
    for name in names:
        others = [other for other in broken if other != name]
        with contextlib.suppress(*unusable):
            render([f"{other}: " for other in others])
            broken = others
    return render([f"{name}: holds something that Slimtune did not write" for name in broken])


def _is_named(name: str, unreadable: list[str]) -> bool:
    return any(text.startswith(f"{name}: ") for text in unreadable)


def read_lines(path: Path, *, fix: str, content: bytes | None = None, like: str = "") -> list[dict[str, Any]]:
    """As `lines`, but raises SlimtuneError with every line that cannot be read.

    fix: what to do about such a line. content: the file's bytes, if they have been read. like: the name that a run's
    file with such lines has, where this one has another.
    """
    problems: list[Problem] = []
    rows = _rows(path, problems, content, like)
    if problems:
        raise bad_data({str(path): [replace(problem, fix=problem.fix or fix) for problem in problems]})
    return rows


def _rows(path: Path, problems: list[Problem], content: bytes | None = None, like: str = "") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    try:
        found = inputs.json_lines(path, content=content, problems=problems)
    except SlimtuneError as error:
        problems += error.problems
        return []
    for number, row in found:
        if wrong := _faults(like or path.name, row):
            problems += [Problem(what, f"{path}:{number}") for what in wrong]
        else:
            rows.append(row)
    return rows


def _content(path: Path, problems: list[Problem]) -> dict[str, Any]:
    """The mapping in a file; empty, with the reasons in `problems`, where it has another form."""
    try:
        content = inputs.yaml_object(path) if path.suffix == ".yaml" else inputs.json_object(path)
    except SlimtuneError as error:
        problems += error.problems
        return {}
    wrong = _faults(path.name, content)
    problems += [Problem(what, str(path), _PUT_BACK) for what in wrong]
    return {} if wrong else content


def _faults(name: str, content: Mapping[str, Any]) -> list[str]:
    from slimtune.core import run_schema  # pydantic: not for commands that read no run

    return run_schema.faults(name, content)


def _within(run_dir: Path, problem: Problem) -> str:
    return f"{problem.where.removeprefix(f'{run_dir}/')}: {problem.what}"


def as_dict(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def at(value: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of nested mappings; the default where a part is missing or null."""
    for key in path.split("."):
        value = as_dict(value).get(key)
    return default if value is None else value
