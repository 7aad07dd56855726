"""`slimtune compare`: reads or asks the contenders, compares them, and writes what a person and a colleague read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slimtune.core.console import Console
from slimtune.core.errors import fail
from slimtune.core.files import write_json, write_text
from slimtune.evaluate import evaluation
from slimtune.evaluate.asking import Settings
from slimtune.evaluate.evaluation import Request
from slimtune.evaluate.judge import compare as comparisons
from slimtune.evaluate.judge import comparison_text, pairwise
from slimtune.evaluate.judge.compare import Contender
from slimtune.evaluate.targets import opening, target_spec

# Columns of a table that a terminal holds.
_WIDEST = 3


def compare(
    places: Sequence[str],
    data: str | None,
    settings: Settings,
    *,
    max_items: int | None,
    judge: str | None,
    out: Path | None,
    console: Console,
) -> Path:
    """Compare results that are there, or with `data` the targets themselves; returns the folder of the comparison.

    judge: URL#MODEL of an OpenAI-compatible server that judges free answers against the first contender's, in both orders.
    Raises SlimtuneError for a place without results, and as `compare.compare` does.
    """
    found = comparisons.distinct([_contender(place, data, settings, max_items, console) for place in places])
    result = comparisons.compare(found)
    folder = out or Path("outputs") / "comparisons" / _name(found)
    folder.mkdir(parents=True, exist_ok=True)
    if judge is not None:
        result["judged"] = _judge(found, judge, folder, console)
    write_json(folder / "comparison.json", result)
    write_text(folder / "comparison.md", comparisons.as_markdown(result))
    write_text(folder / "comparison.html", comparisons.as_html(result))
    brief = len(found) > _WIDEST
    console.table(
        comparison_text.title(result), comparison_text.as_list(result) if brief else comparisons.as_rows(result)
    )
    for pair in comparison_text.against_reference(result):
        console.say(pair["sentence"])
    for one in result.get("judged", ()):
        console.say(pairwise.sentence(one))
    for note in result["notes"]:
        console.warn(note)
    console.paths([("page", folder / "comparison.html"), ("Markdown", folder / "comparison.md")])
    return folder


def _contender(place: str, data: str | None, settings: Settings, max_items: int | None, console: Console) -> Contender:
    """What is there; or with data what the target answers to it."""
    is_result = Path(place).suffix == ".jsonl" or (Path(place) / evaluation.RECORD).is_file()
    if data is None or is_result or place.endswith(":base"):
        return comparisons.read(Path(place))
    spec = target_spec.parse(place)
    request = Request(spec, settings, data=data, max_items=max_items, alone=True, train=())
    return replace(comparisons.read(evaluation.evaluate(request, console)), name=spec.slug)


def _judge(found: Sequence[Contender], judge: str, folder: Path, console: Console) -> list[dict[str, Any]]:
    spec = target_spec.parse(judge)
    if spec.kind != "api":
        raise fail("the judge is a model behind a URL", where="--judge", fix="http://localhost:11434/v1#MODEL")
    judged, (first, *others) = [], found
    with opening.open_target(spec, opening.Loading()) as opened:
        for second in others:
            console.step(f"{spec.model} judges {second.name} against {first.name}")
            path = folder / f"judgements-{_slug(second.name)}.jsonl"
            items = list((first.asked or second.asked).values())
            with console.bar("Judged") as advance:
                judged.append(pairwise.judge(first, second, items, opened.target, path, advance))
    return judged


def _name(found: Sequence[Contender]) -> str:
    return "-vs-".join(_slug(contender.name) for contender in found)[:120]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:40]
