"""A case: a scene and what is changed in it. What may be said of any case is said here, in `fault`."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzz.changes import NOT_FILES, TEXTS, Change, changed
from fuzz.sandbox import ARRIVED, HEAVY, Outcome, Sandbox
from fuzz.scenes import SCENES, Scene

from slimtune.cli import app
from slimtune.core import defects

OUTPUTS = ("--out", "--output", "-o", "--plot", "--html", "--merged")
OWN = ("home/cache*", "home/state*", "home/config*", "tmp/torchinductor_*")
"""Caches, and what libraries note."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_WARNING = re.compile(r"^\S*\w+Warning: ", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    scene: str
    changes: tuple[Change, ...] = ()

    def __repr__(self) -> str:
        return f"Case({self.scene!r}, ({''.join(f'{one!r}, ' for one in self.changes)}))"


def arguments(case: Case) -> list[str]:
    found = list(SCENES[case.scene].arguments)
    for change in case.changes:
        if change.how == "option":
            good = SCENES[case.scene].options.get(change.file)
            value = TEXTS.get(change.value, good)
            if change.file in found and good is not None and found[-1] != change.file:
                at = found.index(change.file)
                found[at + 1 : at + 2] = [value or ""]
            else:
                found += [change.file, value or ""] if good != "" else [change.file]
        elif change.how == "argument":
            assert isinstance(change.where, int)
            at = change.where % max(1, len(found))
            found[at : at + 1] = [TEXTS[change.value]]
        elif change.how == "override":
            found.append(f"{change.file}={TEXTS[change.value]}")
        elif change.how == "leave out":
            assert isinstance(change.where, int)
            at = change.where % max(1, len(found))
            del found[at : at + 1]
    return found


def files(case: Case) -> tuple[dict[str, bytes], dict[str, str]]:
    """The files of a case, and what is in the place of others: name -> one of NOT_FILES."""
    found, others = dict(SCENES[case.scene].files()), {}
    for change in case.changes:
        if change.file in found and change.how == "instead":
            others[change.file] = change.value
            del found[change.file]
        elif change.file in found:
            try:
                found[change.file] = changed(change.file, found[change.file], change)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                continue  # an earlier change took away what this one is about
    return found, others


def run(case: Case, *, seconds: int = 20, left: dict[str, bytes] | None = None, for_real: bool = False) -> Outcome:
    """left: is filled with the files that are there in the end. for_real: do not stop where torch would be imported."""
    scene = SCENES[case.scene]
    content, others = files(case)
    folder = Path(tempfile.mkdtemp(prefix="slimtune-fuzz-"))
    try:
        for name in ("work", "home", "tmp", "elsewhere"):
            (folder / name).mkdir()
        for name, data in content.items():
            if not name.startswith("http/"):
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                if "/bin/" in name:
                    path.chmod(0o755)
        (folder / "work/loop").symlink_to("loop")
        os.mkfifo(folder / "work/pipe")
        for name, kind in others.items():
            _instead(folder / name, kind)
        argv = arguments(case)
        named = [_named(folder, value) for value in _outputs(argv)]
        overwrites = "--overwrite" in argv

        outcome = Sandbox(folder, seconds, () if for_real else HEAVY, content).run(
            app.train_unsloth if scene.train else app.main, argv
        )
        fine = _nothing if outcome.code == 2 and not scene.begins else functools.partial(_is_own, scene, named)
        changes = [
            change
            for change in outcome.changes
            if not any(fnmatch.fnmatchcase(change[1], one) for one in OWN) and not fine(change[1])
        ]
        kept = [
            name for name in content if not name.startswith("http/") and _is_precious(name, scene, named, overwrites)
        ]
        changes += [("changed", name) for name in kept if _differs(folder / name, content[name])]
        if left is not None:
            there = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
            left |= {str(path.relative_to(folder)): path.read_bytes() for path in there}
        return dataclasses.replace(outcome, changes=tuple(changes))
    finally:
        shutil.rmtree(folder)


def _nothing(path: str) -> bool:
    return False


def _is_own(scene: Scene, named: list[str], path: str) -> bool:
    """Whether a path of the sandbox is what the command is to write, or above it or in it."""
    if any(fnmatch.fnmatchcase(path, one) or one.startswith(f"{path}/") for one in scene.writes):
        return True
    return any(one == "." or path == one or path.startswith(f"{one}/") or one.startswith(f"{path}/") for one in named)


def _is_precious(name: str, scene: Scene, named: list[str], overwrites: bool) -> bool:
    """Whether a file that was there before must be as it was, whatever the outputs are called."""
    return not (overwrites and name in named) and not any(fnmatch.fnmatchcase(name, one) for one in scene.writes)


def _differs(path: Path, content: bytes) -> bool:
    return not path.is_file() or path.read_bytes() != content


def _outputs(argv: list[str]) -> Iterator[str]:
    for option, value in itertools.pairwise(argv):
        if option in OUTPUTS:
            yield value


def _named(folder: Path, value: str) -> str:
    text = value.replace("~", str(folder / "home"), 1) if value == "~" or value.startswith("~/") else value
    return os.path.relpath(os.path.normpath(folder / "work" / text), folder)


def _instead(path: Path, kind: str) -> None:
    assert kind in NOT_FILES
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path.name)
        case "device":
            path.symlink_to("/dev/zero")
        case "nothing":
            path.symlink_to("/dev/null")
        case "dangling":
            path.symlink_to("nowhere")


def fault(outcome: Outcome) -> str:
    """What is wrong with the way a command ended, whatever it was given; empty if nothing is."""
    said = outcome.stderr
    if "Timeout (0:" in said and "most recent call first" in said:
        return "it hangs"
    if outcome.code not in (0, 1, 2, 3, ARRIVED):
        return f"exit code {outcome.code}"
    if defects.MARK in said:
        return "an error that nobody foresaw"
    for mark in ("Traceback (most recent call last)", "Exception ignored", "Exception in thread"):
        if mark in said or mark in outcome.stdout:
            return mark
    if found := _WARNING.search(said):
        return f"a bare warning: {found[0]}"
    if found := _CONTROLS.search(said) or _CONTROLS.search(outcome.stdout):
        return f"a control character is printed: {found[0]!r}"
    if outcome.code in (2, 3):
        errors = re.findall(r"^error: ", said, re.MULTILINE)
        if not (len(errors) == 1 or said.startswith("Usage: ")) and not outcome.stdout:
            return f"{len(errors)} errors are said where one is to be"
    if outcome.changes:
        return f"files are not as they were: {', '.join(map(': '.join, outcome.changes[:5]))}"
    return ""


def signature(outcome: Outcome) -> str:
    """Which fault it is: the same for cases that end in the same place."""
    what = re.sub(r"[0-9a-f]{8,}|\d+", "N", fault(outcome))
    text = outcome.log or outcome.stderr
    frames = re.findall(r'File "[^"]*?(slimtune/[^"]+\.py)", line (\d+)', text)
    place = " ".join(f"{file}:{line}" for file, line in (frames[:1] if "hangs" in what else frames[-1:]))
    kinds = re.findall(r"^([\w.]+(?:Error|Exception|Iteration|Interrupt|Exit))\b", text, re.MULTILINE)
    return f"{what} | {kinds[-1] if kinds else ''} | {place}"


def account(case: Case, outcome: Outcome) -> str:
    """All that is needed to see a fault again."""
    said = f"{outcome.stderr[-3000:]}\n{outcome.log[-3000:]}"
    return f"{fault(outcome)}\n{case!r}\nslimtune {arguments(case)!r}\nexit code {outcome.code}\n{outcome.stdout[-500:]}\n{said}"
