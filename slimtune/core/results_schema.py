"""The types inside the files of an evaluation and of an export, by file name; `run_schema` reads files with them."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Number = Annotated[float, Field(allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
LogProbability = Annotated[float, Field(le=1)]
"""-Infinity is the logarithm of 0; NaN is refused. Rounding may lift one over 0."""
Counts = dict[str, int]
_Interval = Annotated[list[Number], Field(min_length=2, max_length=2)]


class Kept(BaseModel):
    """Strict: "1" is no number and 1 no text. Other keys than these are kept."""

    model_config = ConfigDict(extra="allow", strict=True)


# ---- its evaluation --------------------------------------------------------------------------------------------------


class _Bin(Kept):
    n: int
    confidence: Number | None = None
    accuracy: Number | None = None
    low: Number
    high: Number


class _Commonest(Kept):
    count: int


class _Majority(Kept):
    label: str
    share: Probability


class _Figures(Kept):
    """Of one model; which of them there are depends on the kind."""

    kind: str | None = None
    n: int | None = None
    labels: list[str] | None = None
    gold: Counts | None = None
    majority: _Majority | None = None
    accuracy: Probability | None = None
    interval: _Interval | None = None
    correct: int | None = None
    histogram: Counts | None = None
    unanswered: int | None = None
    statuses: Counts | None = None
    calibration: list[_Bin] | None = None
    calibration_error: Number | None = None
    brier: Number | None = None
    label_mass: Number | None = None
    greedy_agreement: Number | None = None
    position_bias: Number | None = None
    perplexity: Number | None = None
    nats_per_token: Number | None = None
    tokens: int | None = None
    chrf: Number | None = None
    corpus_chrf: Number | None = None
    bleu: Number | None = None
    exact: Probability | None = None
    exact_interval: _Interval | None = None
    commonest: _Commonest | None = None
    unusable: int | None = None


class _McNemar(Kept):
    gained: int
    lost: int
    p_value: Probability | None = None


class _Part(Kept):
    n: int
    p_value: Probability | None = None


class _Contaminated(Kept):
    items: int | None = None
    by_kind: Counts | None = None
    shared_context: int | None = None
    clean: _Part | None = None
    contaminated: _Part | None = None


class _Verdict(Kept):
    kind: str | None = None
    verdict: str | None = None
    sentence: str | None = None
    n: Annotated[int, Field(ge=0)] | None = None
    labels: list[str] | None = None
    gold: Counts | None = None
    majority: _Majority | None = None
    base: _Figures | None = None
    tuned: _Figures | None = None
    mcnemar: _McNemar | None = None
    p_value: Probability | None = None
    alpha: Probability | None = None
    difference: Number | None = None
    difference_points: Number | None = None
    difference_unit: str | None = None
    difference_interval: _Interval | None = None
    contamination: _Contaminated | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "_Verdict":
        if (self.base is None) != (self.tuned is None):
            raise ValueError("it has one of base and tuned only")
        if self.base is not None and self.tuned is not None:
            _require_whole(self, (self.base, self.tuned))
        return self


class _OneModel(_Figures):
    @model_validator(mode="after")
    def _is_whole(self) -> "_OneModel":
        _require_whole(self, (self,))
        return self


_NEEDED = {
    "multiple_choice": (("n", "labels", "gold", "majority"), ("accuracy", "correct", "histogram", "unanswered")),
    "perplexity": (("n",), ("perplexity", "tokens")),
    "generation": (("n",), ("chrf", "exact", "exact_interval", "correct", "commonest", "unusable")),
}
"""What a table of figures shows: of the items, and of each model."""


def _require_whole(frame: "_Verdict | _OneModel", sides: tuple[_Figures, ...]) -> None:
    """Raise ValueError where figures lack what their table shows."""
    shared, own = _NEEDED.get(frame.kind or "multiple_choice", _NEEDED["multiple_choice"])
    pairs = [(frame, key) for key in shared] + [(side, key) for side in sides for key in own]
    if missing := [key for part, key in pairs if getattr(part, key) is None]:
        raise ValueError(f"'{missing[0]}' is missing")
    for counts in (frame.gold, *(side.histogram for side in sides)):
        if counts is not None and (unknown := [label for label in frame.labels or () if label not in counts]):
            raise ValueError(f"there is no count of the label '{unknown[0]}'")


class _Match(Kept):
    id: str
    kind: str
    similarity: Number | None = None


class _Rows(Kept):
    path: str | None = None
    rows: int | None = None


class _Checked(Kept):
    train: list[_Rows] | None = None
    test: int | None = None


class _Contamination(Kept):
    checked: _Checked | None = None
    threshold: Number | None = None
    items: list[_Match] | None = None


class _Target(Kept):
    name: str | None = None


class _Evaluation(Kept):
    complete: bool | None = None
    target: _Target | None = None


class _Order(Kept):
    order: str | None = None
    gold: str
    predicted: str | None


class _Answer(Kept):
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
    logprobs: dict[str, LogProbability] | None = None
    label_mass: Number | None = None
    permutations: list[_Order] | None = None
    chrf: Number | None = None
    exact: bool | None = None
    nll: Number | None = None
    tokens: int | None = None


class _Round(Kept):
    winner: str | None = None
    rationale: str | None = None
    shown_first: str


class _Judgement(Kept):
    """Of two replies, by a model."""

    id: str
    sha256: str
    verdict: str
    rounds: list[_Round]
    question: str | None = None
    first: str | None = None
    second: str | None = None


class _Reply(Kept):
    text: str
    truncated: bool
    error: str | None


class _Taught(Kept):
    """Of a teacher."""

    id: str
    prompt_sha256: str
    replies: Annotated[list[_Reply], Field(min_length=1)]


class _Message(Kept):
    role: str
    content: str


class _Item(Kept):
    id: str
    where: str | None = None
    messages: list[_Message] | None = None
    choices: dict[str, str] | None = None
    gold: str | None = None
    reference: str | None = None


class _Sample(Kept):
    where: str | None = None
    reference: str | None = None
    base: str | None = None
    tuned: str | None = None


# ---- its export ------------------------------------------------------------------------------------------------------


class _Apart(Kept):
    mean: Number
    max: Number | None = None


class _Merged(Kept):
    letters: _Apart | None = None
    nll_per_token: _Apart | None = None


class _Rendering(Kept):
    conversations: int | None = None
    think: Counts | None = None
    ids_equal: int | None = None


class _Checks(Kept):
    kl_mean: Number | None = None


class _Parity(Kept):
    passed: bool | None = None
    files: dict[str, _Checks] | None = None
    merged: _Merged | None = None
    rendering: _Rendering | None = None
    problems: list[str] | None = None


RESULT_FILES: Mapping[str, type[Kept]] = {
    "verdict.json": _Verdict,
    "figures.json": _OneModel,
    "contamination.json": _Contamination,
    "evaluation.json": _Evaluation,
    "parity.json": _Parity,
    "base.jsonl": _Answer,
    "tuned.jsonl": _Answer,
    "answers.jsonl": _Answer,
    "items.jsonl": _Item,
    "samples.jsonl": _Sample,
    "judgements.jsonl": _Judgement,
    "replies.jsonl": _Taught,
}
