"""The types inside the files of a run's folder and of an evaluation's, by file name.

A key that a file lacks is missing, as in runs of earlier versions, and other keys are kept as they are. What a file says
under a key that Slimtune reads has the type that is here, or the file is refused where it is read.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from slimtune.core.results_schema import RESULT_FILES, Counts, Kept, Number


class _Model(Kept):
    base: str | None = None
    revision: str | None = None
    load_in_4bit: bool | None = None
    max_seq_length: Annotated[int, Field(ge=1)] | None = None
    thinking: bool | None = None


class _Source(Kept):
    path: str
    weight: Number | None = None


class _Data(Kept):
    train: list[_Source] | None = None
    eval: str | None = None
    system: str | None = None


class _Evaluate(Kept):
    data: str | None = None
    kind: str | None = None
    mode: str | None = None


class _Export(Kept):
    ollama_name: str | None = None


class _Recipe(Kept):
    name: str | None = None
    model: _Model | None = None
    data: _Data | None = None
    evaluate: _Evaluate | None = None
    export: _Export | None = None


class _Setting(Kept):
    value: Any
    reason: str | None = None


class _PlannedMemory(Kept):
    items: Counts | None = None
    phases: Counts | None = None
    total_bytes: int | None = None
    budget_bytes: int | None = None


class _Plan(Kept):
    settings: dict[str, _Setting] | None = None
    memory: _PlannedMemory | None = None
    notes: list[str] | None = None


class _Git(Kept):
    commit: str | None = None
    dirty: bool | None = None


class _Hardware(Kept):
    name: str | None = None
    memory_bytes: int | None = None


class _Hashes(Kept):
    data: dict[str, str] | None = None


class _DataFacts(Kept):
    examples: int | None = None
    tokens: int | None = None
    supervised_tokens: int | None = None
    label_distribution: Counts | None = None


class _Memory(Kept):
    predicted: Counts | None = None
    measured: Counts | None = None
    phases: dict[str, dict[str, int | None]] | None = None
    predicted_phases: Counts | None = None
    differences: list[str] | None = None


class _Exported(Kept):
    gguf: list[str] | None = None
    forced: str | None = None


class _Manifest(Kept):
    name: str | None = None
    run_id: str | None = None
    status: str | None = None
    complete: bool | None = None
    command: list[str] | None = None
    started: str | None = None
    finished: str | None = None
    git: _Git | None = None
    recipe_sources: dict[str, str] | None = None
    versions: dict[str, str | None] | None = None
    hardware: _Hardware | None = None
    hashes: _Hashes | None = None
    data_splits: list[dict[str, Any]] | None = None
    data: dict[str, _DataFacts] | None = None
    trainer: dict[str, Any] | None = None
    differences: list[str] | None = None
    timings: dict[str, Number] | None = None
    memory: _Memory | None = None
    export: _Exported | None = None


class _Segment(Kept):
    text: str
    supervised: bool


class _Preview(Kept):
    where: str
    segments: list[_Segment]


class _MaskAudit(Kept):
    rows: int | None = None
    batches: int | None = None
    tokens: int | None = None
    supervised_tokens: int | None = None
    supervised_share: Number | None = None
    refined_rows: int | None = None
    preview: list[_Preview] | None = None


class _Event(Kept):
    time: str | None = None
    event: str | None = None
    step: int | None = None
    message: str | None = None


class _Metric(Kept):
    """A loss may be NaN or infinite."""

    step: int
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None


_FILES: Mapping[str, type[Kept]] = {
    "manifest.json": _Manifest,
    "plan.json": _Plan,
    "recipe.yaml": _Recipe,
    "mask_audit.json": _MaskAudit,
    "events.jsonl": _Event,
    "metrics.jsonl": _Metric,
    **RESULT_FILES,
}


def faults(name: str, content: Any) -> list[str]:
    """What has another type than it should in a file of this name, or in a line of it: "memory.items: must be …"."""
    if name not in _FILES:
        return []
    try:
        _FILES[name].model_validate(content)
    except ValidationError as error:
        return list(dict.fromkeys(map(_told, error.errors(include_url=False))))
    return []


def _told(detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    said = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("should be", "must be")
    if detail["type"] == "missing":
        said = "is missing"
    given = "" if detail["type"] in ("missing", "value_error") else f", not {repr(detail.get('input'))[:60]}"
    return f"{place}: {said}{given}" if place else f"{said}{given}"
