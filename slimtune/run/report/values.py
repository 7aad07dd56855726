"""Values of a run as text for a page."""

from __future__ import annotations

import json
import re
from typing import Any


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """{"gguf": {"q8_0": {"items": 20}}, "train": [{"path": "x"}]} → [("gguf.q8_0.items", "20"), ("train[0].path", "x")]"""
    if isinstance(value, dict) and value:
        return [row for key, part in value.items() for row in flat(part, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        return [row for index, part in enumerate(value) for row in flat(part, f"{name}[{index}]")]
    return [(name, show(value))]


def show(value: Any) -> str:
    """A value of JSON for the eye: null is "not set", true is "yes"."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(show(part) for part in value) or "none"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def unbroken(text: str) -> str:
    """The text with figures kept on one line with their signs: "95 %", "p < 0.001"."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[<=])|(?<=[<=]) (?=\d)", "\u00a0", text)


def number(value: Any) -> float | None:
    """The value if it is a number, else None: figures of older runs may lack."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def moment(text: Any) -> str:
    """The manifest's ISO 8601 in UTC, spaced for the eye."""
    return str(text).replace("T", " ").replace("Z", " UTC") if text else "not recorded"


def duration(seconds: Any) -> str:
    """2111.4 → "35 min 11 s"."""
    if number(seconds) is None:
        return show(seconds)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
