"""`slimtune ollama create`: from a run's export to a model in Ollama that answers as the model that was judged."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from slimtune.core import run_record
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.files import write_json
from slimtune.core.progress import OnProgress
from slimtune.serve.ollama import exported, replay, server, versions
from slimtune.serve.ollama.exported import Exported
from slimtune.serve.ollama.replay import ThinkOutcome
from slimtune.serve.ollama.server import Ollama

DIFFERENT = 1
"""Exit code where the model is in Ollama, but does not answer as the one that was exported."""


@dataclass(frozen=True)
class Replayed:
    """What came of the golden prompts, one `ThinkOutcome` for each setting of `think`; also in `export.result`."""

    export: Exported
    found: list[ThinkOutcome]
    problems: list[Problem]

    def require_alike(self) -> None:
        """Raise SlimtuneError, with exit code 1, where the answers are not the export's."""
        if self.problems:
            summary = (
                f"'{self.export.name}' does not answer in Ollama as the merged model does; see {self.export.result}"
            )
            raise SlimtuneError(self.problems, summary=summary, exit_code=DIFFERENT)


def create(run: Path, on_progress: OnProgress, *, name: str | None = None, replace: bool = False) -> Replayed:
    """Create the run's export in Ollama, put the golden prompts to it, and write export/ollama.json.

    name: instead of the recipe's. replace: a model of that name that is there already.
    Raises SlimtuneError where there is no whole export, no Ollama, such a model without `replace`, and where `ollama
    create` fails.
    """
    export = exported.read(run, name)
    program, connection = server.find()
    with connection as ollama:
        program_version = server.program_version(program)
        _introduce(ollama, export, on_progress, program_version)
        there = ollama.has(export.name)
        if there and not replace:
            fix = "--replace replaces it; --name gives another name"
            raise fail(f"Ollama has a model '{export.name}' already", where=ollama.url, fix=fix)
        if there:
            on_progress.say(f"the existing model '{export.name}' is replaced")
        # If anything goes wrong from here on, a record of the earlier model would be taken for this one's.
        export.result.unlink(missing_ok=True)
        on_progress.step(f"ollama create {export.name}")
        _run(program, export)
        return _replay(ollama, export, on_progress, program_version)


def check(run: Path, on_progress: OnProgress, *, name: str | None = None) -> Replayed:
    """Put the golden prompts to the model that `create` made, and write export/ollama.json again. Raises as `create`."""
    export = exported.read(run, name)
    with server.connect() as ollama:
        _introduce(ollama, export, on_progress)
        if not ollama.has(export.name):
            fix = f"slimtune ollama create {run}"
            raise fail(f"Ollama has no model '{export.name}'", where=ollama.url, fix=fix)
        export.result.unlink(missing_ok=True)
        return _replay(ollama, export, on_progress)


def _introduce(ollama: Ollama, export: Exported, on_progress: OnProgress, program_version: str | None = None) -> None:
    """Which Ollama it is, and what is known of that version. Raises SlimtuneError for one that is too old."""
    on_progress.step(f"Ollama {ollama.version} at {ollama.url}")
    for warning in versions.warnings(ollama.version):
        on_progress.warn(warning)
    if program_version is not None and program_version != ollama.version:
        on_progress.warn(f"the program `ollama` is version {program_version}, the server {ollama.version}")
    if export.requires and versions.older(ollama.version, export.requires):
        what = f"the Modelfile requires Ollama {export.requires}, the server is {ollama.version}"
        raise fail(what, where=ollama.url, fix="update Ollama (https://ollama.com/download)")


def _run(program: str, export: Exported) -> None:
    """`ollama create`, its output where this process's goes."""
    sys.stdout.flush()
    command = [program, "create", export.name, "-f", exported.MODELFILE]
    try:
        done = subprocess.run(command, cwd=export.folder, check=False)
    except OSError as error:
        raise fail(f"`ollama create` cannot be run: {error}", where=program) from error
    if done.returncode:
        what = f"`ollama create {export.name}` ended with {done.returncode}; see its message above"
        raise fail(what, where=str(export.folder / exported.MODELFILE), fix="see Ollama's log")


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
        "warnings": versions.warnings(ollama.version),
        "capabilities": capabilities,
        "gguf": export.gguf,
        "thinking": export.thinking,
        "prompts": asked,
        "needed": export.needed,
        "options": {**replay.OPTIONS, "num_predict": sorted({prompt.max_new_tokens for prompt in export.golden})},
        "think": {one.think: one.as_json() for one in found},
    }
    write_json(export.result, result)
    return Replayed(export, found, problems)
