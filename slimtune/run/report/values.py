"""Values of a run as text for a page."""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from slimtune.core.run_folder import as_list
from slimtune.core.units import size_text


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


def number(value: Any) -> float | None:
    """The value if it is a finite number, else None. Older runs lack some figures."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable else None


def known(value: Any, show: Callable[[float], str], otherwise: str = "–") -> str:
    """A number as text, or `otherwise` where there is none."""
    return otherwise if number(value) is None else show(value)


def size(value: Any) -> str:
    """Bytes as "1.20 GiB"."""
    return known(value, size_text)


def pair(value: Any) -> tuple[float, float] | None:
    """The two ends of an interval; None for anything else."""
    ends = as_list(value)
    return (ends[0], ends[1]) if len(ends) == 2 and None not in map(number, ends) else None


def unbroken(text: str) -> str:
    """The text with figures kept on one line with their signs: "95 %", "p < 0.001"."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[<=])|(?<=[<=]) (?=\d)", "\u00a0", text)


def moment(text: Any) -> str:
    """The manifest's ISO 8601 in UTC, spaced for the eye."""
    return str(text).replace("T", " ").replace("Z", " UTC") if text else "not recorded"


def duration(seconds: Any, units: tuple[str, str, str] = ("h", "min", "s"), otherwise: str = "not recorded") -> str:
    """2111.4 → "35 min 11 s"; 5000 → "1 h 23 min"; 0.34 → "0.3 s"."""
    if number(seconds) is None:
        return otherwise
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} {units[0]} {minutes} {units[1]}"
    return f"{minutes} {units[1]} {rest} {units[2]}" if minutes else f"{round(seconds, 1):g} {units[2]}"


def difference(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """Tuned minus base as text: value, unit, the ends of its interval ([] if not recorded) and their confidence."""
    points = number(verdict.get("difference_points"))
    value = number(verdict.get("difference")) if points is None else points
    if value is None:
        return None
    digits = 3 if verdict.get("kind") == "perplexity" else 1
    return {
        "value": f"{value:+.{digits}f}",
        "unit": str(verdict.get("difference_unit", "")) if points is None else "points",
        "interval": [f"{end:+.{digits}f}" for end in pair(verdict.get("difference_interval")) or ()],
        "confidence": confidence(verdict),
    }


def confidence(verdict: Mapping[str, Any]) -> str:
    """Of the verdict's intervals: "95 %"."""
    alpha = number(verdict.get("alpha"))
    return f"{100 * (1 - (0.05 if alpha is None else alpha)):g} %"
