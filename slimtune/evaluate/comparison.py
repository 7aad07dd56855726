"""`slimtune compare`: reads or asks the contenders, compares them, and writes the comparison."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slimtune.core.errors import fail
from slimtune.core.files import write_json, write_text
from slimtune.core.progress import OnProgress
from slimtune.evaluate import evaluation
from slimtune.evaluate.evaluation import Request
from slimtune.evaluate.judge import comparison_text, contenders, pairwise
from slimtune.evaluate.judge.compare import compare
from slimtune.evaluate.judge.contenders import Contender
from slimtune.evaluate.kinds.kind import Settings
from slimtune.evaluate.targets import opening


def write(
    places: Sequence[str],
    data: str | None,
    settings: Settings,
    *,
    max_items: int | None,
    judge: str | None,
    out: Path | None,
    on_progress: OnProgress,
) -> tuple[Path, dict[str, Any]]:
    """Compare results that exist, or with `data` ask the targets first; the folder with comparison.json and .md, and the result.

    judge: URL#MODEL of an OpenAI-compatible server that judges free answers against the first contender's.
    Raises SlimtuneError for a place without results, and as `compare` does.
    """
    found = contenders.distinct([_contender(place, data, settings, max_items, on_progress) for place in places])
    result = compare(found)
    folder = out or Path("outputs") / "comparisons" / "-vs-".join(_slug(contender.name) for contender in found)[:120]
    folder.mkdir(parents=True, exist_ok=True)
    if judge is not None:
        result["judged"] = _judge(found, judge, folder, on_progress)
    write_json(folder / "comparison.json", result)
    write_text(folder / "comparison.md", comparison_text.as_markdown(result))
    return folder, result


def _contender(
    place: str, data: str | None, settings: Settings, max_items: int | None, on_progress: OnProgress
) -> Contender:
    """The results at a place; with data, what the target answers to it."""
    is_result = Path(place).suffix == ".jsonl" or (Path(place) / evaluation.RECORD).is_file()
    if data is None or is_result or place.endswith(":base"):
        return contenders.read(Path(place))
    spec = opening.spec_of(place)
    request = Request(spec, settings, data=data, max_items=max_items, alone=True, train=())
    return replace(contenders.read(evaluation.evaluate(request, on_progress)), name=spec.slug)


def _judge(found: Sequence[Contender], judge: str, folder: Path, on_progress: OnProgress) -> list[dict[str, Any]]:
    spec = opening.spec_of(judge)
    if spec.kind != "api":
        raise fail("the judge must be a model behind a URL", where="--judge", fix="http://localhost:11434/v1#MODEL")
    judged, (first, *others) = [], found
    with opening.open_target(spec, opening.Loading()) as opened:
        for second in others:
            on_progress.step(f"{spec.model} judges {second.name} against {first.name}")
            path = folder / f"judgements-{_slug(second.name)}.jsonl"
            items = list((first.asked or second.asked).values())
            with on_progress.bar("Judged") as advance:
                judged.append(pairwise.judge(first, second, items, opened.target, path, advance))
    return judged


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:40]
