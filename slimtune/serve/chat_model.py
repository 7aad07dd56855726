"""What `slimtune chat` talks to: a GGUF, and what its Modelfile says about system prompt, context and sampling. No torch."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from slimtune.core import inputs, run_folder
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.data import text as texts
from slimtune.evaluate.targets import opening
from slimtune.evaluate.targets.opening import Spec
from slimtune.export.modelfile.modelfile_reader import Modelfile, refusals
from slimtune.serve import modelfile as modelfiles

OLLAMA_DEFAULTS: dict[str, float] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "repeat_last_n": 64,
}
"""What Ollama samples with where a Modelfile says nothing (DefaultOptions in api/types.go of github.com/ollama/ollama)."""
OLLAMA_CONTEXT = 4096

_INTEGERS = ("num_ctx", "num_predict", "top_k", "repeat_last_n", "seed")
_FRACTIONS = ("temperature", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
_READ = ("from", "template", "system", "parameter", "license", "requires", "adapter")


@dataclass(frozen=True)
class ChatModel:
    """A GGUF and how to ask it, as Ollama would.

    system: None for none, or the template's own. context_length: tokens of prompt and reply. sampling: under
    llama.cpp's names. reply_length: the longest reply in tokens; None for what the context holds. stops: texts that end
    a reply. template: the Modelfile's TEMPLATE. thinking: what a run was tuned for; None where no run says so.
    notes: what the user should know, as sentences.
    """

    gguf: Path
    system: str | None = None
    context_length: int = OLLAMA_CONTEXT
    sampling: dict[str, float] = field(default_factory=OLLAMA_DEFAULTS.copy)
    reply_length: int | None = None
    stops: tuple[str, ...] = ()
    template: str | None = None
    thinking: bool | None = None
    notes: tuple[str, ...] = ()


def spec_of(text: str) -> Spec:
    """A run's folder, a .gguf, or the one that a folder's Modelfile names, such as the export of an adapter.

    Raises SlimtuneError for what is none of these, saying what to do.
    """
    folder = inputs.at(text)
    if inputs.exists(folder / "Modelfile"):
        return Spec("gguf", str(folder / _named_by(folder / "Modelfile")[0]))
    fix = "name a run's folder, e.g. outputs/direct/latest, or a .gguf that exists"
    try:
        spec = opening.spec_of(text)
    except SlimtuneError as error:
        raise fail(error.problems[0].what, where=text, fix=fix) from None
    if spec.kind not in ("run", "gguf"):
        if spec.kind == "adapter":
            fix = "name the folder of the run that the adapter belongs to, or a .gguf"
        raise fail("neither a run nor a GGUF", where=text, fix=fix)
    return spec


def find(spec: Spec) -> ChatModel:
    """What a run's export or a GGUF is. Raises SlimtuneError, exit code 2, where there is nothing to talk to."""
    return _of_run(Path(spec.place)) if spec.kind == "run" else _of_file(Path(spec.place))


def _of_run(run: Path) -> ChatModel:
    """The GGUF that the Modelfile of the run's export names."""
    trained = run_folder.read(run).section("model", "thinking")
    export, again = run / "export", f"slimtune export {run}"
    ggufs = _ggufs_in(export)
    if not ggufs:
        if inputs.is_folder(export / "merged"):
            raise fail("the run's export has no GGUF", where=str(export), fix=f"{again} --fresh --gguf q8_0")
        what, fix = "the run has no export yet", f"{again}; or --compare, which asks its adapter and needs no export"
        unproven = run / "export.unverified"
        if inputs.is_folder(unproven):
            what = "the run's export was stopped, or it is not the model that was judged"
            fix = f"see {unproven}/parity.json; then {again}"
        raise fail(f"{what}, so there is nothing to talk to", where=str(run), fix=fix)
    if not inputs.exists(export / "Modelfile"):
        what = f"the run's export has no Modelfile that names one of {', '.join(ggufs)}"
        fix = f"export it again: {again} --fresh; or name a file: slimtune chat {export / ggufs[0]}"
        raise fail(what, where=str(export), fix=fix)
    name, found = _named_by(export / "Modelfile")
    notes = []
    others = [other for other in ggufs if other != name]
    if others:
        notes.append(f"also exported; to try one, name its path: {', '.join(others)}")
    if run_folder.required(run, "export/parity.json").get("passed") is False:
        notes.append("warning: its parity check failed, so this is not the model that was judged (export/parity.json)")
    return _described(export / name, found, bool(trained["thinking"]), notes)


def _ggufs_in(folder: Path) -> list[str]:
    """Names of the GGUFs in an export, without an adapter alone."""
    return sorted(path.name for path in folder.glob("*.gguf") if not path.name.endswith(".lora.gguf"))


def _named_by(path: Path) -> tuple[str, Modelfile]:
    """The GGUF beside a Modelfile that it is FROM. Raises SlimtuneError where that is something else, or missing."""
    name, found = modelfiles.read(path)
    if name is not None and inputs.is_file(path.parent / name):
        return name, found
    there = _ggufs_in(path.parent)
    what = f"it is FROM {found.models[-1]}, which is not a GGUF beside it"
    if there:
        fix = f"correct its FROM line, or name a file: slimtune chat {path.parent / there[0]}"
        raise fail(f"{what}; there is {', '.join(there)}", where=str(path), fix=fix)
    raise fail(what, where=str(path), fix="put the file there, or name another .gguf")


def _of_file(gguf: Path) -> ChatModel:
    """A bare GGUF, with the Modelfile beside it where that names it."""
    path, plain = gguf.parent / "Modelfile", "Ollama's default sampling is used, and no system prompt"
    if not inputs.exists(path):
        note = f"no Modelfile beside it: {plain}"
    else:
        name, found = modelfiles.read(path)
        if name == gguf.name:
            return _described(gguf, found, None, [])
        note = f"the Modelfile beside it is FROM {found.models[-1]} and so not used: {plain}"
    return ChatModel(gguf, notes=(note,))


def _described(gguf: Path, found: Modelfile, thinking: bool | None, notes: list[str]) -> ChatModel:
    """A GGUF as its Modelfile describes it. Raises SlimtuneError with every value that cannot be meant."""
    where = str(gguf.parent / "Modelfile")
    fix = "correct the line; slimtune export --check shows the whole file"
    problems = [Problem(what, f"{where}:{line}", fix) for line, what in refusals(found)]
    numbers: dict[str, float] = {}
    if found.adapters:
        problems.append(
            Problem("it adds an ADAPTER to the GGUF, which cannot be tried here", where, "use it with  ollama run")
        )
    for name, values in found.parameters.items():
        if name == "stop":
            continue
        if name not in (*_INTEGERS, *_FRACTIONS):
            notes.append(f"PARAMETER {name} of the Modelfile is not used here")
        elif len(values) > 1:
            problems.append(Problem(f"PARAMETER {name} is set {len(values)} times", where, "leave one"))
        elif not problems:
            numbers[name] = (int if name in _INTEGERS else float)(values[0])
            if not math.isfinite(numbers[name]):
                problems.append(Problem(f"PARAMETER {name} is {values[0]}", where, "write a number"))
    if numbers.get("num_ctx", 1) < 1:
        problems.append(Problem(f"PARAMETER num_ctx is {numbers['num_ctx']}", where, "write 1 or more"))
    system = found.system or None
    if system is not None:
        problems += [Problem(f"its SYSTEM {what}", where, fix) for what, fix in texts.faults(system, "system")]
    if problems:
        raise SlimtuneError(problems)
    unused = dict.fromkeys(one.name for one in found.instructions if one.name not in _READ)
    notes += [f"{name.upper()} of the Modelfile is not used here" for name in unused]
    reply_length = int(numbers.pop("num_predict", -1))
    return ChatModel(
        gguf=gguf,
        system=system,
        context_length=int(numbers.pop("num_ctx", OLLAMA_CONTEXT)),
        sampling=OLLAMA_DEFAULTS | numbers,
        reply_length=reply_length if reply_length > 0 else None,
        stops=found.parameters.get("stop", ()),
        template=found.template,
        thinking=thinking,
        notes=("system prompt, context, stops and sampling come from the Modelfile beside it", *notes),
    )
