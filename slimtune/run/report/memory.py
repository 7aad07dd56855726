"""The report's section on memory: prediction beside measurement, phase by phase, and what the prediction is made of."""

from collections.abc import Mapping
from typing import Any

from slimtune.core import memory
from slimtune.core.run_folder import as_dict, as_list
from slimtune.plan.memory import ram, vram

# In the order in which a run goes through them; others follow.
_PHASES = ("load", "evaluate_base", "first_step", "train", "evaluate_tuned", "export")


def section(manifest: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes in bytes, None where one is not known, from manifest.json and plan.json, which may lack any part of it."""
    recorded, planned = as_dict(manifest.get("memory")), as_dict(plan.get("memory"))
    predicted, measured = _sizes(recorded.get("predicted")), _sizes(recorded.get("measured"))
    compared = {one.name: one for one in memory.compare(predicted, measured)}
    items = _sizes(planned.get("items"))
    return {
        "rows": [
            (name, predicted.get(name), measured.get(name), compared.get(name))
            for name in dict.fromkeys([*predicted, *measured])
        ],
        "differences": as_list(recorded.get("differences", memory.sentences(list(compared.values())))),
        "tolerance": f"{100 * memory.TOLERANCE:.0f} %",
        "comparable": bool(compared),
        "measured": bool(measured),
        "phases": _phases(
            as_dict(recorded.get("phases")), _sizes(recorded.get("predicted_phases")) or _sizes(planned.get("phases"))
        ),
        "items": items,
        "formulas": ram.FORMULAS if ram.RUNTIME in items else vram.FORMULAS,
        "on_cpu": ram.RUNTIME in items,
        "total": planned.get("total_bytes"),
        "budget": planned.get("budget_bytes"),
    }


def _phases(phases: dict[str, Any], predicted: dict[str, int]) -> dict[str, Any]:
    """A table: phase, prediction, what it is to be compared with, and the other figures that any phase has.

    On a card that is what the allocator reserved and the context together; on a CPU the resident set.
    """
    measured = {phase: _sizes(figures) for phase, figures in phases.items()}
    known = [name for name in _PHASES if name in measured or name in predicted]
    on_card = any("peak_reserved" in figures for figures in measured.values())
    resident, of_process = memory.RESIDENT_SET, "resident set"
    if any(memory.RESIDENT_SET_SO_FAR in figures for figures in measured.values()):
        resident, of_process = memory.RESIDENT_SET_SO_FAR, "resident set so far"
    rows = []
    for name in [*known, *(name for name in measured if name not in known)]:
        figures = measured.get(name, {})
        cells: list[int | None] = [predicted.get(name)]
        if on_card:
            reserved = figures.get("peak_reserved")
            cells += [None if reserved is None else reserved + figures.get("context", 0), figures.get("peak_allocated")]
        rows.append((name.replace("_", " "), [*cells, figures.get(resident)]))
    columns = ["predicted", "on the card", "allocated", of_process] if on_card else ["predicted", of_process]
    return {"columns": columns, "rows": rows, "on_card": on_card}


def _sizes(value: Any) -> dict[str, int]:
    return {str(name): size for name, size in as_dict(value).items() if isinstance(size, int)}
