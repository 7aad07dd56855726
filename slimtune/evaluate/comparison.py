"""`slimtune compare`: reads or asks the contenders, compares them, and writes the comparison."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import Gathered, Problem, fail
from slimtune.core.progress import OnProgress
from slimtune.core.run_folder import as_dict, as_list
from slimtune.evaluate import evaluation, kinds, results_folder
from slimtune.evaluate.evaluation import Request
from slimtune.evaluate.judge import comparison_text, contenders, pairwise
from slimtune.evaluate.judge.compare import compare, require_several
from slimtune.evaluate.judge.contenders import Contender
from slimtune.evaluate.kinds.kind import Settings
from slimtune.evaluate.results_folder import Results
from slimtune.evaluate.targets import opening
from slimtune.evaluate.targets.opening import Spec

RECORD = "comparison.json"
_PAGES = ("comparison.md", "comparison.html")


def _is_ours(content: Mapping[str, Any]) -> bool:
    """Whether this is a comparison, or the record of one that has only begun."""
    earlier = all(isinstance(content.get(key), list) for key in ("contenders", "pairs", "flips"))
    return content.get("made_by") == "slimtune" or earlier


def _names(content: Mapping[str, Any]) -> list[str]:
    judged = as_list(content.get("judged"))
    return [*_PAGES, *_judgements([str(as_dict(one).get("second")) for one in judged])]


FOLDER = results_folder.FolderKind(RECORD, _is_ours, _names)


def write(
    places: Sequence[str],
    data: str | None,
    settings: Settings,
    *,
    max_items: int | None,
    judge: str | None,
    out: Path | None,
    as_html: Callable[[dict[str, Any]], str],
    on_progress: OnProgress,
) -> tuple[Path, dict[str, Any]]:
    """Compare results that exist, or with `data` ask the targets first; the folder with comparison.json, .md and .html, and
    the result.

    judge: URL#MODEL of an OpenAI-compatible server that judges free answers against the first contender's. as_html: the
    page of a result. Raises SlimtuneError for a place without results, a folder that is not ours, and as `compare` does.
    """
    judging = _judge_spec(judge)
    requests = [None if data is None else _request(place, data, settings, max_items) for place in places]
    known = contenders.distinct(
        [
            contenders.read(Path(place)) if request is None else Contender(request.spec.slug, (), place=place)
            for place, request in zip(places, requests, strict=True)
        ]
    )
    require_several(known)
    folder = out or Path("outputs") / "comparisons" / "-vs-".join(_slug(one.name) for one in known)[:120]
    judgements = _judgements([one.name for one in known[1:]]) if judging else []
    results = Results.look(folder, FOLDER, [*_PAGES, *judgements], reads=_reads(places, data))
    prepared = _prepare(known, requests, judging)
    found = [
        replace(contenders.read(evaluation.ask(asked, on_progress)), name=one.name) if asked else one
        for one, asked in zip(known, prepared, strict=True)
    ]
    result = compare(found)
    if not results.content:
        results.begin({"made_by": "slimtune"})
    if judging:
        result["judged"] = _judge(found, judging, judgements, results, on_progress)
    pages = {"comparison.md": comparison_text.as_markdown(result), "comparison.html": as_html(result)}
    for name, text in pages.items():
        results.write_text(name, text)
    results.keep({"made_by": "slimtune", **result})
    return results.folder, result


def _prepare(
    known: Sequence[Contender], requests: Sequence[Request | None], judging: Spec | None
) -> list[evaluation.Questionnaire | None]:
    """What is asked of each contender, None of results that exist.

    Raises SlimtuneError with all that would end the comparison after hours of asking: questions that cannot be asked,
    results of another kind or of other items, and a judge that has nothing to judge or does not answer.
    """
    prepared: list[evaluation.Questionnaire | None] = []
    found = Gathered()
    for request in requests:
        ready = None
        with found:
            ready = evaluation.prepare(request) if request else None
        prepared.append(ready)
    if asked := next((one for one in prepared if one), None):
        kind, ids = asked.request.settings.kind, {item.id for item in asked.items}
        for one in (one for one in known if one.answers):
            if (other := kinds.name_of(one.answers[0])) != kind:
                what = f"these are answers of kind {other}, and the others are asked for {kind}"
                found.add([Problem(what, one.place, f"ask for --kind {other}")])
            elif ids.isdisjoint(str(answer.get("id")) for answer in one.answers):
                what = "none of these answers is to a question of --data"
                found.add([Problem(what, one.place, "compare evaluations of one file")])
        if judging and kind != "generation":
            what = f"a judge compares free answers, and kind {kind} is asked"
            found.add([Problem(what, "--judge", "leave it out, or ask with --kind generation")])
    found.require_none()
    if asked and judging:
        with opening.open_target(judging, opening.Loading()):
            pass  # it answers
    return prepared


def _request(place: str, data: str, settings: Settings, max_items: int | None) -> Request | None:
    """How to ask the target at a place; None for results that exist."""
    is_result = Path(place).suffix == ".jsonl" or inputs.is_file(Path(place) / evaluation.RECORD)
    if is_result or place.endswith(":base"):
        return None
    return Request(opening.spec_of(place), settings, data=data, max_items=max_items, alone=True, train=())


def _reads(places: Sequence[str], data: str | None) -> list[str]:
    """The files that are read. Of a folder of results, its own record keeps this command away."""
    return [*(place for place in places if inputs.is_file(place)), *([data] if data else [])]


def _judge_spec(judge: str | None) -> Spec | None:
    spec = opening.spec_of(judge) if judge is not None else None
    if spec is not None and spec.kind != "api":
        raise fail(
            "the judge must be a model behind a URL", where="--judge", fix="write http://localhost:11434/v1#MODEL"
        )
    return spec


def _judge(
    found: Sequence[Contender], spec: Spec, names: Sequence[str], results: Results, on_progress: OnProgress
) -> list[dict[str, Any]]:
    """The judgements on each contender but the first. names: of their files."""
    judged, (first, *others) = [], found
    with opening.open_target(spec, opening.Loading()) as opened:
        for second, name in zip(others, names, strict=True):
            on_progress.step(f"{spec.model} judges {second.name} against {first.name}")
            path = results.path(name)
            items = list((first.asked or second.asked).values())
            with on_progress.bar("Judged") as advance:
                judged.append(pairwise.judge(first, second, items, opened.target, path, advance))
    return judged


def _judgements(names: Sequence[str]) -> list[str]:
    """The files of the judgements on contenders; where two names become the same, all are numbered."""
    slugs = [_slug(name) for name in names]
    if len(set(slugs)) < len(slugs):
        slugs = [f"{slug}-{number}" for number, slug in enumerate(slugs, 1)]
    return [f"judgements-{slug}.jsonl" for slug in slugs]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:40]
