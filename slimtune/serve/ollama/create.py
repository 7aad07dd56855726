"""`slimtune ollama create`: from a run's export to a model in Ollama that answers as the model that was judged."""

import contextlib
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core import inputs, output_folders, outputs, run_record
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.files import write_json, writing
from slimtune.core.progress import OnProgress
from slimtune.core.run_folder import as_dict, mapping
from slimtune.export.proof import golden, proof
from slimtune.export.proof.golden import ServedPrompt
from slimtune.recipe.schema import NAME
from slimtune.serve import modelfile as modelfiles
from slimtune.serve.ollama import replay, server
from slimtune.serve.ollama.replay import ThinkOutcome
from slimtune.serve.ollama.server import Ollama

DIFFERENT = 1
"""Exit code where the model is in Ollama, but does not answer as the one that was exported."""
MODELFILE = "Modelfile"
RESULT = "ollama.json"
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


@dataclass(frozen=True)
class Replayed:
    """What came of the golden prompts, one `ThinkOutcome` for each setting of `think`; also in `export.result`."""

    export: Exported
    found: list[ThinkOutcome]
    problems: list[Problem]

    def require_alike(self) -> None:
        """Raise SlimtuneError, with exit code 1, where the answers are not the export's."""
        if self.problems:
            what = f"'{self.export.name}' does not answer in Ollama as the merged model does"
            raise SlimtuneError(self.problems, summary=f"{what}; see {self.export.result}", exit_code=DIFFERENT)


def create(run: Path, on_progress: OnProgress, *, name: str | None = None, replace: bool = False) -> Replayed:
    """Create the run's export in Ollama, put the golden prompts to it, and write export/ollama.json.

    name: instead of the recipe's. replace: a model of that name that is there already.
    Raises SlimtuneError where there is no whole export, no Ollama, such a model without `replace`, and where `ollama
    create` fails.
    """
    export = read_export(run, name)
    program, connection = server.find()
    with contextlib.closing(connection) as ollama:
        program_version = server.program_version(program)
        _introduce(ollama, export, on_progress, program_version)
        there = ollama.has(export.name)
        if there and not replace:
            fix = "--replace replaces it; --name gives another name"
            raise fail(f"Ollama has a model '{export.name}' already", where=ollama.url, fix=fix)
        if there:
            on_progress.say(f"the existing model '{export.name}' is replaced")
        # If anything goes wrong from here on, a record of the earlier model would be taken for this one's.
        _forget(export)
        on_progress.step(f"ollama create {export.name}")
        _run(program, export)
        return _replay(ollama, export, on_progress, program_version)


def check(run: Path, on_progress: OnProgress, *, name: str | None = None) -> Replayed:
    """Put the golden prompts to the model that `create` made, and write export/ollama.json again. Raises as `create`."""
    export = read_export(run, name)
    with contextlib.closing(server.connect()) as ollama:
        _introduce(ollama, export, on_progress)
        if not ollama.has(export.name):
            fix = f"slimtune ollama create {run}"
            raise fail(f"Ollama has no model '{export.name}'", where=ollama.url, fix=fix)
        _forget(export)
        return _replay(ollama, export, on_progress)


def _forget(export: Exported) -> None:
    """Remove the record of the earlier model. Raises SlimtuneError where somebody put a file of theirs there meanwhile."""
    if not _is_free(export.result):
        raise fail("Slimtune did not write this", where=str(export.result), fix=outputs.MOVE_IT)
    with writing(export.result):
        export.result.unlink(missing_ok=True)


def read_export(run: Path, name: str | None = None) -> Exported:
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
        fix = "use lower-case letters, digits, '.', '_' and '-', at most 64, a letter or digit first"
        problems.append(Problem(f"{name!r} cannot be a model's name in Ollama", where, fix))
    gguf, requires = _gguf(folder, problems)
    prompts, wrong = golden.read_served(run, _AGAIN)
    parity = mapping(folder, proof.FILE_NAME, unreadable)
    problems += wrong + [Problem(what, str(folder), _AGAIN) for what in unreadable]
    if not _is_free(folder / RESULT):
        what = "Slimtune did not write this, so it is not replaced"
        problems.append(Problem(what, str(folder / RESULT), outputs.MOVE_IT))
    if problems:
        raise SlimtuneError(problems)
    needed = _needed(len(prompts), as_dict(parity.get("files")).get(gguf))
    outputs.require_writable(folder)
    return Exported(folder, name, gguf, requires, tuple(prompts), needed)


def _is_free(path: Path) -> bool:
    """Whether there is no file, or one that `_replay` wrote."""
    if outputs.found_at(path) is None:
        return True
    try:
        content = {} if path.is_symlink() else inputs.json_object(path)
    except SlimtuneError:
        return False
    kinds = {"name": str, "passed": bool, "server": dict, "think": dict}
    return all(isinstance(content.get(key), kind) for key, kind in kinds.items())


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


def _introduce(ollama: Ollama, export: Exported, on_progress: OnProgress, program_version: str | None = None) -> None:
    """Which Ollama it is, and what is known of that version. Raises SlimtuneError for one that is too old."""
    on_progress.step(f"Ollama {ollama.version} at {ollama.url}")
    for warning in server.warnings(ollama.version):
        on_progress.warn(warning)
    if program_version is not None and program_version != ollama.version:
        on_progress.warn(f"the program `ollama` is version {program_version}, the server {ollama.version}")
    if export.requires and server.older(ollama.version, export.requires):
        what = f"the Modelfile requires Ollama {export.requires}, the server is {ollama.version}"
        raise fail(what, where=ollama.url, fix="update Ollama (https://ollama.com/download)")


def _run(program: str, export: Exported) -> None:
    """`ollama create`, its output where this process's goes."""
    sys.stdout.flush()
    command = [program, "create", export.name, "-f", MODELFILE]
    try:
        done = subprocess.run(command, cwd=export.folder, check=False)
    except OSError as error:
        what, fix = f"`ollama create` cannot be run: {error.strerror or error}", "install Ollama again, from ollama.com"
        raise fail(what, where=program, fix=fix) from error
    if done.returncode:
        what = f"`ollama create {export.name}` ended with {done.returncode}; see its message above"
        raise fail(what, where=str(export.folder / MODELFILE), fix="see Ollama's log")


def _replay(ollama: Ollama, export: Exported, on_progress: OnProgress, program_version: str | None = None) -> Replayed:
    asked = len(export.golden)
    on_progress.step(f"Putting {asked} golden prompts to '{export.name}', with `think` unset, true and false")
    started = time.monotonic()
    capabilities = ollama.capabilities(export.name)
    with on_progress.bar("Asked") as advance:
        found = replay.replay(ollama, export.name, export.golden, advance)
    problems = replay.problems(found, export.needed, export.thinking)
    result = {
        "name": export.name,
        "passed": not problems,
        "time": run_record.now(),
        "seconds": round(time.monotonic() - started, 3),
        "server": {"url": ollama.url, "version": ollama.version, "program": program_version},
        "warnings": server.warnings(ollama.version),
        "capabilities": capabilities,
        "gguf": export.gguf,
        "thinking": export.thinking,
        "prompts": asked,
        "needed": export.needed,
        "options": {**replay.OPTIONS, "num_predict": sorted({prompt.max_new_tokens for prompt in export.golden})},
        "think": {one.think: one.as_json() for one in found},
    }
    output_folders.add(export.folder, RESULT)
    write_json(export.result, result)
    return Replayed(export, found, problems)
