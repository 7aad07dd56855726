"""A run's page: what each section shows, and where it comes from."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimtune.core import pages
from slimtune.core.files import write_text
from slimtune.core.run_folder import as_dict, as_list, lines, mapping
from slimtune.run.report import answers, contamination, curves, mask, memory, provenance, settings, verdict
from slimtune.run.report.values import moment

FILE_NAME = "report.html"
_EVENTS_SHOWN = 200


def write(run_dir: Path) -> Path:
    """Render `report.html` into a run's folder and return its path."""
    write_text(run_dir / FILE_NAME, render(run_dir))
    return run_dir / FILE_NAME


def render(run_dir: Path) -> str:
    """The report as HTML. Files that are missing or cannot be read leave a remark where their content would be."""
    unreadable: list[str] = []
    manifest = mapping(run_dir, "manifest.json", unreadable)
    plan = mapping(run_dir, "plan.json", unreadable)
    recipe = mapping(run_dir, "recipe.yaml", unreadable)
    judged = mapping(run_dir, "eval/verdict.json", unreadable)
    events = lines(run_dir, "events.jsonl", unreadable)
    base, tuned, items, samples = (
        lines(run_dir, f"eval/{name}.jsonl", unreadable) for name in ("base", "tuned", "items", "samples")
    )
    differences = as_list(manifest.get("differences"))
    summary = verdict.summary(judged)
    view = {
        "run": _run(run_dir, manifest),
        "headline": verdict.headline(manifest, judged, events),
        "tiles": verdict.tiles(judged),
        "summary": summary,
        "glossary": verdict.glossary(summary),
        "intervals": verdict.intervals(judged),
        "histogram": verdict.histogram(judged),
        "calibration": verdict.calibration(judged),
        "flipped": answers.flipped(base, tuned, items),
        "contamination": contamination.section(judged, mapping(run_dir, "eval/contamination.json", unreadable)),
        "samples": answers.samples(samples),
        "curves": curves.section(run_dir, unreadable),
        "memory": memory.section(manifest, plan),
        "mask": mask.section(mapping(run_dir, "mask_audit.json", unreadable)),
        "planned": bool(plan.get("settings")),
        "settings": settings.planned(plan, as_dict(manifest.get("trainer"))),
        "notes": [note for note in as_list(plan.get("notes")) if note not in differences],
        "recipe": settings.resolved(recipe, as_dict(manifest.get("recipe_sources"))),
        "differences": differences,
        "events": events[-_EVENTS_SHOWN:],
        "earlier_events": max(0, len(events) - _EVENTS_SHOWN),
        "gate": provenance.gate(manifest, events),
        "export": provenance.export(run_dir, recipe, unreadable),
        "data": provenance.data(manifest),
        "timings": provenance.timings(manifest),
        "provenance": provenance.facts(manifest),
        "unreadable": unreadable,
    }
    return pages.render("slimtune.run.report", "report.html.jinja", view)


def _run(run_dir: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": str(manifest.get("name") or run_dir.parent.name),
        "id": str(manifest.get("run_id") or run_dir.name),
        "status": str(manifest.get("status") or "unknown: no manifest.json"),
        "started": moment(manifest.get("started")),
        "finished": moment(manifest.get("finished")),
        "command": shlex.join(str(part) for part in as_list(manifest.get("command"))),
    }
