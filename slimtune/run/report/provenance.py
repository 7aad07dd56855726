"""The report's sections on what a run used and what it leaves: data, versions, hashes, times; the export."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimtune.core.memory import shown
from slimtune.core.run_folder import as_dict, as_list, mapping
from slimtune.export.proof import parity_text
from slimtune.run.report.values import duration, flat, show


def data(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """[("train", "311 examples; a: 78, b: 77")]"""
    return [(part, _counts(as_dict(counts))) for part, counts in as_dict(manifest.get("data")).items()]


def timings(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """[("evaluate base", "12.9 s")]"""
    return [(phase.replace("_", " "), duration(seconds)) for phase, seconds in as_dict(manifest.get("timings")).items()]


def facts(manifest: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titles, each with names and values."""
    git = as_dict(manifest.get("git"))
    hashes = as_dict(manifest.get("hashes"))
    hardware = {
        key.removesuffix("_bytes").replace("_", " "): shown(value)
        if key.endswith("_bytes") and isinstance(value, int)
        else value
        for key, value in as_dict(manifest.get("hardware")).items()
    }
    digests = {
        **{key.replace("_", " "): value for key, value in hashes.items() if key != "data"},
        **as_dict(hashes.get("data")),
    }
    groups: list[tuple[str, Mapping[str, Any]]] = [
        ("Versions", as_dict(manifest.get("versions"))),
        ("SHA-256", digests),
        ("Hardware", hardware),
        ("Git", {"commit": git.get("commit"), "uncommitted changes": git.get("dirty")} if git else {}),
    ]
    splits = _splits(manifest)
    if splits:
        groups.insert(1, ("Splits", splits))
    return [(title, [(key, show(value)) for key, value in group.items()]) for title, group in groups]


def gate(manifest: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Why nothing was exported, or what the gate would have refused and was exported by force; empty where neither."""
    told = [event for event in events if event.get("event") in ("exported", "not_exported")]
    refused = bool(told) and told[-1].get("event") == "not_exported"
    forced = as_dict(manifest.get("export")).get("forced")
    return {
        "refused": str(told[-1].get("message", "")) if refused else "",
        "forced": str(forced) if forced and not refused else "",
    }


def export(run_dir: Path, recipe: Mapping[str, Any], unreadable: list[str]) -> dict[str, Any]:
    """The files of export/ with their sizes, the parity result as it was written, and the command for Ollama."""
    folder = run_dir / "export"
    files = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        parts = [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]
        if parts and not path.name.startswith("."):
            files.append((path.name + ("/" if path.is_dir() else ""), shown(sum(p.stat().st_size for p in parts))))
    name = as_dict(recipe.get("export")).get("ollama_name")
    has_modelfile = (folder / "Modelfile").is_file()
    # What did not pass is where it was made, beside the export.
    failed = mapping(run_dir, "export.unverified/parity.json", unreadable)
    parity = failed or mapping(run_dir, "export/parity.json", unreadable)
    return {
        "files": files,
        "parity": parity_text.rows(parity),
        "parity_heading": parity_text.HEADING,
        "parity_said": parity_text.sentences(parity),
        "parity_problems": parity_text.problems(parity),
        "parity_all": flat(parity) if parity else [],
        "command": shlex.join(["ollama", "create", str(name), "-f", "export/Modelfile"])
        if name and has_modelfile
        else "",
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


def _counts(counts: dict[str, Any]) -> str:
    """{"examples": 311, "label_distribution": {"a": 78}} → "311 examples; a: 78"."""
    parts = [f"{show(value)} {key.replace('_', ' ')}" for key, value in counts.items() if key != "label_distribution"]
    labels = as_dict(counts.get("label_distribution"))
    return "; ".join([*parts, ", ".join(f"{label}: {count}" for label, count in labels.items())]).removesuffix("; ")
