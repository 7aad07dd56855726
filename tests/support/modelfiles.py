"""A Modelfile as an export writes it, from the settings that a test cares about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.chat_templates import chat_template

from slimtune.core.files import write_text
from slimtune.export.modelfile import modelfile
from slimtune.export.modelfile.chat_templates import bake_chat_template
from slimtune.export.modelfile.modelfile_reader import read_modelfile
from slimtune.models import families

QWEN25_DEFAULT_SYSTEM = families.get("qwen2.5").default_system
STOPS = families.get("qwen3").turns.stops
EMPTY_THINK_BLOCK = families.get("qwen3").thinking.empty


def write_modelfile(path: Path, *, family: str, thinking: bool, **settings: Any) -> list[str]:
    """Write the Modelfile; what had to be changed. Without `chat_template`: the family's own, baked."""
    if settings.get("chat_template") is None:
        baked = bake_chat_template(chat_template(family), family=family, thinking=thinking)
        settings["chat_template"] = baked
    composed = modelfile.compose(family=family, thinking=thinking, **settings)
    write_text(path, composed.text)
    return composed.changes


def parse_modelfile(text: str) -> dict[str, Any]:
    """What Ollama reads: {"from", "template", "system", …, "parameters": {name: [values]}}; of several the last."""
    read = read_modelfile(text)
    parsed: dict[str, Any] = {one.name: one.value for one in read.instructions if one.name != "parameter"}
    return parsed | {"parameters": {name: list(values) for name, values in read.parameters.items()}}
