"""`report.html`: a run on one page, rendered from its folder alone.

The page needs no script and asks for nothing from outside: styles and the picture are inside, and a content security
policy forbids the rest. Every text of the run is escaped. A part that is missing is said to be missing.
"""

from __future__ import annotations

import base64
import json
import shlex
import statistics
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from slimtune import loss_curve, report_memory, run_record
from slimtune.errors import SlimtuneError
from slimtune.evaluate import verdict as verdicts
from slimtune.memory import shown
from slimtune.run_folder import as_dict, as_list, lines, mapping

FILE_NAME = "report.html"
_EVENTS_SHOWN = 200
_ENDINGS = {
    "failed": "The run failed.",
    "interrupted": "The run was interrupted.",
    "running": "The run has not come to its end: it is still going on, or its process was killed.",
}
_TONES = {"better": "good", "worse": "bad", "collapsed": "bad", "cannot tell": "unsure"}


def write(run_dir: Path) -> Path:
    """Render `report.html` into a run's folder and return its path."""
    run_record.write_text(run_dir / FILE_NAME, render(run_dir))
    return run_dir / FILE_NAME


def render(run_dir: Path) -> str:
    """The report as HTML. Files that are missing or cannot be read leave a remark where their content would be."""
    import jinja2

    unreadable: list[str] = []
    manifest = mapping(run_dir, "manifest.json", unreadable)
    plan = mapping(run_dir, "plan.json", unreadable)
    recipe = mapping(run_dir, "recipe.yaml", unreadable)
    verdict = mapping(run_dir, "eval/verdict.json", unreadable)
    audit = mapping(run_dir, "mask_audit.json", unreadable)
    events = lines(run_dir, "events.jsonl", unreadable)
    differences = as_list(manifest.get("differences"))
    view = {
        "run": _run(run_dir, manifest),
        "headline": _headline(manifest, verdict, events),
        "summary": verdicts.summary_rows(verdict) if "labels" in verdict else [],
        "histogram": _histogram(verdict),
        "curve": _curve(run_dir, unreadable),
        "memory": report_memory.section(manifest, plan),
        "mask": _mask(audit),
        "planned": bool(plan.get("settings")),
        "settings": _settings(plan, as_dict(manifest.get("trainer"))),
        "notes": [note for note in as_list(plan.get("notes")) if note not in differences],
        "differences": differences,
        "events": events[-_EVENTS_SHOWN:],
        "earlier_events": max(0, len(events) - _EVENTS_SHOWN),
        "data": [(part, _counts(as_dict(counts))) for part, counts in as_dict(manifest.get("data")).items()],
        "provenance": _provenance(manifest),
        "timings": [(phase, _duration(seconds)) for phase, seconds in as_dict(manifest.get("timings")).items()],
        "not_exported": next((event.get("message") for event in events if event.get("event") == "not_exported"), ""),
        "export": _export(run_dir, recipe, unreadable),
        "recipe": yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False) if recipe else "",
        "unreadable": unreadable,
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files("slimtune").joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(view)


# What each section shows ---------------------------------------------------------------------------------------------


def _run(run_dir: Path, manifest: dict[str, Any]) -> dict[str, str]:
    return {
        "name": str(manifest.get("name") or run_dir.parent.name),
        "id": str(manifest.get("run_id") or run_dir.name),
        "status": str(manifest.get("status") or "unknown: no manifest.json"),
        "started": _time(manifest.get("started")),
        "finished": _time(manifest.get("finished")),
        "command": shlex.join(str(part) for part in as_list(manifest.get("command"))),
    }


def _headline(manifest: dict[str, Any], verdict: dict[str, Any], events: list[dict[str, Any]]) -> dict[str, str]:
    """The first thing to read: the verdict's sentence, or why there is none."""
    status = manifest.get("status")
    told = [str(event.get("message", "")) for event in events if event.get("event") == status]
    problem = _ENDINGS.get(str(status), "") + (f"\n{told[-1]}" if told and status in _ENDINGS else "")
    if "sentence" in verdict:
        tone = _TONES.get(str(verdict.get("verdict")), "unsure")
        return {"tone": tone, "text": str(verdict["sentence"]), "problem": problem}
    return {"tone": "bad" if status == "failed" else "unsure", "text": "Not judged: no evaluation.", "problem": problem}


def _histogram(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """For each label, the counts in gold, base and tuned, with the width of their bars in percent."""
    columns = {
        "gold": as_dict(verdict.get("gold")),
        "base": as_dict(as_dict(verdict.get("base")).get("histogram")),
        "tuned": as_dict(as_dict(verdict.get("tuned")).get("histogram")),
    }
    most = max((count for counts in columns.values() for count in counts.values()), default=0) or 1
    return [
        {
            "label": label,
            "bars": [(who, counts.get(label, 0), 100 * counts.get(label, 0) / most) for who, counts in columns.items()],
        }
        for label in as_list(verdict.get("labels"))
    ]


def _curve(run_dir: Path, unreadable: list[str]) -> dict[str, str]:
    """The picture as a data URI and a line of figures, each empty if its file is missing."""
    picture = run_dir / "loss_curve.png"
    metrics = run_dir / "metrics.jsonl"
    image = base64.b64encode(picture.read_bytes()).decode("ascii") if picture.is_file() else ""
    figures = []
    if metrics.is_file():
        try:
            rows = loss_curve.read(metrics)
        except (SlimtuneError, UnicodeDecodeError) as error:
            unreadable.append(str(error))
            rows = []
        _, losses = loss_curve.series(rows, "loss")
        steps, eval_losses = loss_curve.series(rows, "eval_loss")
        _, speeds = loss_curve.series(rows, "tokens_per_second")
        if losses:
            figures.append(f"training loss {losses[0]:.3g} → {losses[-1]:.3g} in {rows[-1]['step']} steps")
        if eval_losses:
            best = min(range(len(eval_losses)), key=eval_losses.__getitem__)
            figures.append(f"best evaluation loss {eval_losses[best]:.3g} at step {steps[best]}")
        if speeds:
            figures.append(f"median {statistics.median(speeds):,.0f} tokens/s")
    return {"image": f"data:image/png;base64,{image}" if image else "", "figures": "; ".join(figures)}


def _mask(audit: dict[str, Any]) -> dict[str, Any]:
    """The figures of the audit, and the previews with line ends that carry loss made visible."""
    previews = []
    for preview in map(as_dict, as_list(audit.get("preview"))):
        segments = []
        for segment in map(as_dict, as_list(preview.get("segments"))):
            text, supervised = str(segment.get("text", "")), bool(segment.get("supervised"))
            segments.append({"text": text.replace("\n", "⏎\n") if supervised else text, "supervised": supervised})
        previews.append({"where": str(preview.get("where", "")), "segments": segments})
    figures = []
    if isinstance(audit.get("supervised_tokens"), int) and isinstance(audit.get("tokens"), int) and audit["tokens"]:
        share = 100 * audit["supervised_tokens"] / audit["tokens"]
        figures.append(f"{audit['supervised_tokens']:,} of {audit['tokens']:,} tokens ({share:.2f} %) carry loss")
    if isinstance(audit.get("rows"), int):
        figures.append(f"{audit['rows']:,} rows in {audit.get('batches', '?')} batches looked at")
    if audit.get("refined_rows"):
        figures.append(f"markers corrected to the computed boundary in {audit['refined_rows']:,} rows")
    return {"figures": "; ".join(figures), "previews": previews}


def _settings(plan: dict[str, Any], trainer: dict[str, Any]) -> list[dict[str, Any]]:
    """Every planned setting with its reason, and what the trainer used where that is another value."""
    rows = []
    for name, setting in as_dict(plan.get("settings")).items():
        value, reason = as_dict(setting).get("value"), str(as_dict(setting).get("reason", ""))
        used = trainer.get(name, value)
        changed = _comparable(used) != _comparable(value)
        rows.append(
            {"name": name, "value": _show(value), "used": _show(used) if changed else "", "reason": reason},
        )
    planned = {row["name"] for row in rows}
    rows += [
        {"name": name, "value": _show(value), "used": "", "reason": "as recorded from the trainer"}
        for name, value in trainer.items()
        if name not in planned
    ]
    return rows


def _comparable(value: Any) -> Any:
    """Module names are a set: their order means nothing."""
    return sorted(map(str, value)) if isinstance(value, list) else value


def _counts(counts: dict[str, Any]) -> str:
    """{"examples": 311, "label_distribution": {"a": 78}} → "311 examples; a: 78"."""
    facts = [f"{_show(value)} {key.replace('_', ' ')}" for key, value in counts.items() if key != "label_distribution"]
    labels = as_dict(counts.get("label_distribution"))
    return "; ".join([*facts, ", ".join(f"{label}: {count}" for label, count in labels.items())]).removesuffix("; ")


def _provenance(manifest: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    git = as_dict(manifest.get("git"))
    hashes = as_dict(manifest.get("hashes"))
    hardware = {
        key.removesuffix("_bytes"): shown(value) if key.endswith("_bytes") and isinstance(value, int) else value
        for key, value in as_dict(manifest.get("hardware")).items()
    }
    data = {f"data: {path}": digest for path, digest in as_dict(hashes.get("data")).items()}
    groups: list[tuple[str, Mapping[str, Any]]] = [
        ("Versions", as_dict(manifest.get("versions"))),
        ("SHA-256", {**{key: value for key, value in hashes.items() if key != "data"}, **data}),
        ("Hardware", hardware),
        ("Git", {"commit": git.get("commit"), "uncommitted changes": git.get("dirty")} if git else {}),
    ]
    return [(title, [(key, _show(value)) for key, value in facts.items()]) for title, facts in groups]


def _export(run_dir: Path, recipe: dict[str, Any], unreadable: list[str]) -> dict[str, Any]:
    """The files of export/ with their sizes, the parity result as it was written, and the command for Ollama."""
    folder = run_dir / "export"
    files = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        parts = [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]
        if parts and not path.name.startswith("."):
            files.append((path.name + ("/" if path.is_dir() else ""), shown(sum(p.stat().st_size for p in parts))))
    name = as_dict(recipe.get("export")).get("ollama_name")
    has_modelfile = (folder / "Modelfile").is_file()
    return {
        "files": files,
        "parity": _flat(mapping(run_dir, "export/parity.json", unreadable)),
        "command": shlex.join(["ollama", "create", str(name), "-f", "export/Modelfile"])
        if name and has_modelfile
        else "",
    }


# Values as text ------------------------------------------------------------------------------------------------------


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """{"gguf": {"q8_0": {"items": 20}}} → [("gguf.q8_0.items", "20")]"""
    if isinstance(value, dict):
        return [row for key, part in value.items() for row in _flat(part, f"{name}.{key}" if name else str(key))]
    return [(name, _show(value))]


def _show(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_show(part) for part in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def _time(text: Any) -> str:
    """The manifest's ISO 8601 in UTC, spaced for the eye."""
    return str(text).replace("T", " ").replace("Z", " UTC") if text else "not recorded"


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return _show(seconds)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
