"""The report's sections on settings: the plan with its reasons, and the recipe with where each value comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimtune.core.run_folder import as_dict
from slimtune.run.report.values import flat, show

DEFAULT = "default"


def planned(plan: Mapping[str, Any], trainer: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every planned setting with its reason, and what the trainer used where that is another value."""
    rows = []
    for name, setting in as_dict(plan.get("settings")).items():
        value, reason = as_dict(setting).get("value"), str(as_dict(setting).get("reason", ""))
        used = trainer.get(name, value)
        changed = _comparable(used) != _comparable(value)
        rows.append({"name": name, "value": show(value), "used": show(used) if changed else "", "reason": reason})
    known = {row["name"] for row in rows}
    rows += [
        {"name": name, "value": show(value), "used": "", "reason": "as recorded from the trainer"}
        for name, value in trainer.items()
        if name not in known
    ]
    return rows


def resolved(recipe: Mapping[str, Any], sources: Mapping[str, Any]) -> dict[str, Any]:
    """Every value of the resolved recipe: those `chosen` in a file or on the command line, and the `defaults`.

    sources: manifest.json's "recipe_sources", {"train.epochs": "recipes/direct.yaml:13"}, without the defaults; empty
    for a run that did not record them, and then no value is said to be a default.
    """
    default = DEFAULT if sources else ""
    rows = [(name, value, str(sources.get(name, default))) for name, value in flat(dict(recipe))] if recipe else []
    return {
        "recorded": bool(sources),
        "chosen": [row for row in rows if row[2] != DEFAULT],
        "defaults": [row for row in rows if row[2] == DEFAULT],
    }


def _comparable(value: Any) -> Any:
    """Module names are a set: their order means nothing."""
    return sorted(map(str, value)) if isinstance(value, list) else value
