"""What a run's export hands to Ollama, read from its folder and checked before Ollama is asked anything."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.run_folder import as_dict, mapping
from slimtune.export.proof import golden, proof
from slimtune.export.proof.golden import ServedPrompt
from slimtune.recipe.schema import NAME
from slimtune.serve import modelfile as modelfiles

MODELFILE, RESULT = "Modelfile", "ollama.json"
_AGAIN = "export again with --fresh"


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
    golden: tuple[ServedPrompt, ...]
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
        what = f"not a run's folder ({unreadable[0]})" if unreadable else "not a run's folder"
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
    gguf, requires = _gguf(folder, problems)
    prompts, wrong = golden.read_served(run, _AGAIN)
    parity = mapping(folder, proof.FILE_NAME, unreadable)
    problems += wrong + [Problem(what, str(folder), _AGAIN) for what in unreadable]
    if problems:
        raise SlimtuneError(problems)
    needed = _needed(len(prompts), as_dict(parity.get("files")).get(gguf))
    return Exported(folder, name, gguf, requires, tuple(prompts), needed)


def _gguf(folder: Path, problems: list[Problem]) -> tuple[str, str | None]:
    """The GGUF that the Modelfile builds on, and the Ollama that it requires. Other names than files would be downloaded."""
    path = folder / MODELFILE
    if not path.is_file():
        what = "there is no Modelfile: the run exported no GGUF"
        problems.append(Problem(what, str(path), "export with --gguf q8_0"))
        return "", None
    try:
        name, found = modelfiles.read(path)
    except SlimtuneError as error:
        problems += error.problems
        return "", None
    if name is None:
        what = f"it builds on '{found.models[-1]}', where a GGUF of this folder is expected"
        problems.append(Problem(what, str(path), _AGAIN))
    elif found.adapters:
        problems.append(Problem("it names an ADAPTER, where a GGUF alone is expected", str(path), _AGAIN))
    elif not (folder / name).is_file():
        problems.append(Problem("the Modelfile names it, but it is not there", str(folder / name), _AGAIN))
    return name or "", found.requires


def _needed(prompts: int, parity: Any) -> int:
    """Of `prompts`, as large a share as the GGUF answered alike in llama.cpp, rounded up; all, where that is unknown."""
    record = as_dict(parity)
    asked, equal = record.get("prompts"), record.get("answers_equal")
    if not (isinstance(asked, int) and isinstance(equal, int) and 0 <= equal <= asked and asked):
        return prompts
    return -(-prompts * equal // asked)
