"""A folder of results and the record in it, which lists what Slimtune wrote there: only that is ever replaced or removed.

The record is written first and grows by a name before each file is written, so that a kill leaves nothing unlisted.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core import files, inputs, outputs, run_record
from slimtune.core.errors import Problem, SlimtuneError, fail

FILES = "files"


@dataclass(frozen=True)
class FolderKind:
    """What such a folder holds. record: the record's file. is_ours: whether a record's content is one of ours. names: the
    files of a record that does not list them, as earlier versions wrote it.
    """

    record: str
    is_ours: Callable[[Mapping[str, Any]], bool]
    names: Callable[[Mapping[str, Any]], Sequence[str]]

    def read(self, folder: Path) -> dict[str, Any]:
        """The record's content; empty if there is none, or if another program wrote it."""
        path = folder / self.record
        if path.is_symlink() or not path.is_file():
            return {}
        try:
            content = inputs.json_object(path)
        except SlimtuneError:
            return {}
        return content if self.is_ours(content) and all(map(_is_name, self._listed(content))) else {}

    def written(self, content: Mapping[str, Any]) -> list[str]:
        """The names of the files that the record says are ours, itself included."""
        return [self.record, *self._listed(content)] if content else []

    def _listed(self, content: Mapping[str, Any]) -> list[Any]:
        listed = content.get(FILES)
        if listed is None:
            return list(self.names(content))
        return listed if isinstance(listed, list) else [listed]


@dataclass
class Results:
    """A folder that may be written into. content: the record's."""

    folder: Path
    kind: FolderKind
    content: dict[str, Any]

    @classmethod
    def look(
        cls, folder: Path, kind: FolderKind, names: Iterable[str], *, reads: Iterable[Path | str], option: str = "--out"
    ) -> "Results":
        """The folder as it is, after every check that can be made before the work. Nothing is written.

        names: the files that may be written. reads: the inputs of the command. Raises SlimtuneError where the folder
        holds files but no record of ours, or a file of such a name that is an input or not in the record.
        """
        place = outputs.folder(folder, option=option, ours=lambda path: _is_ours(path, kind), reads=reads)
        content = kind.read(place)
        listed = kind.written(content)
        problems = []
        for name in dict.fromkeys([kind.record, *names]):
            path = place / name
            if os.path.lexists(path):
                outputs.require_no_input(path, reads, option)
                if name not in listed or path.is_symlink() or not path.is_file():
                    fix = "move it elsewhere, or name another folder"
                    what = "Slimtune needs this name, and did not write the file that has it"
                    problems.append(Problem(what, f"{option} {path}", fix))
        if problems:
            raise SlimtuneError(problems)
        return cls(place, kind, content)

    def begin(self, content: Mapping[str, Any]) -> None:
        """Remove the files of an earlier record, and write this one."""
        with files.writing(self.folder):
            for name in self.kind.written(self.content):
                path = self.folder / name
                if name != self.kind.record and path.is_file() and not path.is_symlink():
                    path.unlink()
        self._record({**content, FILES: []}, replace=bool(self.content))

    def path(self, name: str) -> Path:
        """The path of a file to write, after the record lists it. Raises SlimtuneError if somebody else has put one there."""
        path = self.folder / name
        if name not in self.kind.written(self.content):
            if os.path.lexists(path):
                what = "the file has appeared while the command ran, so it was not replaced"
                raise SlimtuneError(Problem(what, str(path), "move it elsewhere and run the command again"))
            self._record({**self.content, FILES: sorted([*self._listed(), name])})
        return path

    def write_json(self, name: str, value: Any) -> None:
        files.write_json(self.path(name), value)

    def write_lines(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        files.write_lines(self.path(name), rows)

    def write_text(self, name: str, text: str) -> None:
        files.write_text(self.path(name), text)

    def keep(self, content: Mapping[str, Any]) -> None:
        """Put this into the record, whose list of files stays."""
        self._record({**content, FILES: self._listed()})

    def close(self, **values: Any) -> None:
        """Mark the results complete, last."""
        self._record({**self.content, **values, "finished": run_record.now(), "complete": True})

    def _listed(self) -> list[str]:
        return sorted(self.kind.written(self.content)[1:])

    def _record(self, content: dict[str, Any], *, replace: bool = True) -> None:
        path = self.folder / self.kind.record
        try:
            files.write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n", replace=replace)
        except FileExistsError:
            what = "another command has begun to write into this folder"
            raise fail(what, where=str(path), fix="wait for it to end, or name another folder") from None
        self.content = content


def _is_ours(folder: Path, kind: FolderKind) -> bool:
    return bool(kind.read(folder)) or all(files.is_partial(path.name) for path in folder.iterdir())


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name == Path(name).name and name not in ("", "..") and "\0" not in name
