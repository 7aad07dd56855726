"""Read a Modelfile as Ollama reads it, and compare it with what was meant.

The grammar: https://docs.ollama.com/modelfile and parser/parser.go of github.com/ollama/ollama. Its reader goes through the
file one character at a time; what is odd below is odd there. A value ends at the first line end at which its quotes are
closed, so text after closing quotes makes it go on; a second space after PARAMETER is a parameter without a name.
"""

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from slimtune.core.errors import Problem
from slimtune.evaluate.targets.prefixes import common_length

INSTRUCTIONS = (
    "from", "template", "system", "parameter", "adapter", "license", "message", "renderer", "parser", "requires", "draft",
)  # fmt: skip
_ROLES = ("system", "user", "assistant")
DEPRECATED = (
    "penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", "mirostat", "mirostat_tau",
    "mirostat_eta",
)  # fmt: skip
# Of each kind of parameter its names, what a value looks like, and what that is called.
_PARAMETERS = (
    (
        ("num_ctx", "num_predict", "num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict",
         "seed", "top_k", "repeat_last_n"),
        re.compile(r"[+-]?[0-9]{1,18}"), "a whole number",
    ),
    (
        ("temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"),
        re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|(?i:[+-]?inf(?:inity)?|nan)"), "a number",
    ),
    (("use_mmap",), re.compile("1|t|T|TRUE|true|True|0|f|F|FALSE|false|False"), "true or false"),
)  # fmt: skip
# Go's semver: a shortened version is fine, and only a full one may have something after it.
_VERSION = re.compile(
    r"v?(0|[1-9]\d*)(\.(0|[1-9]\d*)(\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?)?)?", re.ASCII
)


class Refused(ValueError):
    """A fault at which Ollama's parser stops. line: 1 for the first, 0 where the whole file is at fault."""

    def __init__(self, what: str, line: int):
        super().__init__(f"line {line}: {what}" if line else what)
        self.what, self.line = what, line


@dataclass(frozen=True, slots=True)
class Instruction:
    """name: as in INSTRUCTIONS. key: a parameter's name or a message's role, else "". line: that it begins in."""

    name: str
    key: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """A character that Ollama's parser drops. within: the instruction that it stood in, "" before the first."""

    character: str
    line: int
    within: str


@dataclass(frozen=True, slots=True)
class Modelfile:
    """What Ollama makes of the file; None where nothing was said. Of what may be said once, the last counts.

    models: every FROM. parameters: name to all values, as text.
    """

    instructions: tuple[Instruction, ...]
    dropped: tuple[Dropped, ...]
    models: tuple[str, ...]
    adapters: tuple[str, ...]
    parameters: Mapping[str, tuple[str, ...]]
    template: str | None
    system: str | None
    renderer: str | None
    parser: str | None
    requires: str | None

    def line(self, name: str, key: str = "") -> int:
        """The line of the last such instruction (for PARAMETER with its name as `key`), 0 for none."""
        lines = (one.line for one in self.instructions if one.name == name and (not key or one.key == key))
        return max(lines, default=0)


# ---- reading --------------------------------------------------------------------------------------------------------


def decoded(raw: bytes) -> str:
    """The file's text as Ollama decodes it: UTF-8, or UTF-16 where a byte order mark says so; broken bytes are U+FFFD."""
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return raw.decode("utf-16" if wide else "utf-8-sig", "replace")


def read_modelfile(text: str) -> Modelfile:
    """Read a Modelfile. Raises Refused where Ollama's parser would stop, for the first fault as it does.

    What Ollama refuses only later, such as an unknown parameter, is what `refusals` is for.
    """
    instructions, dropped = _read(text)

    def said(name: str) -> tuple[str, ...]:
        return tuple(one.value for one in instructions if one.name == name)

    if not said("from"):
        raise Refused("there is no FROM line", 0)
    parameters: dict[str, tuple[str, ...]] = {}
    for one in instructions:
        if one.name == "parameter":
            parameters[one.key] = (*parameters.get(one.key, ()), one.value)
    names = ("template", "system", "renderer", "parser", "requires")
    once = {name: said(name)[-1] if said(name) else None for name in names}
    return Modelfile(tuple(instructions), tuple(dropped), said("from"), said("adapter"), parameters, **once)


def survives(character: str) -> bool:
    """Go's strconv.IsPrint (letters, marks, numbers, punctuation, symbols, ASCII space), or white space it keeps."""
    return character in " \n\r\t" or unicodedata.category(character)[0] in "LMNPS"


def _read(text: str) -> tuple[list[Instruction], list[Dropped]]:
    instructions: list[Instruction] = []
    dropped: list[Dropped] = []
    state, name, key, begun, line = "between", "", "", 0, 1
    buffer: list[str] = []
    for index, character in enumerate(text):
        if state == "between" and character not in " \t\r\n":
            state, begun, name, key = ("comment" if character == "#" else "name"), line, "", ""
            buffer = [character] if survives(character) else []
        elif state == "name" and character in " \t":
            word, buffer = "".join(buffer), []
            name = word.lower()
            if name not in INSTRUCTIONS:
                raise Refused(f"{word[:40]!r} is not an instruction", begun)
            state = name if name in ("parameter", "message") else "value"
        elif state == "name":
            if not _is_letter(character):
                raise Refused(f"{''.join(buffer)[:40]!r} is not an instruction", begun)
            buffer.append(character)
        elif state in ("parameter", "message") and character in " \t":
            key = "".join(buffer)
            if state == "message" and key not in _ROLES:
                raise Refused(f"a message's role must be system, user or assistant, not {key!r}", begun)
            state, buffer = "value", []
        elif state in ("parameter", "message"):
            if not (_is_letter(character) or (state == "parameter" and character in "0123456789_")):
                raise Refused(f"{state.upper()} {''.join(buffer)} is incomplete", begun)
            buffer.append(character)
        elif state == "value":
            value = _unquoted("".join(buffer)) if character in "\r\n" else None
            if value is not None:
                instructions.append(_made(name, key, value, begun))
                state = "between"
            elif survives(character):
                buffer.append(character)
        elif state == "comment" and character in "\r\n":
            state = "between"
        if state != "comment" and not survives(character):
            dropped.append(Dropped(character, line, name.upper()))
        line += character == "\n" or (character == "\r" and text[index + 1 : index + 2] != "\n")
    if state == "value":
        value = _unquoted("".join(buffer))
        if value is None:
            raise Refused(f"the quotes of {name.upper()} are not closed at the end of a line", begun)
        instructions.append(_made(name, key, value, begun))
    elif state not in ("between", "comment"):
        raise Refused("the file ends in the middle of an instruction", begun)
    return instructions, dropped


def _made(name: str, key: str, value: str, line: int) -> Instruction:
    # Ollama keeps one list of names, in which FROM is called "model": a parameter of such a name is that instruction.
    other = "from" if key == "model" else key
    if name == "parameter" and other in set(INSTRUCTIONS) - {"parameter", "message"} and key != "from":
        return Instruction(other, "", value, line)
    return Instruction(name, key, value, line)


def _is_letter(character: str) -> bool:
    return character.isascii() and character.isalpha()


def _unquoted(value: str) -> str | None:
    """The value without its quotes; None where they are still open."""
    value = value.strip(" \t\r\n")
    for quote in ('"""', '"'):
        if value.startswith(quote):
            closed = len(value) >= 2 * len(quote) and value.endswith(quote)
            return value[len(quote) : -len(quote)] if closed else None
    return value


# ---- what is refused after reading ----------------------------------------------------------------------------------


def refusals(read: Modelfile) -> list[tuple[int, str]]:
    """(line, what) of everything that can be read but that `ollama create` refuses. Files are not checked."""
    found = []
    for one in read.instructions:
        if one.name == "parameter":
            if what := _bad_parameter(one.key, one.value):
                found.append((one.line, what))
        elif one.name == "requires" and not _VERSION.fullmatch(one.value):
            found.append((one.line, f"REQUIRES {one.value!r} is not a version such as 0.17.6"))
    return found


def _bad_parameter(name: str, value: str) -> str:
    if name == "stop" or name in DEPRECATED:
        return ""
    for names, form, what in _PARAMETERS:
        if name in names:
            return "" if form.fullmatch(value) else f"PARAMETER {name} must be {what}, not {value[:60]!r}"
    if not name:
        return "PARAMETER must be followed by one space and the parameter's name"
    return f"PARAMETER {name} is not known to Ollama"


# ---- what was meant -------------------------------------------------------------------------------------------------


def compare(read: Modelfile, meant: Mapping[str, Sequence[str]], where: str = "Modelfile") -> list[Problem]:
    """A problem for each instruction that Ollama reads otherwise than meant.

    meant: the values of each, such as {"FROM": ["./law.gguf"], "PARAMETER stop": [...]}; it has no others.
    """
    found: dict[str, list[str]] = {}
    for one in read.instructions:
        found.setdefault(f"{one.name.upper()} {one.key}".rstrip(), []).append(one.value)
    told = [_difference(name, found.get(name, []), list(meant.get(name, ()))) for name in {**meant, **found}]
    return [Problem(what, where) for what in told if what]


def _difference(name: str, found: list[str], meant: list[str]) -> str:
    if found == meant:
        return ""
    if not found:
        return f"{name} is missing: {_listed(meant)} was meant"
    if not meant:
        return f"{name} was not meant to be there: {_listed(found)}"
    if len(found) != 1 or len(meant) != 1:
        return f"{name} is {_listed(found)}, not {_listed(meant)}"
    if "".join(filter(survives, meant[0])) == found[0]:
        gone = Counter(character for character in meant[0] if not survives(character))
        told = ", ".join(f"{character_name(one)} ({count}×)" for one, count in gone.items())
        return f"{name} lost {told}: Ollama's parser drops it"
    return f"{name} is not what was meant, {first_difference(meant[0], found[0])}"


def first_difference(expected: str, found: str) -> str:
    """Where two texts part, with a little of both: "at character 12: '…' expected, '…' found"."""
    place = common_length(expected, found, len(expected))
    window = slice(max(place - 16, 0), place + 32)
    return f"at character {place + 1}: {expected[window]!r} expected, {found[window]!r} found"


def character_name(character: str) -> str:
    """ "U+3000 IDEOGRAPHIC SPACE"."""
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()


def _listed(values: Iterable[str]) -> str:
    return ", ".join(repr(value[:60]) for value in values)
