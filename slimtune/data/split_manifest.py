"""`split.json`: what was split how, so that it stays so. A small file beside the training files that it names.

    {"version", "seed", "sizes": {"test": 40, "dev": 0}, "threshold", "inputs": [{"path", "sha256", "rows"}],
     "files": [{"name", "split", "sha256", "rows"}],
     "splits": {"train": {"count", "labels", "sources", "ids": {id: SHA-256 of the question's rows}}, …},
     "groups": {"count", "largest"}}

Paths are relative to the folder of the manifest. It contains no time: the same split gives the same bytes.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import SlimtuneError, fail

NAME, VERSION = "split.json", 1
_SPLITS = ("train", "dev", "test")


def read(path: Path) -> dict[str, Any] | None:
    """The manifest, or None without one. Raises SlimtuneError for a file that `data split` did not write."""
    if not inputs.exists(path):
        return None
    fix = "name another folder with --out, or another manifest with --manifest"
    try:
        found = inputs.json_object(path)
    except SlimtuneError as error:
        what = f"`data split` did not write this file: {inputs.refused(error)}"
        raise fail(what, where=error.problems[0].where, fix=fix) from None
    if wrong := _fault(found):
        raise fail(f"`data split` did not write this file: {wrong}", where=str(path), fix=fix)
    return found


def as_bytes(manifest: Mapping[str, Any]) -> bytes:
    """The file's content."""
    return json.dumps(manifest, ensure_ascii=False, indent=1).encode() + b"\n"


def split_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The name of the split of each id."""
    return {id: name for name, part in manifest["splits"].items() for id in part["ids"]}


def recorded(hashes: Mapping[str, str]) -> list[dict[str, Any]]:
    """For each data file that a manifest (`split*.json`) beside it lists, what the manifest says of it.

    hashes: path to the SHA-256 of the file's bytes. unchanged: whether these are the bytes that the split wrote.
    """
    found = []
    for path, sha256 in hashes.items():
        file = Path(path)
        for place in sorted(file.parent.glob("split*.json")):
            manifest = _parsed(place) or {}
            for entry in manifest.get("files") or ():
                if entry["name"] == file.name:
                    stands = {"file": path, "split": entry["split"], "unchanged": sha256 == entry["sha256"]}
                    written = {
                        "manifest": str(place),
                        "manifest_sha256": inputs.sha256(place),
                        "seed": manifest["seed"],
                    }
                    found.append(stands | written)
    return found


def notes(splits: Iterable[Mapping[str, Any]], trained_on: Iterable[str]) -> list[str]:
    """Notes for the plan on `recorded` files: one that has changed, or a held-out one that is trained on."""
    training = set(trained_on)
    said = []
    for one in splits:
        if not one["unchanged"]:
            said.append(f"{one['file']} has changed since {one['manifest']} was written.")
        if one["file"] in training and one["split"] != "train":
            said.append(f"{one['file']} is the {one['split']} set of {one['manifest']}, but this run trains on it.")
    return said


def _parsed(path: Path) -> dict[str, Any] | None:
    """The manifest; None for any other file, and for an older format."""
    try:
        value = inputs.json_object(path)
    except SlimtuneError:
        return None
    return None if _fault(value) else value


def _fault(value: Mapping[str, Any]) -> str:
    """What a manifest does not have or has in another form; "" for a sound one."""
    if value.get("version") != VERSION:
        return f"its version is not {VERSION}"
    for key, is_sound in _FORMS.items():
        if key not in value or not is_sound(value[key]):
            return f"'{key}' is {'of another form' if key in value else 'missing'}"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _has(value: Any, texts: Iterable[str], counts: Iterable[str]) -> bool:
    """Whether it is an object with texts and whole numbers under these keys."""
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in texts)
        and all(_is_count(value.get(key)) for key in counts)
    )


def _is_listed(value: Any, texts: Iterable[str]) -> bool:
    return isinstance(value, list) and all(_has(one, texts, ["rows"]) for one in value)


def _is_part(value: Any) -> bool:
    """Of `splits`."""
    if not _has(value, (), ["count"]):
        return False
    counted = [value.get("labels"), value.get("sources")]
    ids = value.get("ids")
    return (
        all(isinstance(one, dict) and all(map(_is_count, one.values())) for one in counted)
        and isinstance(ids, dict)
        and all(isinstance(one, str) for one in ids.values())
    )


_FORMS: Mapping[str, Callable[[Any], bool]] = {
    "seed": _is_count,
    "sizes": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    "threshold": _is_number,
    "inputs": lambda value: _is_listed(value, ("path", "sha256")),
    "files": lambda value: (
        _is_listed(value, ("name", "split", "sha256")) and all(one["split"] in _SPLITS for one in value)
    ),
    "splits": lambda value: (
        isinstance(value, dict) and set(value) == set(_SPLITS) and all(map(_is_part, value.values()))
    ),
    "groups": lambda value: _has(value, (), ("count", "largest")),
}
