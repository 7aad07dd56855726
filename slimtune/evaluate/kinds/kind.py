"""What a kind of evaluation has to say of itself. Each kind is one file in this folder; `kinds.KINDS` lists them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from slimtune.core.errors import Problem, fail
from slimtune.data.records import Message, Mode, as_dicts
from slimtune.evaluate.targets.target import Ability, Sampling, Target
from slimtune.recipe.names import KindName

Answer = dict[str, Any]
"""What a model answered to one item: a line of base.jsonl, tuned.jsonl or answers.jsonl."""
Answers = Sequence[Answer]
Figures = dict[str, Any]
"""What was counted of one model's answers: `base` and `tuned` of verdict.json, or figures.json."""
TableRow = tuple[str, ...]
"""A measure's name, and its value for each side."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to ask.

    prompt: the messages up to the assistant's turn. reference: the assistant's text in the file. choices: label to text
    in the order of the question; empty where it is not multiple choice. gold: the right label, or "".
    context: the excerpt that decides the question, or "". faults: why the row is no multiple-choice question, each with
    what to do; empty where it is one.
    """

    id: str
    prompt: tuple[Message, ...]
    reference: str
    choices: dict[str, str] = field(default_factory=dict, compare=False)
    gold: str = ""
    source: str = ""
    context: str = ""
    where: str = ""
    faults: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.choices)

    def as_json(self) -> dict[str, Any]:
        """The item as a line of items.jsonl."""
        return {
            "id": self.id,
            "where": self.where,
            "messages": as_dicts(self.prompt),
            "choices": self.choices,
            "gold": self.gold,
            "reference": self.reference,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Item:
        """The item of a line of items.jsonl. Raises SlimtuneError where it lacks a part."""
        if missing := [key for key in ("messages", "choices", "gold", "reference") if row.get(key) is None]:
            what = f"the item '{row['id']}' lacks {', '.join(missing)}"
            raise fail(what, where="items.jsonl", fix="put the file back as the run wrote it")
        prompt = tuple(Message(message["role"], message["content"]) for message in row["messages"])
        same = {name: row[name] for name in ("id", "choices", "gold", "reference")}
        return cls(prompt=prompt, where=row.get("where", ""), **same)


@dataclass(frozen=True)
class Settings:
    """How an evaluation is done; written into its record.

    permutations: orders of the choices per question. votes: replies per prompt in cot mode (self-consistency), drawn at
    `temperature` and `top_p`. max_new_tokens: of a reply in cot mode and for generation.
    by: "letters" reads the first token's probabilities; "text" generates a reply and reads the answer from it.
    """

    kind: KindName = "multiple_choice"
    mode: Mode = "direct"
    permutations: int = 1
    votes: int = 1
    temperature: float = 0.7
    top_p: float = 0.8
    max_new_tokens: int = 512
    seed: int = 42
    by: Literal["letters", "text"] = "letters"

    def sampling(self, max_new_tokens: int, *, replies: int = 1, stop_at_answer: bool = False) -> Sampling:
        """How replies are generated: several are drawn, a single one is greedy."""
        single = Sampling(max_new_tokens, seed=self.seed, stop_at_answer=stop_at_answer)
        if replies == 1:
            return single
        return replace(single, replies=replies, temperature=self.temperature, top_p=self.top_p)


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of one model that is a single number. It has a row in its kind's table where it is known.

    key: in the figures. name: in tables. of: the value; None where the answers do not tell it. show: for a person.
    """

    key: str
    name: str
    of: Callable[[Answers], float | None]
    show: Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Change:
    """What a contender's answers differ by from the reference's, item by item.

    values: contender minus reference, in the kind's unit, as totals over `sizes` (None: each item counts the same).
    right: (reference, contender) of each item that is right or wrong; empty where nothing is.
    """

    values: list[float]
    sizes: list[float] | None = None
    right: Sequence[tuple[bool, bool]] = ()


class Kind(ABC):
    """One kind of evaluation: how it is asked, what is counted, how two models are compared, and how that is told.

    noun: what one item is called. has_choices: items are asked in direct or cot mode. needed: fields that an answer must
    have. same: a field that must be equal in answers that are compared, what is wrong otherwise, and what to do.
    unit: of a difference. test: "exact McNemar" (on `Change.right`) or "Wilcoxon" (on its values). score: the figure
    that is compared; score_name: its name in a sentence. most_apart: how many items that differ are listed; None: all.
    """

    name: KindName
    noun: str
    has_choices = False
    needed: tuple[str, ...]
    same: tuple[str, str, str]
    metrics: tuple[Metric, ...]
    unit: str
    test: Literal["exact McNemar", "Wilcoxon"] = "Wilcoxon"
    higher_is_better = True
    score: str
    score_name: str
    most_apart: int | None = 50

    def check(self, item: Item) -> Problem | None:
        """Why an item of a held-out file cannot be asked."""
        return None

    def ability(self, settings: Settings) -> Ability:
        """What a target must be able to do."""
        return "generate"

    def room(self, settings: Settings) -> int:
        """Tokens that a reply may need after its prompt."""
        return settings.max_new_tokens

    @abstractmethod
    def ask(self, target: Target, batch: Sequence[Item], settings: Settings) -> list[Answer]:
        """What a target answers to each item, without what `asking` adds (id, source, where, kind, mode)."""

    def fault(self, answer: Answer) -> str:
        """How an answer with all needed fields contradicts itself; "" if it does not."""
        return ""

    def frame(self, answers: Answers, labels: Sequence[str] | None) -> dict[str, Any]:
        """What the items themselves say, the same for every model."""
        return {}

    @abstractmethod
    def figures(self, answers: Answers, labels: Sequence[str]) -> Figures:
        """The figures of one model that are not single numbers. labels: of the frame; else empty."""

    @abstractmethod
    def table(self, frame: dict[str, Any], sides: Sequence[Figures]) -> list[TableRow]:
        """The rows of a table, the score first. Figures of older versions may lack what was not counted then."""

    def metric_rows(self, sides: Sequence[Figures], metrics: Sequence[Metric] = ()) -> list[TableRow]:
        """A row for each metric, by default of all, that is known of one side or more."""
        rows: list[TableRow] = []
        for metric in metrics or self.metrics:
            values = [side.get(metric.key) for side in sides]
            if any(value is not None for value in values):
                shown = ("not recorded" if value is None else metric.show(value) for value in values)
                rows.append((metric.name, *shown))
        return rows

    def share(self, figures: Figures) -> tuple[str, float, list[float]] | None:
        """What is right: its name, the share (0 to 1) and its Wilson interval; None where nothing is right or wrong."""
        return None

    @abstractmethod
    def change(self, reference: Answers, contender: Answers) -> Change:
        """The contender's answers beside the reference's, item by item."""

    def judged(self, base: Answers, tuned: Answers, result: dict[str, Any]) -> dict[str, Any]:
        """What a verdict records beside the difference, such as `collapse`. result: what it holds so far."""
        return {}

    def failure(self, result: dict[str, Any]) -> tuple[str, str]:
        """The verdict of a tuned model that is not to be compared, and how it failed; ("", "") if it did not."""
        return "", ""

    def shown(self, figures: dict[str, Any], side: str = "") -> str:
        """The score, by default as the first metric shows it. figures: of one model, or with a side of a part of the items."""
        return self.metrics[0].show(figures[f"{side}_{self.score}" if side else self.score])

    def evidence(self, result: dict[str, Any]) -> list[str]:
        """What a verdict's sentence says beside the difference, its interval and its test."""
        return []

    def caveats(self, result: dict[str, Any]) -> list[str]:
        """What a reader of a verdict must know that it does not say."""
        return []

    @abstractmethod
    def spread(self, answers: Answers) -> float:
        """How far several models are apart on one item; 0 where they agree."""

    @abstractmethod
    def told(self, answer: Answer) -> dict[str, Any]:
        """An answer in a list of items on which models differ."""

    @abstractmethod
    def in_a_word(self, told: dict[str, Any]) -> str:
        """What `told` returned, as a table's cell."""

    def apart(self, count: int, n: int) -> str:
        """What the listed items are, as a heading."""
        return f"The {count} {self.noun}s on which they differ most, in {self.unit}"
