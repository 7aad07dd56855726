"""`report.html`: a run on one page, rendered from its folder alone.

The page needs no script and asks for nothing from outside: styles and charts are inside, and a content security
policy forbids the rest. Every text of the run is escaped. A part that is missing is said to be missing.
"""

import shlex
from functools import partial
from pathlib import Path

from slimtune.core import inputs, outputs, pages, run_folder
from slimtune.core.errors import fail
from slimtune.core.files import write_text
from slimtune.core.run_folder import as_dict, as_list, at, lines, mapping
from slimtune.evaluate import kinds
from slimtune.evaluate.judge.text import percent
from slimtune.run.report import answers, charts, facts, values, verdict

FILE_NAME = "report.html"
_EVENTS_SHOWN = 200
_FILES = (
    *("manifest.json", "plan.json", "recipe.yaml", "mask_audit.json", "events.jsonl"),
    *(f"eval/{name}" for name in ("verdict.json", "contamination.json", "base.jsonl", "tuned.jsonl", "items.jsonl")),
    *("eval/samples.jsonl", "export.unverified/parity.json", "export/parity.json"),
)


def write(run_dir: Path) -> Path:
    """Render `report.html` into a run's folder and return its path. Raises SlimtuneError as `require_own` does."""
    require_own(run_dir)
    write_text(run_dir / FILE_NAME, render(run_dir))
    return run_dir / FILE_NAME


def require_own(run_dir: Path) -> None:
    """Raise SlimtuneError for a `report.html` that Slimtune did not write: it would be replaced."""
    path = run_dir / FILE_NAME
    if outputs.found_at(path) is None or (inputs.is_file(path) and not path.is_symlink() and outputs.made_here(path)):
        return
    raise fail("Slimtune did not write this, so it is not replaced", where=str(path), fix=outputs.MOVE_IT)


def unreadable_files(run_dir: Path) -> list[str]:
    """What is wrong with the files that the page shows, a line each; the page says it too."""
    found: list[str] = []
    for name in _FILES:
        (lines if name.endswith(".jsonl") else mapping)(run_dir, name, unreadable=found)
    return found


def render(run_dir: Path) -> str:
    """The report as HTML. Files that are missing or cannot be read leave a remark where their content would be."""
    return run_folder.forgiving(partial(_page, run_dir), _FILES)


def _page(run_dir: Path, unreadable: list[str]) -> str:
    read, read_lines = partial(mapping, run_dir, unreadable=unreadable), partial(lines, run_dir, unreadable=unreadable)
    manifest, plan, recipe, audit = map(read, ("manifest.json", "plan.json", "recipe.yaml", "mask_audit.json"))
    judged, found = map(read, ("eval/verdict.json", "eval/contamination.json"))
    base, tuned, items, samples = (read_lines(f"eval/{name}.jsonl") for name in ("base", "tuned", "items", "samples"))
    events = read_lines("events.jsonl")
    differences = as_list(manifest.get("differences"))
    view = {
        "name": manifest.get("name") or run_dir.parent.name,
        "run_id": manifest.get("run_id") or run_dir.name,
        "manifest": manifest,
        "command": shlex.join(str(part) for part in as_list(manifest.get("command"))),
        "headline": verdict.headline(manifest, judged, events),
        "tiles": verdict.tiles(judged),
        "summary": kinds.table(judged) if judged.get("base") and judged.get("tuned") else [],
        "intervals": verdict.intervals(judged),
        "histogram": verdict.histogram(judged),
        "calibration": verdict.calibration(judged),
        "flipped": answers.flipped(base, tuned, items),
        "contamination": answers.contamination(judged, found),
        "samples": samples,
        "curves": charts.loss_curves(run_dir, unreadable),
        "memory": facts.memory(manifest, plan),
        "audit": audit,
        "plan": plan,
        "settings": facts.settings(plan, as_dict(manifest.get("trainer"))),
        "notes": [note for note in as_list(plan.get("notes")) if note not in differences],
        "recipe": facts.recipe(recipe, as_dict(manifest.get("recipe_sources"))),
        "differences": differences,
        "events": events[-_EVENTS_SHOWN:],
        "earlier_events": max(0, len(events) - _EVENTS_SHOWN),
        "gate": facts.gate(manifest, events),
        "export": facts.export(run_dir, recipe, unreadable),
        "provenance": facts.provenance(manifest),
        "unreadable": unreadable,
        "at": at,
        "duration": values.duration,
        "known": values.known,
        "messages": answers.messages,
        "moment": values.moment,
        "percent": percent,
        "show": values.show,
        "size": values.size,
        "unbroken": values.unbroken,
    }
    return pages.render("slimtune.run.report", "report.html.jinja", view)
