"""The report's sections on what a run planned, used and left: settings, recipe, memory, versions, hashes, the export."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimtune.core import memory as metering
from slimtune.core.run_folder import as_dict, as_list, at, mapping
from slimtune.export.proof import parity_text
from slimtune.plan.memory import ram, vram
from slimtune.run.report.values import flat, size

_DEFAULT = "default"
# In the order in which a run goes through them; others follow.
_PHASES = ("load", "evaluate_base", "first_step", "train", "evaluate_tuned", "export")


def settings(plan: Mapping[str, Any], trainer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every planned setting with its reason, and what the trainer used. `changed` where that is another value."""
    planned, rows = as_dict(plan.get("settings")), []
    for name in dict.fromkeys([*planned, *trainer]):
        setting = planned.get(name, {"value": trainer.get(name), "reason": "as recorded from the trainer"})
        value, reason = at(setting, "value"), at(setting, "reason", "")
        used = trainer.get(name, value)
        changed = _comparable(used) != _comparable(value)
        rows.append({"name": name, "value": value, "used": used, "changed": changed, "reason": reason})
    return rows


def _comparable(value: Any) -> Any:
    """Module names are a set: their order means nothing."""
    return sorted(map(str, value)) if isinstance(value, list) else value


def recipe(resolved: Mapping[str, Any], sources: Mapping[str, Any]) -> dict[str, Any]:
    """Every value of the resolved recipe: those `chosen` in a file or on the command line, and the `defaults`.

    sources: manifest.json's "recipe_sources", {"train.epochs": "recipes/direct.yaml:13"}, without the defaults; empty
    for a run that did not record them. Then no value is called a default.
    """
    values = flat(dict(resolved)) if resolved else []
    rows = [(name, value, str(sources.get(name, _DEFAULT if sources else ""))) for name, value in values]
    return {
        "recorded": bool(sources),
        "chosen": [row for row in rows if row[2] != _DEFAULT],
        "defaults": [row for row in rows if row[2] == _DEFAULT],
    }


def memory(manifest: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes in bytes, None where one is not known, from manifest.json and plan.json, which may lack any part of it."""
    recorded, planned = as_dict(manifest.get("memory")), as_dict(plan.get("memory"))
    predicted, measured = _sizes(recorded.get("predicted")), _sizes(recorded.get("measured"))
    compared = {one.name: one for one in metering.compare(predicted, measured)}
    items, phases = _sizes(planned.get("items")), as_dict(recorded.get("phases"))
    return {
        "rows": [
            (name, predicted.get(name), measured.get(name), compared.get(name))
            for name in dict.fromkeys([*predicted, *measured])
        ],
        "differences": as_list(recorded.get("differences", metering.sentences(list(compared.values())))),
        "tolerance": f"{100 * metering.TOLERANCE:.0f} %",
        "comparable": bool(compared),
        "measured": bool(measured),
        "phases": _phases(phases, _sizes(recorded.get("predicted_phases")) or _sizes(planned.get("phases"))),
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
    on_card = any("peak_reserved" in figures for figures in measured.values())
    resident, of_process = metering.RESIDENT_SET, "resident set"
    if any(metering.RESIDENT_SET_SO_FAR in figures for figures in measured.values()):
        resident, of_process = metering.RESIDENT_SET_SO_FAR, "resident set so far"
    rows = []
    for name in dict.fromkeys([*(phase for phase in _PHASES if phase in {**measured, **predicted}), *measured]):
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


def provenance(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Titles, each with names and values."""
    hashes, git, splits = as_dict(manifest.get("hashes")), as_dict(manifest.get("git")), _splits(manifest)
    return {
        "Versions": as_dict(manifest.get("versions")),
        **({"Splits": splits} if splits else {}),
        "SHA-256": {key.replace("_", " "): value for key, value in hashes.items() if key != "data"}
        | as_dict(hashes.get("data")),
        "Hardware": {
            key.removesuffix("_bytes").replace("_", " "): size(value) if key.endswith("_bytes") else value
            for key, value in as_dict(manifest.get("hardware")).items()
        },
        "Git": {"commit": git.get("commit"), "uncommitted changes": git.get("dirty")} if git else {},
    }


def _splits(manifest: Mapping[str, Any]) -> dict[str, str]:
    """{"x.train.jsonl": "train of split.json, seed 42", "split.json": "SHA-256 0f…"}"""
    sets: dict[str, list[str]] = {}
    manifests: dict[str, str] = {}
    for one in map(as_dict, as_list(manifest.get("data_splits"))):
        changed = "" if one.get("unchanged") else "; it has changed since"
        of = f"{one.get('split')} of {one.get('manifest')}, seed {one.get('seed')}{changed}"
        sets.setdefault(str(one.get("file")), []).append(of)
        manifests[str(one.get("manifest"))] = f"SHA-256 {one.get('manifest_sha256')}"
    return {file: "; ".join(of) for file, of in sets.items()} | manifests


def gate(manifest: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Why nothing was exported, or what the gate would have refused and was exported by force; empty where neither."""
    told = [event for event in events if event.get("event") in ("exported", "not_exported")]
    if told and told[-1].get("event") == "not_exported":
        return {"refused": str(told[-1].get("message", "")), "forced": ""}
    return {"refused": "", "forced": str(at(manifest, "export.forced", ""))}


def export(run_dir: Path, recipe: Mapping[str, Any], unreadable: list[str]) -> dict[str, Any]:
    """The files of export/ with their sizes, the parity result as it was written, and the command for Ollama."""
    folder = run_dir / "export"
    files = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        parts = [part for part in (path.rglob("*") if path.is_dir() else [path]) if part.is_file()]
        if parts and not path.name.startswith("."):
            files[path.name + ("/" if path.is_dir() else "")] = size(sum(part.stat().st_size for part in parts))
    name = at(recipe, "export.ollama_name")
    command = ["ollama", "create", str(name), "-f", "export/Modelfile"]
    # What did not pass is where it was made, beside the export.
    places = ("export.unverified/parity.json", "export/parity.json")
    parity = next(filter(None, (mapping(run_dir, place, unreadable) for place in places)), {})
    return {
        "files": files,
        "parity": parity_text.rows(parity),
        "parity_heading": parity_text.HEADING,
        "parity_said": parity_text.sentences(parity),
        "parity_problems": parity_text.problems(parity),
        "parity_all": dict(flat(parity)) if parity else {},
        "command": shlex.join(command) if name and (folder / "Modelfile").is_file() else "",
    }
