"""Read YAML by its 1.2 rules, with the line of every value.

PyYAML's safe loader follows YAML 1.1: `2e-4` is a string, `12:30` is 750, `on` is true, and the last of two equal keys
wins. This reader resolves plain scalars of the same nodes by YAML 1.2's core schema
(https://yaml.org/spec/1.2.2/#103-core-schema): numbers are numbers, and only `true` and `false` are booleans.
"""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import yaml

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError, fail

Path_ = tuple[str | int, ...]
"""Where a value stands: ("train", "epochs") or ("data", "train", 0, "path")."""

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS = {
    "null": None, "Null": None, "NULL": None, "~": None, "": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_LARGEST_RECIPE = 2**18
_DATA_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_KNOWN_TAGS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ["null", "bool", "int", "float", "str", "seq", "map", "timestamp", "merge", "value"]
}


def parse_scalar(text: str) -> Any:
    """A plain scalar as null, bool, int, float or str. Raises ValueError for a number that is too large."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return inputs.whole_number(text)
    if not _FLOAT.fullmatch(text):
        return text
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def parse_value(text: str, where: str = "") -> Any:
    """The value of a `key=value` argument, a YAML scalar, `[list]` or `{map}`. where: for messages.

    Raises SlimtuneError for other texts.
    """
    return _read(text, where=where or f"'{text}'")[0]


def load(path: Path) -> tuple[dict[str, Any], dict[Path_, int]]:
    """A YAML file's mapping, and for each value the 1-based line it starts on.

    Raises SlimtuneError for a missing or unreadable file, bad YAML, tags, anchors, duplicate or non-string keys.
    """
    if path.suffix.lower() in _DATA_SUFFIXES:
        raise fail(
            "this is a data file, not a recipe", where=str(path), fix="name a recipe, which lists it under data.train"
        )
    try:
        text = inputs.read_text(path, most=_LARGEST_RECIPE)
    except SlimtuneError as error:
        fix = "check the path given to --recipe"
        raise error.mapped(lambda one: one if one.fix else dataclasses.replace(one, fix=fix)) from None
    value, lines = _read(text, where=str(path))
    if not isinstance(value, dict):
        raise fail("a recipe is a mapping of sections", where=f"{path}:1", fix="see recipes/direct.yaml")
    return value, lines


def _read(text: str, *, where: str) -> tuple[Any, dict[Path_, int]]:
    problems: list[Problem] = []
    lines: dict[Path_, int] = {}
    try:
        inputs.require_shallow(text)  # PyYAML takes seconds for what it cannot read
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = _construct(node, (), lines, problems, where, set()) if node is not None else {}
    except (yaml.YAMLError, *inputs.FAULTS) as error:
        inputs.raise_bad_yaml(error, where)
    if problems:
        raise SlimtuneError(problems)
    return value, lines


def _construct(
    node: yaml.Node, path: Path_, lines: dict[Path_, int], problems: list[Problem], where: str, seen: set[int]
) -> Any:
    line = node.start_mark.line + 1
    lines[path] = line
    place = f"{where}:{line} {dotted(path)}".rstrip()
    if id(node) in seen:
        problems.append(Problem("YAML anchors and aliases are not supported", place, "write the value out"))
        return None
    seen.add(id(node))
    if len(path) > inputs.MAX_DEPTH:
        raise RecursionError
    if node.tag not in _KNOWN_TAGS:
        problems.append(Problem(f"YAML tag '{node.tag}' is not allowed", place, "write the plain value"))
        return None
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            key_place = f"{where}:{key_node.start_mark.line + 1}"
            if not isinstance(key, str) or key_node.tag == "tag:yaml.org,2002:merge" or _UNWRITABLE.search(key):
                problems.append(Problem("keys must be plain names", key_place, "use 'name: value'"))
            elif key in mapping:
                fix = f"it stands on line {lines[(*path, key)]} already"
                problems.append(Problem(f"duplicate key '{key}'", key_place, fix))
            else:
                mapping[key] = _construct(value_node, (*path, key), lines, problems, where, seen)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_construct(child, (*path, i), lines, problems, where, seen) for i, child in enumerate(node.value)]
    if not isinstance(node, yaml.ScalarNode):
        return None
    if _UNWRITABLE.search(node.value):
        what = "the text contains NUL or half a character (a lone surrogate)"
        problems.append(Problem(what, place, "write the text again"))
    if node.style is not None:
        return node.value
    try:
        return parse_scalar(node.value)
    except ValueError as error:
        problems.append(Problem(str(error), place, "write a smaller number"))
        return None


def dotted(path: Path_) -> str:
    """("data", "train", 0, "path") as people write it: data.train[0].path"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
