"""`data split`: training files to train, dev and test files that share no question, with a manifest that keeps it so."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slimtune.data import split_manifest
from slimtune.data.duplicates.groups import THRESHOLD
from slimtune.data.split_questions import SourceFile, group_sizes, hashes, items, read_files
from slimtune.data.splitting import SPLITS, Item, split_items
from slimtune.data.writing import write_rows
from slimtune.errors import Problem, SlimtuneError, fail

Redo = Literal["no", "extend", "again"]
# A split whose size is off by more than this share of what was asked is worth a sentence.
_SIZE_TOLERANCE = 0.1


@dataclass(frozen=True)
class Outcome:
    """manifest: as written to path. unchanged: whether everything was there already. notes: what should be known."""

    path: Path
    manifest: dict[str, Any]
    unchanged: bool
    notes: tuple[str, ...]


def split_files(
    paths: Sequence[str],
    *,
    test: int | float,
    dev: int | float = 0,
    out: Path | None = None,
    manifest_name: str = split_manifest.NAME,
    seed: int = 42,
    overwrite: bool = False,
    redo: Redo = "no",
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Write `<stem>.<split>.jsonl` for each file, and the manifest.

    test, dev: numbers of questions (int) or shares of them (float below 1). out: the folder, by default the first
    file's. redo: where a manifest is there, "extend" keeps its questions where they are and places new ones only,
    "again" splits anew. Raises SlimtuneError, before anything is written, for bad data, for impossible sizes, for an
    empty split, for another split in the manifest without `redo`, and for files that would be replaced.
    """
    folder = out or Path(paths[0]).parent
    manifest_path = folder / manifest_name
    _check_names(paths, folder)
    earlier = split_manifest.read(manifest_path)
    files = read_files(paths)
    questions = items(files, on_progress=on_progress)
    asked = {"dev": dev, "test": test}
    sizes = _sizes(len(questions), asked)
    wish: dict[str, Any] = {
        "version": split_manifest.VERSION,
        "seed": seed,
        "sizes": asked,
        "threshold": THRESHOLD,
        "inputs": [
            {"path": _relative(file.path, folder), "sha256": file.sha256, "rows": len(file.rows)} for file in files
        ],
    }
    known = hashes(files)
    placed: dict[str, str] = {}
    if earlier is not None:
        same = all(earlier[key] == value for key, value in wish.items())
        if redo == "extend" or (same and redo == "no"):
            placed = split_manifest.split_of(earlier)
        elif redo == "no":
            anew = split_items(questions, sizes, seed=seed)
            raise _refusal(manifest_path, earlier, known, anew, others=earlier["inputs"] == wish["inputs"])
    name_of = split_items(questions, sizes, seed=seed, placed=placed)
    _check_not_empty(name_of, sizes, questions)
    manifest, rows = _render(wish, files, questions, name_of, known)
    _check_targets(folder, manifest, earlier if redo != "no" else None, overwrite)
    written = [write_rows(folder / name, own, overwrite=True) for name, own in rows.items()]
    unchanged = earlier == manifest and all(one.unchanged for one in written)
    if earlier != manifest:
        split_manifest.write(manifest_path, manifest)
    notes = _size_notes(name_of, sizes, questions) + _torn_notes(name_of, questions) + _left_over(earlier, rows)
    return Outcome(manifest_path, manifest, unchanged, tuple(notes))


def _sizes(count: int, asked: Mapping[str, int | float]) -> dict[str, int]:
    """How many questions each split is to have. Raises SlimtuneError for sizes that leave nothing to train on."""
    held_out = {
        name: size if isinstance(size, int) else max(1, round(size * count)) if size else 0
        for name, size in asked.items()
    }
    if min(asked.values()) < 0 or any(isinstance(size, float) and size >= 1 for size in asked.values()):
        raise fail("a size is a number of questions (40) or a share of them (0.25)", fix="write one of the two")
    train = count - sum(held_out.values())
    if train < 1:
        what = f"the files have {count} questions: with {held_out['dev']} for dev and {held_out['test']} for test none"
        raise fail(f"{what} is left to train on", where="--test, --dev", fix="ask for fewer, or add questions")
    return {"train": train, **held_out}


def _check_names(paths: Sequence[str], folder: Path) -> None:
    stems = Counter(Path(path).stem for path in paths)
    problems = [
        Problem(f"{count} files would be written to {stem}.train.jsonl", str(folder), "rename one of the files")
        for stem, count in stems.items()
        if count > 1
    ]
    if problems:
        raise SlimtuneError(problems)


def _render(
    wish: Mapping[str, Any],
    files: Sequence[SourceFile],
    questions: Sequence[Item],
    name_of: Mapping[str, str],
    known: Mapping[str, str],
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The manifest, and the rows of each file by its name."""
    rows: dict[str, list[dict[str, Any]]] = {}
    listed = []
    for file in files:
        for split in SPLITS:
            own = [row.value for row in file.rows if name_of[row.id] == split]
            if own:
                name = f"{file.path.stem}.{split}.jsonl"
                rows[name] = own
                listed.append({"name": name, "split": split, "sha256": _sha256_of(own), "rows": len(own)})
    splits = {}
    for split in SPLITS:
        members = sorted((one for one in questions if name_of[one.id] == split), key=lambda one: one.id)
        splits[split] = {
            "count": len(members),
            "labels": dict(sorted(Counter(one.label for one in members if one.label).items())),
            "sources": dict(sorted(Counter(one.source for one in members).items())),
            "ids": {one.id: known[one.id] for one in members},
        }
    sizes = group_sizes(questions)
    groups = {"count": len(sizes), "largest": max(sizes.values())}
    return {**wish, "files": listed, "splits": splits, "groups": groups}, rows


def _check_targets(
    folder: Path, manifest: Mapping[str, Any], earlier: Mapping[str, Any] | None, overwrite: bool
) -> None:
    """Raise SlimtuneError for each file that would be replaced, unless it is as the earlier split left it."""
    left = {entry["name"]: entry["sha256"] for entry in earlier["files"]} if earlier else {}
    problems = []
    for entry in manifest["files"]:
        path = folder / entry["name"]
        if overwrite or not path.exists():
            continue
        there = hashlib.sha256(path.read_bytes()).hexdigest()
        if there not in (entry["sha256"], left.get(entry["name"])):
            fix = "name another folder with --out, or replace it with --overwrite"
            problems.append(Problem("the file is there already, with another content", str(path), fix))
    if problems:
        raise SlimtuneError(problems)


def _refusal(
    path: Path, earlier: Mapping[str, Any], known: Mapping[str, str], anew: Mapping[str, str], *, others: bool
) -> SlimtuneError:
    before, home = split_manifest.hashes_of(earlier), split_manifest.split_of(earlier)
    added, removed = len(known.keys() - before.keys()), len(before.keys() - known.keys())
    both = known.keys() & before.keys()
    changed, moved = sum(known[id] != before[id] for id in both), sum(anew[id] != home[id] for id in both)
    why = "with other options" if others else "of other files or other content"
    return fail(
        f"there is a split already, {why}: {added} questions are new, {removed} are gone, {changed} have changed",
        where=str(path),
        fix=f"--extend keeps the {len(both)} known questions where they are and places the {added} new ones; "
        f"--again splits all anew, and {moved} of the known questions move to another split",
    )


def _check_not_empty(name_of: Mapping[str, str], sizes: Mapping[str, int], questions: Sequence[Item]) -> None:
    found = Counter(name_of.values())
    for name, size in sizes.items():
        if size and not found[name]:
            raise fail(
                f"the split '{name}' would be empty: {_largest(questions)}",
                fix="add questions that are different, or ask for other sizes",
            )


def _size_notes(name_of: Mapping[str, str], sizes: Mapping[str, int], questions: Sequence[Item]) -> list[str]:
    found = Counter(name_of.values())
    return [
        f"{name} has {found[name]} questions instead of {size}: {_largest(questions)}."
        for name, size in sizes.items()
        if abs(found[name] - size) > _SIZE_TOLERANCE * size
    ]


def _largest(questions: Sequence[Item]) -> str:
    group, size = max(group_sizes(questions).items(), key=lambda one: (one[1], one[0]))
    return f"the largest group has {size} questions that stay together, among them '{group}'"


def _torn_notes(name_of: Mapping[str, str], questions: Sequence[Item]) -> list[str]:
    """Groups that an extended split cannot keep together: a new question joins old ones of two splits."""
    homes: dict[str, set[str]] = {}
    for one in questions:
        homes.setdefault(one.group, set()).add(name_of[one.id])
    torn = sorted(group for group, names in homes.items() if len(names) > 1)
    if not torn:
        return []
    return [
        f"{len(torn)} groups of like questions are in more than one split now, among them that of '{torn[0]}': "
        "new questions join old ones that are kept apart. Use --again to split all anew."
    ]


def _left_over(earlier: Mapping[str, Any] | None, rows: Mapping[str, Any]) -> list[str]:
    names = [entry["name"] for entry in earlier["files"] if entry["name"] not in rows] if earlier else []
    return [f"{name} belongs to the earlier split and is no longer part of this one: remove it." for name in names]


def _sha256_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of the bytes that `writing.write_rows` writes."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
