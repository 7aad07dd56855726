"""The types inside the files of a run's folder and of an evaluation's, by file name.

A key that a file lacks is missing, as in runs of earlier versions, and other keys are kept as they are. What a file says
under a key that Slimtune reads has the type that is here, or the file is refused where it is read.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[list[Number], Field(min_length=2, max_length=2)]
Counts = dict[str, int]


class _Stored(BaseModel):
    """Strict: "1" is no number and 1 no text."""

    model_config = ConfigDict(extra="allow", strict=True)


# ---- the run ---------------------------------------------------------------------------------------------------------


class _Model(_Stored):
    base: str | None = None
    revision: str | None = None
    load_in_4bit: bool | None = None
    max_seq_length: Annotated[int, Field(ge=1)] | None = None
    thinking: bool | None = None


class _Source(_Stored):
    path: str
    weight: Number | None = None


class _Data(_Stored):
    train: list[_Source] | None = None
    eval: str | None = None
    system: str | None = None


class _Evaluate(_Stored):
    data: str | None = None
    kind: str | None = None
    mode: str | None = None


class _Export(_Stored):
    ollama_name: str | None = None


class Recipe(_Stored):
    name: str | None = None
    model: _Model | None = None
    data: _Data | None = None
    evaluate: _Evaluate | None = None
    export: _Export | None = None


class _Setting(_Stored):
    value: Any
    reason: str | None = None


class _PlannedMemory(_Stored):
    items: Counts | None = None
    phases: Counts | None = None
    total_bytes: int | None = None
    budget_bytes: int | None = None


class Plan(_Stored):
    settings: dict[str, _Setting] | None = None
    memory: _PlannedMemory | None = None
    notes: list[str] | None = None


class _Git(_Stored):
    commit: str | None = None
    dirty: bool | None = None


class _Hardware(_Stored):
    name: str | None = None
    memory_bytes: int | None = None


class _Hashes(_Stored):
    data: dict[str, str] | None = None


class _DataFacts(_Stored):
    examples: int | None = None
    tokens: int | None = None
    supervised_tokens: int | None = None
    label_distribution: Counts | None = None


class _Memory(_Stored):
    predicted: Counts | None = None
    measured: Counts | None = None
    phases: dict[str, dict[str, int | None]] | None = None
    predicted_phases: Counts | None = None
    differences: list[str] | None = None


class _Exported(_Stored):
    gguf: list[str] | None = None
    forced: str | None = None


class Manifest(_Stored):
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


class _Segment(_Stored):
    text: str
    supervised: bool


class _Preview(_Stored):
    where: str
    segments: list[_Segment]


class MaskAudit(_Stored):
    rows: int | None = None
    batches: int | None = None
    tokens: int | None = None
    supervised_tokens: int | None = None
    supervised_share: Number | None = None
    refined_rows: int | None = None
    preview: list[_Preview] | None = None


class Event(_Stored):
    time: str | None = None
    event: str | None = None
    step: int | None = None
    message: str | None = None


class Metric(_Stored):
    """A loss may be NaN or infinite."""

    step: int
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None


# ---- its evaluation --------------------------------------------------------------------------------------------------


class _Bin(_Stored):
    n: int
    confidence: Number | None = None
    accuracy: Number | None = None
    low: Number
    high: Number


class _Commonest(_Stored):
    count: int


class Figures(_Stored):
    """Of one model; which of them there are depends on the kind."""

    kind: str | None = None
    n: int | None = None
    labels: list[str] | None = None
    gold: Counts | None = None
    accuracy: Share | None = None
    interval: Interval | None = None
    correct: int | None = None
    histogram: Counts | None = None
    unanswered: int | None = None
    statuses: Counts | None = None
    calibration: list[_Bin] | None = None
    calibration_error: Number | None = None
    brier: Number | None = None
    perplexity: Number | None = None
    nats_per_token: Number | None = None
    tokens: int | None = None
    chrf: Number | None = None
    corpus_chrf: Number | None = None
    bleu: Number | None = None
    exact: Share | None = None
    exact_interval: Interval | None = None
    commonest: _Commonest | None = None
    unusable: int | None = None


class _Majority(_Stored):
    label: str
    share: Share


class _McNemar(_Stored):
    gained: int
    lost: int
    p_value: Share | None = None


class _Part(_Stored):
    n: int
    p_value: Share | None = None


class _Contaminated(_Stored):
    items: int | None = None
    by_kind: Counts | None = None
    shared_context: int | None = None
    clean: _Part | None = None
    contaminated: _Part | None = None


class Verdict(_Stored):
    kind: str | None = None
    verdict: str | None = None
    sentence: str | None = None
    n: Annotated[int, Field(ge=0)] | None = None
    labels: list[str] | None = None
    gold: Counts | None = None
    majority: _Majority | None = None
    base: Figures | None = None
    tuned: Figures | None = None
    mcnemar: _McNemar | None = None
    p_value: Share | None = None
    alpha: Share | None = None
    difference: Number | None = None
    difference_points: Number | None = None
    difference_unit: str | None = None
    difference_interval: Interval | None = None
    contamination: _Contaminated | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Verdict":
        for side in (self.base, self.tuned):
            for counts in (self.gold, side.histogram if side else None):
                if counts is not None and (missing := [label for label in self.labels or () if label not in counts]):
                    raise ValueError(f"there is no count of the label '{missing[0]}'")
        if (self.base is None) != (self.tuned is None):
            raise ValueError("it has one of base and tuned only")
        return self


class _Match(_Stored):
    id: str
    kind: str
    similarity: Number | None = None


class _Rows(_Stored):
    path: str | None = None
    rows: int | None = None


class _Checked(_Stored):
    train: list[_Rows] | None = None
    test: int | None = None


class Contamination(_Stored):
    checked: _Checked | None = None
    threshold: Number | None = None
    items: list[_Match] | None = None


class _Target(_Stored):
    name: str | None = None


class Evaluation(_Stored):
    complete: bool | None = None
    target: _Target | None = None


class Order(_Stored):
    order: str | None = None


class Answer(_Stored):
    id: str
    kind: str | None = None
    mode: str | None = None
    source: str | None = None
    where: str | None = None
    prompt_sha256: str | None = None
    gold: str | None = None
    predicted: str | None = None
    correct: bool | None = None
    status: str | None = None
    text: str | None = None
    reference: str | None = None
    logprobs: dict[str, float] | None = None
    label_mass: float | None = None
    permutations: list[Order] | None = None
    chrf: Number | None = None
    exact: bool | None = None
    nll: float | None = None
    tokens: int | None = None


class _Round(_Stored):
    winner: str | None = None
    rationale: str | None = None
    shown_first: str


class Judgement(_Stored):
    """Of two replies, by a model."""

    id: str
    sha256: str
    verdict: str
    rounds: list[_Round]
    question: str | None = None
    first: str | None = None
    second: str | None = None


class _Reply(_Stored):
    text: str
    truncated: bool
    error: str | None


class Taught(_Stored):
    """Of a teacher."""

    id: str
    prompt_sha256: str
    replies: Annotated[list[_Reply], Field(min_length=1)]


class _Message(_Stored):
    role: str
    content: str


class Item(_Stored):
    id: str
    where: str | None = None
    messages: list[_Message] | None = None
    choices: dict[str, str] | None = None
    gold: str | None = None
    reference: str | None = None


class Sample(_Stored):
    where: str | None = None
    reference: str | None = None
    base: str | None = None
    tuned: str | None = None


# ---- its export ------------------------------------------------------------------------------------------------------


class _Apart(_Stored):
    mean: Number
    max: Number | None = None


class _Merged(_Stored):
    letters: _Apart | None = None
    nll_per_token: _Apart | None = None


class _Rendering(_Stored):
    conversations: int | None = None
    think: Counts | None = None
    ids_equal: int | None = None


class _Checks(_Stored):
    kl_mean: Number | None = None


class Parity(_Stored):
    passed: bool | None = None
    files: dict[str, _Checks] | None = None
    merged: _Merged | None = None
    rendering: _Rendering | None = None
    problems: list[str] | None = None


_FILES: Mapping[str, type[_Stored]] = {
    "manifest.json": Manifest,
    "plan.json": Plan,
    "recipe.yaml": Recipe,
    "mask_audit.json": MaskAudit,
    "verdict.json": Verdict,
    "figures.json": Figures,
    "contamination.json": Contamination,
    "evaluation.json": Evaluation,
    "parity.json": Parity,
    "events.jsonl": Event,
    "metrics.jsonl": Metric,
    "base.jsonl": Answer,
    "tuned.jsonl": Answer,
    "answers.jsonl": Answer,
    "items.jsonl": Item,
    "samples.jsonl": Sample,
    "judgements.jsonl": Judgement,
    "replies.jsonl": Taught,
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
