"""A Modelfile as Ollama reads it. The grammar: https://docs.ollama.com/modelfile and parser/parser.go of github.com/ollama/ollama."""

from __future__ import annotations

import re
import unicodedata
from typing import Any


def parse_modelfile(text: str) -> dict[str, Any]:
    """Read a Modelfile as Ollama does: {"from", "template", "system", …, "parameters": {name: [values]}}.

    Characters that Ollama's parser drops are dropped. Raises ValueError for a line that is no instruction.
    """
    parsed: dict[str, Any] = {"parameters": {}}
    instruction = re.compile(
        r'\s*(?:#[^\n]*|(?P<name>[A-Za-z]+)[ \t]+(?P<value>"""(?:.*?)"""(?=\s|$)|[^\n]*))', re.DOTALL
    )
    position = 0
    while text[position:].strip():
        match = instruction.match(text, position)
        if match is None:
            raise ValueError(f"no instruction: {text[position : position + 40]!r}")
        position = match.end()
        if match["name"] is None:
            continue
        name, value = match["name"].lower(), "".join(c for c in match["value"] if survives(c)).strip()
        if name == "parameter":
            name, _, value = value.partition(" ")
            parsed["parameters"].setdefault(name, []).append(_unquoted(value.strip()))
        else:
            parsed[name] = _unquoted(value)
    return parsed


def _unquoted(value: str) -> str:
    for quote in ('"""', '"'):
        if len(value) >= 2 * len(quote) and value.startswith(quote) and value.endswith(quote):
            return value[len(quote) : -len(quote)]
    return value


def survives(character: str) -> bool:
    """Go's strconv.IsPrint (letters, marks, numbers, punctuation, symbols, ASCII space), or white space it keeps."""
    return character in " \n\r\t" or unicodedata.category(character)[0] in "LMNPS"
