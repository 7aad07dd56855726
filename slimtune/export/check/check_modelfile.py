"""Find what is wrong with a Modelfile from any source: what Ollama refuses, and what differs from training."""

import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from slimtune.core import inputs
from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.findings import Finding, Level, worst_first
from slimtune.export.check.check_gguf import FILE_TYPES, check_gguf, context_length, eos_text
from slimtune.export.check.check_template import compare_templates
from slimtune.export.modelfile import go_template
from slimtune.export.modelfile import modelfile_reader as reader
from slimtune.models import families
from slimtune.models.gguf_header import Gguf, read_gguf, read_whole

_LARGEST_MODELFILE = 4 * 2**20
DEFAULT_CONTEXT = 4096
# What Ollama samples with where nothing is said (DefaultOptions in api/types.go of github.com/ollama/ollama).
_DEFAULTS = {"temperature": "0.8", "top_p": "0.9", "top_k": "40"}
_NAME_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_WRITTEN_CONTROL = r"<\|[^|<>\s]{1,40}\|>"
_HUB = re.compile(r"(?:https?://)?(?:hf\.co|huggingface\.co)/", re.IGNORECASE)
_THINKING_FIELD = re.compile(r"\{\{[^}]*\.(?:Think|Thinking|IsThinkSet|ThinkLevel)\b")
_QUANTISED = frozenset(range(2, 32)) | frozenset(range(33, 50))


@dataclass(frozen=True, slots=True)
class _Checked:
    """model: what FROM comes to, where that is a file here; gguf: the same, read, where it can be."""

    path: Path
    read: reader.Modelfile
    model: Path | None
    gguf: Gguf | None

    def at(self, level: Level, name: str, what: str, fix: str = "", *, key: str = "") -> Finding:
        line = self.read.line(name, key)
        return Finding(level, what, fix, f"{self.path}:{line}" if line else str(self.path))


def check_file(path: Path, *, deep: bool = False) -> list[Finding]:
    """Return the findings of a Modelfile or GGUF, worst first. deep: as in check_gguf.

    Raises SlimtuneError where there is no such file, or it is neither.
    """
    if inputs.is_folder(path):
        if not inputs.exists(path / "Modelfile"):
            fix = "name a Modelfile or a .gguf, such as outputs/NAME/latest/export/Modelfile"
            raise fail("this is a folder without a Modelfile", where=str(path), fix=fix)
        path = path / "Modelfile"
    with inputs.opened(path) as file:
        begins, length = file.read(4), os.fstat(file.fileno()).st_size
    if begins == b"GGUF" or path.suffix == ".gguf":
        return worst_first(check_gguf(path, deep=deep))
    if length > _LARGEST_MODELFILE:
        raise fail("neither a GGUF nor a Modelfile", where=str(path), fix="name a Modelfile or a .gguf")
    return worst_first(check_modelfile(path, deep=deep))


def check_modelfile(path: Path, *, deep: bool = False) -> list[Finding]:
    """Return every finding, including those of the GGUF that FROM names. deep: as in check_gguf.

    Of the grammar only the first fault is reported, since Ollama stops there.
    """
    try:
        read = reader.read_modelfile(reader.decoded(inputs.read_bytes(path)))
    except reader.Refused as error:
        where = f"{path}:{error.line}" if error.line else str(path)
        return [Finding("error", f"Ollama refuses the file: {error.what}", "correct it", where)]
    model = _file(path, read.models[-1])
    gguf, of_gguf = None, list[Finding]()
    if model is not None and model.is_file():
        of_gguf = check_gguf(model, deep=deep, stops=read.parameters.get("stop", ()))
        try:
            gguf = read_gguf(model)
        except SlimtuneError:
            gguf = None  # check_gguf has said why
    one = _Checked(path, read, model, gguf)
    parts = (_refused, _dropped, _from, _draft, _adapters, _templates, _stops, _context, _sampling, _texts, _renderer)
    return [*(finding for part in parts for finding in part(one)), *of_gguf]


def _file(path: Path, name: str) -> Path | None:
    """The file or folder that Ollama finds under a name in a Modelfile; None where it would take it for a model's name."""
    try:
        found = path.parent / Path(name).expanduser()
        return found if name and found.exists() else None
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, or a user that does not exist
        return None


def _like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~", "\\")) or name.lower().endswith((".gguf", ".safetensors", ".bin"))


def _refused(one: _Checked) -> Iterator[Finding]:
    for line, what in reader.refusals(one.read):
        yield Finding("error", f"Ollama refuses the file: {what}", "", f"{one.path}:{line}")


def _dropped(one: _Checked) -> Iterator[Finding]:
    for dropped, count in Counter(one.read.dropped).items():
        within = f", in {dropped.within}" if dropped.within else ""
        what = f"{reader.character_name(dropped.character)} is dropped by Ollama's parser ({count}×{within})"
        space = unicodedata.category(dropped.character).startswith("Z")
        fix = "write a plain space, so that the words around it stay apart" if space else "leave it out"
        yield Finding("warning", what, fix, f"{one.path}:{dropped.line}")


def _from(one: _Checked) -> Iterator[Finding]:
    name = one.read.models[-1]
    if len(one.read.models) > 1:
        what = f"FROM appears {len(one.read.models)} times: Ollama joins the files or uses the last"
        yield one.at("warning", "from", what, "keep one")
    if one.model is None and not name:
        yield one.at("error", "from", "FROM names nothing", "name a GGUF beside the Modelfile: FROM ./model.gguf")
    elif one.model is None and _HUB.match(name):
        yield one.at("note", "from", f"{name} is on the hub: Ollama downloads it, and it was not checked")
    elif one.model is None and _like_a_path(name):
        what = f"{name} does not exist: Ollama takes it for the name of a model and finds none"
        yield one.at("error", "from", what, "put the file beside the Modelfile, and write FROM ./FILE.gguf")
    elif one.model is None and not _valid_name(name):
        what = f"{name[:80]!r} is neither a file here nor a name that a model of Ollama can have"
        yield one.at("error", "from", what, "name a GGUF beside the Modelfile: FROM ./model.gguf")
    elif one.model is None:
        what = f"{name} is an Ollama model: it supplies what this file leaves out, and was not checked"
        yield one.at("note", "from", what)
    elif one.model.is_dir():
        what = f"{name} is a folder: Ollama converts its weights itself, which works for few architectures"
        yield one.at("warning", "from", what, "convert it to a GGUF and name that file")
    if name.startswith(("/", "~", "\\")) or re.match(r"[A-Za-z]:[\\/]", name):
        what = f"{name} is a path of this machine: the Modelfile works nowhere else"
        yield one.at("warning", "from", what, "put the file beside the Modelfile, and write FROM ./FILE.gguf")
    elif ".." in name.replace("\\", "/").split("/"):
        what = f"{name} is outside the Modelfile's folder"
        yield one.at("warning", "from", what, "put the file beside the Modelfile")


def _valid_name(name: str) -> bool:
    """Whether Ollama takes it for a model's name: [[HOST/]NAMESPACE/]MODEL[:TAG] (types/model/name.go)."""
    parts = re.sub(r"^https?://", "", name).split("/")
    model, tagged, tag = parts[-1].partition(":")
    plain = [model, *([tag] if tagged else []), *parts[-2:-1]]
    return len(parts) <= 3 and all(map(_NAME_PART.fullmatch, plain)) and all(map(_HOST.fullmatch, parts[:-2]))


def _draft(one: _Checked) -> Iterator[Finding]:
    """A draft model guesses what the model says next; it is a smaller one."""
    for instruction in one.read.instructions:
        if instruction.name == "draft" and instruction.value in one.read.models:
            what = "DRAFT names the model of FROM: a model cannot be its own draft"
            yield Finding("error", what, "name a smaller model, or leave DRAFT out", f"{one.path}:{instruction.line}")


def _adapters(one: _Checked) -> Iterator[Finding]:
    names = one.read.adapters
    if len(names) > 1:
        yield one.at("warning", "adapter", f"ADAPTER appears {len(names)} times: Ollama uses the last", "keep one")
    for name in names[-1:]:
        file = _file(one.path, name)
        if file is None:
            yield one.at("error", "adapter", f"the ADAPTER {name} does not exist", "put it beside the Modelfile")
            continue
        fix = "convert it: slimtune export --lora-gguf"
        if file.is_dir():
            what = f"the ADAPTER {name} is a folder: Ollama converts it itself, which works for few architectures"
            yield one.at("error", "adapter", what, fix)
            continue
        try:
            adapter = read_whole(file)
        except SlimtuneError as error:
            yield one.at("error", "adapter", f"the ADAPTER {name} is not a GGUF: {error.problems[0].what}", fix)
            continue
        if adapter.text("general.type") != "adapter":
            yield one.at("error", "adapter", f"the ADAPTER {name} is a whole model, not an adapter", "name it in FROM")
        elif one.gguf is not None:
            theirs, ours = adapter.text("general.architecture"), one.gguf.text("general.architecture")
            if theirs != ours:
                what = f"the ADAPTER is for {theirs}, and FROM is {ours}"
                yield one.at("error", "adapter", what, "name the model that it was trained on in FROM")
            kind = one.gguf.number("general.file_type")
            if kind in _QUANTISED:
                called = FILE_TYPES[kind][0] if kind in FILE_TYPES else "quantised"
                what = f"the ADAPTER is added to {called} weights, not to those that it was trained and judged with"
                fix = "merge it into the 16-bit weights, then quantise: slimtune export"
                yield one.at("warning", "adapter", what, fix)


def _templates(one: _Checked) -> Iterator[Finding]:
    template, jinja = one.read.template, one.gguf.text("tokenizer.chat_template") if one.gguf else None
    if one.read.renderer:
        what = f"TEMPLATE was not compared with the GGUF's, because RENDERER {one.read.renderer} renders instead of it"
        yield one.at("note", "renderer", what)
        return
    if not (template or "").strip():
        yield from _no_template(one, jinja)
        return
    assert template is not None
    try:
        go_template.require_valid(template)
    except go_template.Invalid as reason:
        yield one.at("error", "template", f"Ollama refuses TEMPLATE: it has {reason}", "correct it")
        return
    if _THINKING_FIELD.search(template):
        what = "TEMPLATE can think, so Ollama thinks by default; a model trained without thinking then answers nonsense"
        yield one.at("warning", "template", what, "if it was trained without thinking, remove it from TEMPLATE")
    if "\r" in template:
        what = "TEMPLATE has Windows line ends, which become part of every prompt"
        yield one.at("error", "template", what, "save the Modelfile with Unix line ends (LF)")
    if jinja:
        line = one.read.line("template")
        for found in compare_templates(template, jinja, one.read.system or ""):
            yield replace(found, where=f"{one.path}:{line}")


def _no_template(one: _Checked, jinja: str | None) -> Iterator[Finding]:
    fix = "add the TEMPLATE that training used; slimtune export writes it"
    if jinja:
        what = "no TEMPLATE: Ollama from 0.30 uses the GGUF's chat template, and older versions send the bare question"
        yield one.at("warning", "template", what, fix)
    elif one.gguf is not None:
        what = "no TEMPLATE, and no chat template in the GGUF: the model gets the bare question, without turns"
        yield one.at("error", "template", what, fix)
    elif one.model is None:
        yield one.at("note", "template", "no TEMPLATE: the model in FROM supplies it")


def _stops(one: _Checked) -> Iterator[Finding]:
    jinja = one.gguf.text("tokenizer.chat_template") if one.gguf else None
    templates = (one.read.template or "") + (jinja or "")
    # Phi-4 begins a turn as ChatML does, and the longer mark tells them apart.
    turns = max(
        (turns for turns in families.turns() if turns.before in templates and turns.between.strip() in templates),
        key=lambda turns: len(turns.before + turns.between.strip()),
        default=None,
    )
    if turns is None or (one.gguf is None and not one.read.template):
        return  # without a file and a TEMPLATE, the stops come from the model in FROM
    stops, eos = one.read.parameters.get("stop", ()), eos_text(one.gguf) if one.gguf else None
    for stop in turns.stops:
        if stop in stops:
            continue
        matters = stop == turns.stops[0] and eos != stop
        what = f"the stop {stop} is missing: the model may continue after its answer"
        yield one.at("error" if matters else "warning", "parameter", what, f'PARAMETER stop "{stop}"', key="stop")


def _context(one: _Checked) -> Iterator[Finding]:
    stated = _number(one, "num_ctx")
    trained = context_length(one.gguf) if one.gguf else None
    if stated is None:
        what = f"num_ctx is not set: on a small card Ollama cuts every conversation to {DEFAULT_CONTEXT} tokens"
        yield one.at("warning", "parameter", what, "PARAMETER num_ctx TOKENS, as many as training had", key="num_ctx")
    elif trained is not None and stated > trained:
        what = f"num_ctx is {stated:.0f}, but the model was trained with {trained}: beyond that it answers nonsense"
        yield one.at("error", "parameter", what, f"PARAMETER num_ctx {trained}", key="num_ctx")


def _sampling(one: _Checked) -> Iterator[Finding]:
    missing = {name: value for name, value in _DEFAULTS.items() if name not in one.read.parameters}
    if missing and one.gguf is not None:
        told = ", ".join(f"{name} (Ollama uses {value})" for name, value in missing.items())
        fix = "PARAMETER temperature 0 for one right answer; for reasoning 0.6, top_p 0.95, top_k 20"
        yield one.at("warning", "from", f"sampling is not set: {told}", fix)
    temperature = _number(one, "temperature")
    if temperature is not None and temperature >= 1:
        what = f"temperature {temperature:g} makes answers nearly random, which does not suit questions with one right answer"
        yield one.at("warning", "parameter", what, "PARAMETER temperature 0, or 0.6 for reasoning", key="temperature")
    penalty = _number(one, "repeat_penalty")
    if penalty is None and one.gguf is not None:
        ollamas = "newer versions of Ollama use 1.0, older ones 1.1, which suppresses words of the question"
        yield one.at("warning", "from", f"repeat_penalty is not set: {ollamas}", "PARAMETER repeat_penalty 1.0")
    elif penalty is not None and penalty != 1:
        what = f"repeat_penalty {penalty:g} suppresses words of the question, unlike evaluation"
        yield one.at("warning", "parameter", what, "PARAMETER repeat_penalty 1.0", key="repeat_penalty")
    for name, values in one.read.parameters.items():
        if name in reader.DEPRECATED:
            what = f"PARAMETER {name} has no effect in newer Ollama"
            yield one.at("warning", "parameter", what, "leave it out", key=name)
        elif name != "stop" and len(values) > 1:
            what = f"PARAMETER {name} is set {len(values)} times: Ollama uses the last"
            yield one.at("warning", "parameter", what, "keep one", key=name)


def _number(one: _Checked, name: str) -> float | None:
    values = one.read.parameters.get(name, ())
    try:
        number = float(values[-1]) if values else None
    except ValueError:
        return None  # refused already
    return number if number is None or math.isfinite(number) else None


def _texts(one: _Checked) -> Iterator[Finding]:
    known = {token for family in families.rows() for token in family.control_tokens}
    control = re.compile("|".join([_WRITTEN_CONTROL, *map(re.escape, sorted(known))]))
    for instruction in one.read.instructions:
        if instruction.name not in ("system", "message", "template"):
            continue
        name, where = instruction.name.upper(), f"{one.path}:{instruction.line}"
        if instruction.name != "template":
            for token in sorted(set(control.findall(instruction.value))):
                what = f"{name} contains {token}, which the model reads as a control token"
                yield Finding("error", what, "leave it out", where)
        if unicodedata.normalize("NFC", instruction.value) != instruction.value:
            what = f"{name} is not in Unicode's composed form (NFC): llama.cpp tokenises it differently from training"
            yield Finding("warning", what, "normalise the text to NFC", where)


def _renderer(one: _Checked) -> Iterator[Finding]:
    renderer, parser = one.read.renderer, one.read.parser
    if (renderer or parser) and not one.read.requires:
        what = "RENDERER or PARSER without REQUIRES: an Ollama that does not know them serves the model anyway"
        fix = "add REQUIRES with the first version that knows them, such as 0.17.6"
        yield one.at("warning", "renderer" if renderer else "parser", what, fix)
    if bool(renderer) != bool(parser):
        there, missing = ("RENDERER", "PARSER") if renderer else ("PARSER", "RENDERER")
        what = f"{there} without {missing}: prompt and answer follow different formats"
        yield one.at("warning", there.lower(), what, f"{missing} {renderer or parser}")
