"""`data split`: training files to train, dev and test files that share no question, with a manifest that keeps it so."""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slimtune.core import inputs, outputs
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.files import sha256_file, sync_path
from slimtune.core.progress import Advance, ignore
from slimtune.core.units import plural
from slimtune.data import split_manifest
from slimtune.data.duplicates.groups import THRESHOLD
from slimtune.data.splitting import SPLITS, SplitItem, split_items
from slimtune.datatools import writing
from slimtune.datatools.split.split_questions import SourceFile, hashes, items, read_files
from slimtune.datatools.writing import as_line

Redo = Literal["no", "extend", "again"]
# A split whose size is off by more than this share of what was asked is worth a sentence, and so is a group of more
# than half of all questions.
_SIZE_TOLERANCE, _LARGEST_SHARE = 0.1, 0.5


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
    threshold: float = THRESHOLD,
    overwrite: bool = False,
    redo: Redo = "no",
    on_progress: Advance = ignore,
) -> Outcome:
    """Write `<stem>.<split>.jsonl` for each file, and the manifest.

    test, dev: a number of questions (int) or a share of them (float below 1). out: the folder, by default the first
    file's. threshold: the similarity from which two questions are near duplicates. redo: "extend" keeps the manifest's
    questions in place, and "again" ignores it. The order of the files does not matter. Raises SlimtuneError, before
    anything is written, for bad data, impossible sizes, another split in the manifest, and files to be replaced.
    """
    folder = outputs.named(out or Path(paths[0]).parent, "--out")
    manifest_path = writing.target(folder / manifest_name, paths, option="--manifest")
    _check_names(paths, folder)
    earlier = split_manifest.read(manifest_path)
    if redo == "extend" and earlier is None:
        fix = "leave out --extend, or name the folder of the split with --out"
        raise fail("there is no split to extend", where=str(manifest_path), fix=fix)
    files = read_files(sorted(paths, key=lambda path: _relative(Path(path), folder)), on_progress=on_progress)
    questions = items(files, threshold=threshold, on_progress=on_progress)
    asked = {"dev": dev, "test": test}
    sizes = _sizes(len(questions), asked)
    wished = wish(files, folder, seed=seed, asked=asked, threshold=threshold)
    known = hashes(files)
    placed: dict[str, str] = {}
    if earlier is not None:
        same = all(earlier[key] == value for key, value in wished.items())
        if redo == "extend" or (same and redo == "no"):
            placed = split_manifest.split_of(earlier)
        elif redo == "no":
            raise _refusal(manifest_path, earlier, wished, known, split_items(questions, sizes, seed=seed))
    name_of = split_items(questions, sizes, seed=seed, placed=placed)
    _check_not_empty(name_of, sizes, questions)
    manifest, rows = render(wished, files, questions, name_of, known)
    _check_targets(folder, manifest, earlier if redo != "no" else None, paths, overwrite=overwrite)
    contents = {folder / name: b"".join(map(as_line, own)) for name, own in rows.items()}
    if earlier != manifest:
        contents[manifest_path] = split_manifest.as_bytes(manifest)
    changed = write(contents)
    notes = list(_notes(questions, name_of, sizes, threshold))
    left_over = [entry["name"] for entry in earlier["files"] if entry["name"] not in rows] if earlier else []
    notes += [
        f"{name} belongs to the earlier split and is no longer part of this one: remove it." for name in left_over
    ]
    return Outcome(manifest_path, manifest, not changed, tuple(notes))


def write(contents: Mapping[Path, bytes], *, overwrite: bool = True) -> bool:
    """Write the files that are not there with these bytes already, all or none of them; whether there were any.

    Raises SlimtuneError where the disk is full, and for a file with other bytes that must not be replaced.
    """
    with contextlib.ExitStack() as all_written:
        # Left in the opposite order: the manifest, which is the last one, gets its name when the files have theirs.
        wanted = {path: content for path, content in contents.items() if not outputs.holds(path, content)}
        for path, content in reversed(wanted.items()):
            partial = all_written.enter_context(outputs.staged_file(path, overwrite=overwrite))
            partial.write_bytes(content)
            sync_path(partial)
    return bool(wanted)


def _sizes(count: int, asked: Mapping[str, int | float]) -> dict[str, int]:
    """Questions per split. Raises SlimtuneError for sizes that leave nothing to train on."""
    shares = {name: max(1, round(size * count)) if size else 0 for name, size in asked.items()}
    held_out = {name: size if isinstance(size, int) else shares[name] for name, size in asked.items()}
    train = count - sum(held_out.values())
    if train < 1:
        wanted = f"{held_out['dev']:,} for dev and {held_out['test']:,} for test"
        what = f"the files have {plural(count, 'question')}: with {wanted}, none is left for training"
        raise fail(what, where="--test, --dev", fix="ask for fewer, or add questions")
    return {"train": train, **held_out}


def _check_names(paths: Sequence[str], folder: Path) -> None:
    """Raise SlimtuneError where two files would be written to one, or one over a file that is read."""
    targets: dict[Path, list[str]] = {}
    for path in paths:
        for split in SPLITS:
            targets.setdefault(folder / f"{Path(path).stem}.{split}.jsonl", []).append(path)
    read = {inputs.real(path): path for path in paths}
    problems = []
    for target, origins in targets.items():
        if len(origins) > 1 and f".{SPLITS[0]}." in target.name:
            what = f"{' and '.join(origins)} would be written to one file"
            problems.append(Problem(what, str(target), "name each file once, and give each its own name"))
        if inputs.real(target) in read:
            what = f"a part of {origins[0]} would replace this file, which is an input too"
            problems.append(Problem(what, read[inputs.real(target)], "name another folder with --out, or leave it out"))
    if problems:
        raise SlimtuneError(problems)


def wish(
    files: Sequence[SourceFile], folder: Path, *, seed: int, asked: Mapping[str, int | float], threshold: float
) -> dict[str, Any]:
    """What a manifest says of how its split was asked for. folder: of the manifest."""
    return {
        "version": split_manifest.VERSION,
        "seed": seed,
        "sizes": dict(asked),
        "threshold": threshold,
        "inputs": [
            {"path": _relative(file.path, folder), "sha256": file.sha256, "rows": len(file.rows)} for file in files
        ],
    }


def _part_name(file: SourceFile, split: str) -> str:
    return f"{file.path.stem}.{split}.jsonl"


def render(
    wish: Mapping[str, Any],
    files: Sequence[SourceFile],
    questions: Sequence[SplitItem],
    name_of: Mapping[str, str],
    known: Mapping[str, str],
    *,
    name: Callable[[SourceFile, str], str] = _part_name,
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The manifest, and the rows of each file by its name. name: of a file's part."""
    rows: dict[str, list[dict[str, Any]]] = {}
    listed = []
    for file in files:
        for split in SPLITS:
            own = [row.value for row in file.rows if name_of[row.id] == split]
            if own:
                part = name(file, split)
                rows[part] = own
                sha256 = hashlib.sha256(b"".join(map(as_line, own))).hexdigest()
                listed.append({"name": part, "split": split, "sha256": sha256, "rows": len(own)})
    splits = {}
    for split in SPLITS:
        members = sorted((one for one in questions if name_of[one.id] == split), key=lambda one: one.id)
        splits[split] = {
            "count": len(members),
            "labels": dict(sorted(Counter(one.label for one in members if one.label).items())),
            "sources": dict(sorted(Counter(one.source for one in members).items())),
            "ids": {one.id: known[one.id] for one in members},
        }
    sizes = Counter(one.group for one in questions)
    groups = {"count": len(sizes), "largest": max(sizes.values())}
    return {**wish, "files": listed, "splits": splits, "groups": groups}, rows


def _check_targets(
    folder: Path,
    manifest: Mapping[str, Any],
    earlier: Mapping[str, Any] | None,
    reads: Sequence[str],
    *,
    overwrite: bool,
) -> None:
    """Raise SlimtuneError for each file that cannot be written, or that would be replaced though it is not as the earlier
    split left it."""
    left = {entry["name"]: entry["sha256"] for entry in earlier["files"]} if earlier else {}
    problems: list[Problem] = []
    for entry in manifest["files"]:
        try:
            path = writing.target(folder / entry["name"], reads, option="--out")
        except SlimtuneError as error:
            problems += error.problems
            continue
        known = (entry["sha256"], left.get(entry["name"]))
        if path.exists() and not overwrite and sha256_file(path) not in known:
            fix = "name another folder with --out, or replace it with --overwrite"
            problems.append(Problem("the file exists already and has other content", str(path), fix))
    if problems:
        raise SlimtuneError(problems)


def _refusal(
    path: Path, earlier: Mapping[str, Any], wish: Mapping[str, Any], known: Mapping[str, str], anew: Mapping[str, str]
) -> SlimtuneError:
    before = {id: sha256 for part in earlier["splits"].values() for id, sha256 in part["ids"].items()}
    home = split_manifest.split_of(earlier)
    both = known.keys() & before.keys()
    moved = f"{sum(anew[id] != home[id] for id in both):,} of {len(both):,} questions"
    settings = [(name, earlier[name], wish[name]) for name in ("seed", "threshold")]
    settings += [(name, earlier["sizes"].get(name, 0), size) for name, size in wish["sizes"].items()]
    options = "; ".join(f"--{name} was {before:g}, is {now:g}" for name, before, now in settings if before != now)
    if earlier["inputs"] == wish["inputs"]:
        what = f"these files are split already, with other options ({options})"
        fix = f"use the same options, or split again with --again: {moved} would move to another split"
        return fail(what, where=str(path), fix=fix)
    added, removed = len(known.keys() - before.keys()), len(before.keys() - known.keys())
    changed = sum(known[id] != before[id] for id in both)
    what = "a split of other files or other content exists already: of the questions "
    what += f"{added:,} are new, {removed:,} are gone and {changed:,} differ" + (f"; {options}" if options else "")
    if not both:
        fix = "name another manifest, for example --manifest split-law.json, or replace the earlier split with --again"
    else:
        new = f" and places the {added:,} new ones" if added else ""
        fix = f"--extend keeps known questions in place{new}; --again splits again, and {moved} known questions move"
    return fail(what, where=str(path), fix=fix)


def _check_not_empty(name_of: Mapping[str, str], sizes: Mapping[str, int], questions: Sequence[SplitItem]) -> None:
    for name, size in sizes.items():
        if size and name not in name_of.values():
            what = f"the split '{name}' would be empty: {_largest(questions)}"
            raise fail(what, fix="add different questions, or ask for other sizes")


def _notes(
    questions: Sequence[SplitItem], name_of: Mapping[str, str], sizes: Mapping[str, int], threshold: float
) -> Iterator[str]:
    """What should be known of the sizes and the groups."""
    found = Counter(name_of.values())
    for name, size in sizes.items():
        if abs(found[name] - size) > _SIZE_TOLERANCE * size:
            yield f"{name} has {plural(found[name], 'question')} instead of {size:,}: {_largest(questions)}."
    members: dict[str, list[str]] = {}
    for one in questions:
        members.setdefault(one.group, []).append(name_of[one.id])
    largest = max(map(len, members.values()))
    # A set of one template is one chain, in which each question is nearly equal to some other.
    if largest > _LARGEST_SHARE * len(questions):
        what = f"{largest:,} of {plural(len(questions), 'question')} stay together"
        yield f"{what}. If they share a template, a --threshold above {threshold:g} separates them."
    # An extended split cannot keep a group together in which a new question joins old ones of two splits.
    if torn := sorted(group for group, names in members.items() if len(set(names)) > 1):
        what = f"in more than one split now: {plural(len(torn), 'group')} of similar questions, such as that of"
        yield f"{what} '{torn[0]}'. A new question is similar to old ones in both. --again splits all again."


def _largest(questions: Sequence[SplitItem]) -> str:
    sizes = Counter(one.group for one in questions)
    group, size = max(sizes.items(), key=lambda one: (one[1], one[0]))
    return f"the largest group has {plural(size, 'question')} that stay together, among them '{group}'"


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
