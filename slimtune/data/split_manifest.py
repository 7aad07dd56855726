"""`split.json`: what was split how, so that it stays so. A small file beside the training files that it names.

    {"version", "seed", "sizes": {"test": 40, "dev": 0}, "threshold", "inputs": [{"path", "sha256", "rows"}],
     "files": [{"name", "split", "sha256", "rows"}],
     "splits": {"train": {"count", "labels", "sources", "ids": {id: SHA-256 of the question's rows}}, …},
     "groups": {"count", "largest"}}

Paths are relative to the folder of the manifest. It contains no time: the same split gives the same bytes.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slimtune.core.errors import fail
from slimtune.core.files import sha256_file

NAME, VERSION = "split.json", 1
_KEYS = ("version", "seed", "sizes", "threshold", "inputs", "files", "splits", "groups")


def read(path: Path) -> dict[str, Any] | None:
    """The manifest, or None without one. Raises SlimtuneError for a file that `data split` did not write."""
    if not path.is_file():
        return None
    found = _parsed(path)
    if found is None:
        fix = "name another folder with --out, or another manifest with --manifest"
        raise fail("`data split` did not write this file", where=str(path), fix=fix)
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
            for entry in manifest.get("files", ()):
                if entry["name"] == file.name:
                    stands = {"file": path, "split": entry["split"], "unchanged": sha256 == entry["sha256"]}
                    written = {"manifest": str(place), "manifest_sha256": sha256_file(place), "seed": manifest["seed"]}
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
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    whole = isinstance(value, dict) and value.get("version") == VERSION and all(key in value for key in _KEYS)
    return value if whole else None
