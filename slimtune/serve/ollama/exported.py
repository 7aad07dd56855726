"""What a run's export hands to Ollama, read from its folder and checked before Ollama hears of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.run_folder import as_dict, lines, mapping
from slimtune.export.gguf.gguf import FILE_NAME
from slimtune.export.modelfile.modelfile_reader import parse_modelfile
from slimtune.recipe.schema import NAME

GOLDEN, MODELFILE, PARITY, RESULT = "golden.jsonl", "Modelfile", "parity.json", "ollama.json"
_AGAIN = "export again with --fresh"


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    role: Literal["system", "user", "assistant"]
    content: str


class Golden(BaseModel):
    """A conversation and what the merged model answered, greedily.

    answer: without the end-of-turn token. ended: the turn ended within max_new_tokens. thinking: the run was trained
    with thinking.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    id: str
    messages: list[Message] = Field(min_length=1)
    answer: str
    max_new_tokens: int = Field(ge=1)
    ended: bool
    thinking: bool


@dataclass(frozen=True)
class Exported:
    """An export that can be created in Ollama.

    name: the model's in Ollama. gguf: the file that the Modelfile names, in `folder`. requires: the lowest version of
    Ollama that the Modelfile asks for. needed: how many of `golden` must be answered alike, as many as llama.cpp
    answered alike when the GGUF was compared.
    """

    folder: Path
    name: str
    gguf: str
    requires: str | None
    golden: tuple[Golden, ...]
    needed: int

    @property
    def thinking(self) -> bool:
        return self.golden[0].thinking

    @property
    def result(self) -> Path:
        """Where what Ollama made of it is written."""
        return self.folder / RESULT


def read(run: Path, name: str | None = None) -> Exported:
    """The export of a run's folder. name: instead of the recipe's.

    Raises SlimtuneError, with every problem at once, where there is no export or it is not whole.
    """
    unreadable: list[str] = []
    manifest = mapping(run, "manifest.json", unreadable)
    if not manifest:
        what = f"no run ({unreadable[0]})" if unreadable else "no run"
        raise fail(what, where=str(run), fix="name a run's folder, e.g. outputs/direct/latest")
    export = as_dict(manifest.get("export"))
    folder = run / "export"
    if not export:
        raise fail("the run is not exported", where=str(run), fix=f"slimtune export {run}")
    problems: list[Problem] = []
    where = "--name" if name is not None else f"{run / 'manifest.json'} export.ollama_name"
    name = str(export.get("ollama_name", "")) if name is None else name
    if not re.fullmatch(NAME, name):
        fix = "lower-case letters, digits, '.', '_' and '-', at most 64, a letter or digit first"
        problems.append(Problem(f"{name!r} cannot be a model's name in Ollama", where, fix))
    modelfile = _modelfile(folder, problems)
    golden = _golden(run, folder, problems)
    parity = mapping(folder, PARITY, unreadable)
    problems += [Problem(what, str(folder), _AGAIN) for what in unreadable]
    if problems:
        raise SlimtuneError(problems)
    gguf = modelfile["from"].removeprefix("./")
    requires = modelfile.get("requires")
    return Exported(folder, name, gguf, requires, golden, _needed(len(golden), as_dict(parity.get("files")).get(gguf)))


def _modelfile(folder: Path, problems: list[Problem]) -> dict[str, Any]:
    """The Modelfile as Ollama reads it. What it builds on must be a GGUF beside it: other names would be downloaded."""
    path = folder / MODELFILE
    if not path.is_file():
        problems.append(
            Problem("there is no Modelfile: the run exported no GGUF", str(path), "export with --gguf q8_0")
        )
        return {}
    try:
        parsed = parse_modelfile(path.read_text(encoding="utf-8"))
    except ValueError as error:  # a UnicodeDecodeError is one, too
        problems.append(Problem(f"this is no Modelfile: {error}", str(path), _AGAIN))
        return {}
    named = str(parsed.get("from", ""))
    gguf = named.removeprefix("./")
    if not FILE_NAME.fullmatch(gguf) or "adapter" in parsed:
        what = f"it builds on '{named}'" if not FILE_NAME.fullmatch(gguf) else "it names an ADAPTER"
        problems.append(Problem(f"{what}, where a GGUF of this folder is expected", str(path), _AGAIN))
    elif not (folder / gguf).is_file():
        problems.append(Problem("the Modelfile names it, but it is not there", str(folder / gguf), _AGAIN))
    return parsed


def _golden(run: Path, folder: Path, problems: list[Problem]) -> tuple[Golden, ...]:
    path = folder / GOLDEN
    if not path.is_file():
        what = "there are no golden prompts: this export was made before they were recorded, or without questions"
        problems.append(Problem(what, str(path), _AGAIN))
        return ()
    unreadable: list[str] = []
    rows: Sequence[Mapping[str, Any]] = lines(run, f"export/{GOLDEN}", unreadable)
    found = [Problem(what, str(run), _AGAIN) for what in unreadable]
    golden = []
    for number, row in enumerate(rows, 1):
        try:
            golden.append(Golden.model_validate(row))
        except ValidationError as error:
            where = f"{path}, prompt {number}"
            found += [Problem(f"{'.'.join(map(str, e['loc']))}: {e['msg']}", where, _AGAIN) for e in error.errors()]
    if not rows and not found:
        found.append(Problem("no golden prompt in it", str(path), _AGAIN))
    if len({one.thinking for one in golden}) > 1:
        found.append(Problem("some of the prompts were trained with thinking and some without", str(path), _AGAIN))
    problems += found
    return tuple(golden)


def _needed(prompts: int, parity: Any) -> int:
    """Of `prompts`, as large a share as the GGUF answered alike in llama.cpp, rounded up; all, where that is unknown."""
    record = as_dict(parity)
    asked, equal = record.get("prompts"), record.get("answers_equal")
    if not (isinstance(asked, int) and isinstance(equal, int) and 0 <= equal <= asked and asked):
        return prompts
    return -(-prompts * equal // asked)
