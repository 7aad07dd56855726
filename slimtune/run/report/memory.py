"""The report's section on memory: prediction beside measurement, phase by phase, and what the prediction is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimtune.core import memory
from slimtune.core.memory import shown
from slimtune.core.run_folder import as_dict, as_list
from slimtune.plan.memory import ram, vram

# In the order in which a run goes through them; others follow.
_PHASES = ("load", "evaluate_base", "first_step", "train", "evaluate_tuned", "export")
_NONE = "–"
_LETTERS = (
    "N tokens of a micro-batch, H hidden size, I intermediate size, L layers, V vocabulary, Hq query features, Hk key "
    "features, P parameters of the linears, P_lora of the adapter"
)
_LETTERS_ON_CARD = f"{_LETTERS}, R rows of the loss."
_LETTERS_ON_CPU = f"{_LETTERS}; b bytes of a number in the run's precision, a of one in the adapter's."


def section(manifest: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows, from manifest.json and plan.json, each of which may lack any part of it."""
    recorded, planned = as_dict(manifest.get("memory")), as_dict(plan.get("memory"))
    predicted, measured = _sizes(recorded.get("predicted")), _sizes(recorded.get("measured"))
    differences = [str(sentence) for sentence in as_list(recorded.get("differences"))]
    if "differences" not in recorded:
        differences = memory.sentences(memory.compare(predicted, measured))
    items, budget = _sizes(planned.get("items")), planned.get("budget_bytes")
    return {
        "rows": _compared(predicted, measured),
        "differences": differences,
        "tolerance": f"{100 * memory.TOLERANCE:.0f} %",
        "comparable": bool(predicted.keys() & measured.keys()),
        "measured": bool(measured),
        "phases": _phases(
            as_dict(recorded.get("phases")), _sizes(recorded.get("predicted_phases")) or _sizes(planned.get("phases"))
        ),
        "breakdown": _breakdown(items),
        "letters": _LETTERS_ON_CPU if ram.RUNTIME in items else _LETTERS_ON_CARD,
        "total": shown(planned["total_bytes"]) if isinstance(planned.get("total_bytes"), int) else "",
        "budget": shown(budget) if isinstance(budget, int) else "",
    }


def _compared(predicted: dict[str, int], measured: dict[str, int]) -> list[dict[str, Any]]:
    """A row for each name; bars are in percent of the largest size."""
    most = max([*predicted.values(), *measured.values()], default=0) or 1
    rows = []
    for name in dict.fromkeys([*predicted, *measured]):
        before, after = predicted.get(name), measured.get(name)
        both = None if before is None or after is None else memory.Comparison(name, before, after)
        rows.append(
            {
                "name": name,
                "predicted": _shown(before),
                "measured": _shown(after),
                "difference": f"{100 * both.error:+.1f} %" if both and before else _NONE,
                "apart": both is not None and not both.within_tolerance,
                "bars": _bars(most, base=before, tuned=after),
            }
        )
    return rows


def _phases(phases: dict[str, Any], predicted: dict[str, int]) -> dict[str, Any]:
    """A table: phase, prediction, what it is to be compared with, and the other figures that any phase has.

    On a card that is what the allocator reserved and the context together; on a CPU the resident set.
    """
    measured = {phase: _sizes(figures) for phase, figures in phases.items()}
    known = [name for name in _PHASES if name in measured or name in predicted]
    names = [*known, *(name for name in measured if name not in known)]
    on_card = any("peak_reserved" in figures for figures in measured.values())
    resident = memory.RESIDENT_SET
    if any(memory.RESIDENT_SET_SO_FAR in figures for figures in measured.values()):
        resident = memory.RESIDENT_SET_SO_FAR
    of_process = {memory.RESIDENT_SET: "resident set", memory.RESIDENT_SET_SO_FAR: "resident set so far"}[resident]
    columns = ["predicted", "on the card", "allocated", of_process] if on_card else ["predicted", of_process]
    rows = []
    for name in names:
        figures = measured.get(name, {})
        cells: list[int | None] = [predicted.get(name)]
        if on_card:
            reserved = figures.get("peak_reserved")
            cells += [None if reserved is None else reserved + figures.get("context", 0), figures.get("peak_allocated")]
        cells.append(figures.get(resident))
        rows.append((name.replace("_", " "), [_shown(cell) for cell in cells]))
    return {"columns": columns, "rows": rows, "on_card": on_card}


def _breakdown(items: dict[str, int]) -> list[dict[str, Any]]:
    """Each predicted item with how it is computed, and a bar in percent of the largest."""
    formulas = ram.FORMULAS if ram.RUNTIME in items else vram.FORMULAS
    most = max(items.values(), default=0) or 1
    return [
        {"name": name, "size": shown(size), "formula": formulas.get(name, ""), "bars": _bars(most, base=size)}
        for name, size in items.items()
    ]


def _bars(most: int, **sizes: int | None) -> list[tuple[str, float]]:
    return [(colour, 100 * size / most) for colour, size in sizes.items() if size is not None]


def _sizes(value: Any) -> dict[str, int]:
    return {str(name): size for name, size in as_dict(value).items() if isinstance(size, int)}


def _shown(size: int | None) -> str:
    return _NONE if size is None else shown(size)
