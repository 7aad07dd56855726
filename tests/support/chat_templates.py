"""Chat templates without importing Unsloth: Qwen's as checked-in files (see tests/support/templates/README.md)."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
from pathlib import Path
from typing import Any

FILES = {"qwen2": "qwen2.5", "qwen2.5": "qwen2.5", "qwen3": "qwen3", "qwen3-instruct": "qwen3-instruct"}


def chat_template(family: str) -> str:
    """The Jinja text of a family: "qwen2" (or "qwen2.5"), "qwen3" or "qwen3-instruct" (the 2507 releases)."""
    path = Path(__file__).with_name("templates") / f"{FILES[family]}.jinja"
    return path.read_bytes().decode("utf-8")


def unsloth_template(name: str) -> str:
    """The Jinja text that the installed Unsloth has by this name, such as "llama-3.1"."""
    tables = _unsloth_tables()
    system = tables["DEFAULT_SYSTEM_MESSAGE"].get(name) or ""
    for plain, escaped in (("\\", "\\\\"), ("'", "\\'"), ('"', '\\"'), ("\n", "\\n")):  # it stands in a Jinja literal
        system = system.replace(plain, escaped)
    return tables["CHAT_TEMPLATES"][name][0].replace("{system_message}", system)


def unsloth_templates() -> dict[str, str]:
    """All of the installed Unsloth, by name."""
    return {name: unsloth_template(name) for name in _unsloth_tables()["CHAT_TEMPLATES"]}


@functools.cache
def _unsloth_tables() -> dict[str, Any]:
    """What the assignments of unsloth/chat_templates.py make, without the imports around them."""
    package = importlib.util.find_spec("unsloth")
    assert package and package.origin
    source = Path(package.origin).with_name("chat_templates.py").read_text(encoding="utf-8")
    made: dict[str, Any] = {"_ollama_template": str}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            with contextlib.suppress(NameError):  # of what is imported or is a function
                exec(compile(ast.Module([node], []), "chat_templates.py", "exec"), made)
    return made
