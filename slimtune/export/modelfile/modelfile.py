"""The Modelfile for Ollama, whose TEMPLATE must agree with the chat template in the GGUF beside it (chat_templates.py).

Ollama since 0.30 prefers the GGUF's Jinja where that shows more capabilities; before, a GGUF without a TEMPLATE got the
bare prompt. Tools are not covered: a Go template cannot write JSON as Jinja's tojson does. Where Ollama renders a
family with code of its own, which RENDERER and PARSER name, the prompt that Ollama makes is not proven.

The format: https://docs.ollama.com/modelfile and parser/parser.go of github.com/ollama/ollama.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.export.gguf.gguf import FILE_NAME
from slimtune.export.modelfile.chat_templates import OllamaTemplate, recognise
from slimtune.export.modelfile.modelfile_reader import character_name, survives
from slimtune.models import families
from slimtune.models.families import Family

_QUOTES = {"TEMPLATE": '"""', "SYSTEM": '"""', "PARAMETER stop": '"'}
_ALLOWED: dict[str, tuple[str, Callable[[float], bool]]] = {
    "num_ctx": ("at least 1", lambda value: value >= 1),
    "temperature": ("from 0 to 2", lambda value: 0 <= value <= 2),
    "top_p": ("above 0, at most 1", lambda value: 0 < value <= 1),
    "top_k": ("at least 0", lambda value: value >= 0),
    "repeat_penalty": ("above 0, at most 2", lambda value: 0 < value <= 2),
}


@dataclass(frozen=True, slots=True)
class Composed:
    """A Modelfile that is still to be written.

    meant: the values of each instruction, as Ollama is to read them. changes: what had to be changed, as sentences.
    """

    meant: Mapping[str, Sequence[str]]
    changes: list[str]

    @property
    def text(self) -> str:
        quoted = ((name, _QUOTES.get(name, ""), value) for name, values in self.meant.items() for value in values)
        return "".join(f"{name} {quote}{value}{quote}\n" for name, quote, value in quoted)


def compose(
    *,
    gguf_name: str,
    family: str,
    chat_template: str,
    thinking: bool,
    system: str | None,
    num_ctx: int,
    temperature: float = 0.0,
    top_p: float = 0.8,
    top_k: int = 20,
    repeat_penalty: float = 1.0,
) -> Composed:
    """The Modelfile for `gguf_name`, a file in the same folder.

    family: a row's name (models/families). chat_template: the Jinja in the GGUF. TEMPLATE, stops and the default system
        prompt come from it (chat_templates.recognise), except where Ollama's own code renders the family.
    system: None for the chat template's own default. num_ctx: tokens of prompt and answer together.
    temperature: 0 for one right letter; reasoning wants 0.6 with top_p 0.95 (greedy reasoning can loop).

    Raises SlimtuneError, with every problem at once, for values that the file cannot carry.
    """
    row = families.get(family)
    template = _ollama_template(row, thinking, chat_template)
    # What the parser drops goes first: without it, harmless pieces could join to triple quotes or a control token.
    text, changes = _as_ollama_reads(system or "")
    if not text.strip():
        text, default_changes = _as_ollama_reads(template.default_system or "")
        changes += default_changes
    if "system" in template.trims:
        text = text.strip()
    numbers = {
        "num_ctx": num_ctx, "temperature": temperature, "top_p": top_p, "top_k": top_k,
        "repeat_penalty": repeat_penalty,
    }  # fmt: skip
    problems = _problems(gguf_name, text, template.turns.stops, numbers)
    if text and not template.takes_system:
        what = "the model's chat template takes no system prompt"
        problems.append(Problem(what, "data.system", "leave it out, or put its text into the questions"))
    if not all(survives(character) for character in template.text):
        what = "the chat template writes a character that Ollama's parser drops"
        problems.append(Problem(what, "model.base", "use a base whose template does not write it"))
    if problems:
        raise SlimtuneError(problems, summary="the Modelfile cannot be written")
    meant = {
        "FROM": [f"./{gguf_name}"],
        "TEMPLATE": [template.text],
        **{name.upper(): [value] for name, value in (row.rendered_by_ollama or {}).items()},
        "SYSTEM": [text] if text else [],
        "PARAMETER stop": template.turns.stops,
        **{f"PARAMETER {name}": [str(value)] for name, value in numbers.items()},
    }
    return Composed(meant, [*changes, *template.notes])


def _ollama_template(family: Family, thinking: bool, chat_template: str) -> OllamaTemplate:
    """What the Jinja tells, or how Ollama's own code for the family is called."""
    if thinking and family.trains and not family.thinking:
        raise fail(f"{family.title} has no thinking to turn on", where="model.thinking", fix="set it to false")
    if not (family.rendered_by_ollama and family.turns):
        return recognise(chat_template, thinking=thinking)
    asks = "" if thinking else ", so clients must send think=false to get what was trained"
    note = f"TEMPLATE: Ollama's own code writes the prompt for {family.title}{asks}; it is not compared with training's"
    return OllamaTemplate(family.turns, "{{ .Prompt }}", notes=(note,))


def _problems(gguf_name: str, system: str, stops: Sequence[str], numbers: Mapping[str, float]) -> list[Problem]:
    problems = []
    if not FILE_NAME.fullmatch(gguf_name):
        fix = "use letters, digits, '.', '_' and '-', ending in .gguf, without a folder"
        problems.append(Problem(f"{gguf_name!r} cannot be the name of a GGUF", "export", fix))
    if '"""' in system:
        fix = "write it with other quotation marks"
        problems.append(Problem('the system prompt holds """, which ends the text in a Modelfile', "data.system", fix))
    for token in stops:
        if token in system:
            problems.append(Problem(f"the system prompt holds the control token {token}", "data.system", "remove it"))
    for name, (allowed, good) in _ALLOWED.items():
        if not good(numbers[name]):
            problems.append(Problem(f"{name} is {numbers[name]}", "export", f"it must be {allowed}"))
    return problems


def _as_ollama_reads(text: str) -> tuple[str, list[str]]:
    """`text` with what Ollama's parser would drop made visible: other spaces become plain ones, the rest goes; in NFC.

    Dropping a full-width space glues two words together; a plain space keeps them apart.
    """
    lost = Counter(character for character in text if not survives(character))
    changes = []
    for character, count in lost.items():
        space = unicodedata.category(character).startswith("Z")
        text = text.replace(character, " " if space else "")
        became = "became a plain space" if space else "was left out"
        changes.append(f"SYSTEM: {character_name(character)} {became} ({count}×), because Ollama's parser drops it")
    composed = unicodedata.normalize("NFC", text)
    if composed != text:
        changes.append("SYSTEM: was composed (Unicode NFC), as training does it and llama.cpp does not")
    return composed, changes
