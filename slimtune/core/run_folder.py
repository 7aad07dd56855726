"""Read a run's folder: the whole of it, or file by file where parts are missing or broken."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slimtune.core.errors import fail


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


def read(directory: Path) -> RecordedRun:
    """The run in a folder. Raises SlimtuneError if there is none, or if its records are broken."""
    try:
        return RecordedRun(
            directory,
            json.loads((directory / "manifest.json").read_text(encoding="utf-8")),
            json.loads((directory / "plan.json").read_text(encoding="utf-8")),
            yaml.safe_load((directory / "recipe.yaml").read_text(encoding="utf-8")),
        )
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        fix = "name one, e.g. outputs/direct/latest"
        raise fail(f"not a run's folder: {error}", where=str(directory), fix=fix) from None


def mapping(run_dir: Path, name: str, unreadable: list[str]) -> dict[str, Any]:
    """A JSON or YAML file's mapping; empty if the file is missing, or unreadable and then named in `unreadable`."""
    path = run_dir / name
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
        if isinstance(content, dict):
            return content
        unreadable.append(f"{name}: not a mapping")
    except (UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        unreadable.append(f"{name}: {error}")
    return {}


def lines(run_dir: Path, name: str, unreadable: list[str]) -> list[dict[str, Any]]:
    """The objects of a JSONL file. A last line that the end of the process cut off is left out."""
    path = run_dir / name
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            if line.strip() and (row := as_dict(json.loads(line))):
                rows.append(row)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            unreadable.append(f"{name}:{number}: {error}")
    return rows


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
