"""Qwen's chat templates as checked-in files, see tests/support/templates/README.md."""

from __future__ import annotations

from pathlib import Path

FILES = {"qwen2": "qwen2.5", "qwen2.5": "qwen2.5", "qwen3": "qwen3", "qwen3-instruct": "qwen3-instruct"}


def chat_template(family: str) -> str:
    """The Jinja text of a family: "qwen2" (or "qwen2.5"), "qwen3" or "qwen3-instruct" (the 2507 releases)."""
    path = Path(__file__).with_name("templates") / f"{FILES[family]}.jinja"
    return path.read_bytes().decode("utf-8")
