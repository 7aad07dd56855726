"""Usual ranges of settings for so much data, each with its source. They never change a plan. No torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from slimtune.data.records import Conversation
from slimtune.models.shapes import ModelShape
from slimtune.plan.request import PlanRequest

Task = Literal["direct", "cot", "code", "chat", "mixed"]
"""direct: a letter or a word at once. cot: an argument, then the answer. mixed: several of these."""


@dataclass(frozen=True, slots=True)
class Citation:
    """short: how a line names it. title, where: what to look it up by (an arXiv id or an address)."""

    short: str
    title: str
    where: str


QLORA = Citation("QLoRA", "QLoRA: Efficient Finetuning of Quantized LLMs", "arXiv:2305.14314")
UNSLOTH = Citation(
    "Unsloth's guide",
    "LoRA fine-tuning Hyperparameters Guide",
    "https://unsloth.ai/docs/get-started/fine-tuning-llms-guide/lora-hyperparameters-guide",
)
REGRET = Citation("LoRA Without Regret", "LoRA Without Regret", "https://thinkingmachines.ai/blog/lora/")
TINKER = Citation("Tinker's LoRA primer", "LoRA Primer", "https://tinker-docs.thinkingmachines.ai/tinker/lora-primer/")
OPENAI = Citation("OpenAI's guide", "Supervised fine-tuning", "https://developers.openai.com/docs/guides/distillation")
STATUTES = Citation(
    "statutes-rags-FT",
    "A published attempt at 140 four-choice questions on Japanese law",
    "https://github.com/12080718/statutes-rags-FT",
)


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What suggestions are drawn from.

    rows: training examples, as often as their weights say. supervised_tokens: of all of them, once. parameters: of the
    model; adapter_parameters: of LoRA at `rank`. passes: how often the run reads the examples that it reads most. batch:
    examples of a step.
    """

    rows: int
    supervised_tokens: int
    task: Task
    parameters: int
    adapter_parameters: int
    rank: int
    learning_rate: float
    passes: float
    batch: int
    steps: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A value beside its usual range ("5e-6 to 2e-4"), and what speaks for the range, without a full stop."""

    name: str
    value: float
    usual: str
    inside: bool
    because: str
    sources: tuple[Citation, ...]

    def __str__(self) -> str:
        cited = "; ".join(f"{source.short}, {source.where}" for source in self.sources)
        return f"{self.name} {number(self.value)}, usual is {self.usual}. {self.because} [{cited}]"


# In QLoRA's experiments models of 7 and 13 billion parameters were trained at 2e-4, those of 33 and 65 at 1e-4.
_LARGE = 14e9
# The sources speak of models of about a billion parameters and more. Half a billion is close enough, a million is not.
_SMALLEST = 0.4e9
_FEW = 200
"""Direct answers: not many more than the published attempt's 140."""
_COLLAPSED_PASSES, _COLLAPSED_RATE = 3, 2e-4
"""Of that attempt: Qwen3-8B in 4 bit, LoRA rank 16, with the prompt in the loss."""

_NOUNS: dict[Task, str] = {
    "direct": "direct answers",
    "cot": "argued answers",
    "code": "answers with code",
    "chat": "answers in prose",
    "mixed": "answers of several kinds",
}
_SHORT = 8


def suggest(facts: PlanFacts) -> tuple[Suggestion, ...]:
    """The usual range of each setting for which there is a source."""
    rows, passes, batch = facts.rows, facts.passes, facts.batch
    because = "Models improve visibly from 50 to 100 good examples"
    found = [Suggestion("examples", rows, "50 or more", rows >= 50, because, (OPENAI,))]
    because = "Further passes add little, and the model begins to memorise the examples"
    if passes < 1:
        because = "Some examples are never read"
    found.append(Suggestion("passes over the data", passes, "1 to 3", 1 <= passes <= 3, because, (UNSLOTH,)))
    if facts.parameters < _SMALLEST:
        return tuple(found)
    if facts.task == "direct" and rows <= _FEW:
        found.append(_collapse(facts))
    found += [_learning_rate(facts), _rank(facts)]
    because = "LoRA loses more than full fine-tuning from large batches, whatever its rank"
    found.append(Suggestion("examples a step", batch, "fewer than 32", batch < 32, because, (REGRET,)))
    return tuple(found)


def lines(facts: PlanFacts, suggestions: Sequence[Suggestion]) -> list[str]:
    """What to print: whether all values are usual, a line for each that is not, and one line for the others."""
    inside, outside = ([one for one in suggestions if one.inside is wanted] for wanted in (True, False))
    place = "partly outside" if outside else "in"
    said = [
        f"Your settings are {place} the usual range for {facts.rows:,} {_NOUNS[facts.task]} "
        f"({facts.supervised_tokens:,} supervised tokens, {facts.steps:,} steps)"
    ]
    said += [f"unusual: {one}" for one in outside]
    if inside:
        values = "; ".join(f"{one.name} {number(one.value)} ({one.usual})" for one in inside)
        sources = dict.fromkeys(source.short for one in inside for source in one.sources)
        said.append(f"usual: {values} [{'; '.join(sources)}]")
    if facts.parameters < _SMALLEST:
        said.append("learning rate, rank, batch: the published ranges are for far larger models")
    return said


def number(value: float) -> str:
    """2e-4, 1.5, 43,646,976."""
    if 0 < value < 0.01:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.0f}" if value == round(value) else f"{value:.2g}"


def task_of(conversation: Conversation) -> Task:
    """What one example teaches: its `meta.mode`, or what its last answer looks like."""
    mode = conversation.meta.get("mode")
    if mode in ("direct", "cot"):
        return cast(Task, mode)
    answer = conversation.messages[-1].content
    if conversation.messages[-1].tool_calls:
        return "chat"
    if "```" in answer:
        return "code"
    return "direct" if len(answer.strip()) <= _SHORT else "chat"


def task_of_all(counts: Mapping[Task, int]) -> Task:
    """The task of nine in ten examples, or "mixed". counts: examples of each task, one at least."""
    task = max(counts, key=lambda one: counts[one])
    return task if counts[task] >= 0.9 * sum(counts.values()) else "mixed"


def facts_of(
    request: PlanRequest,
    tasks: Mapping[Task, int],
    supervised_tokens: int,
    shape: ModelShape,
    *,
    rank: int | None = None,
    steps: int | None = None,
) -> PlanFacts:
    """The facts of a request and its training data. rank, steps: of the plan where there is one.
    tasks: examples of each task, as often as their weights say."""
    train, rows = request.train, sum(tasks.values())
    rank = rank or request.lora.rank
    epochs = train.epochs if train.max_steps is None else train.max_steps * train.effective_batch_size / rows
    return PlanFacts(
        rows=rows,
        supervised_tokens=supervised_tokens,
        task=task_of_all(tasks),
        parameters=shape.total_parameters,
        adapter_parameters=shape.lora_parameters(rank, request.targets(shape)),
        rank=rank,
        learning_rate=train.learning_rate,
        passes=epochs * max(1.0, request.repeats),
        batch=train.effective_batch_size,
        steps=steps or math.ceil(epochs * rows / train.effective_batch_size),
    )


def _collapse(facts: PlanFacts) -> Suggestion:
    """Passes and rate are weighed against each other as if half the rate allowed twice the passes: a rule of thumb."""
    limit = _COLLAPSED_PASSES * _COLLAPSED_RATE / facts.learning_rate
    because = (
        f"With so few letters to learn from, expect collapse into one of them from there on: 140 questions read "
        f"{_COLLAPSED_PASSES} times at {number(_COLLAPSED_RATE)}, the prompt in the loss too, left a model that answered "
        "'a' to 100 of them"
    )
    # As rounding may have it, 3 * 2e-4 / 2e-4 is more than 3.
    inside = facts.passes < limit and not math.isclose(facts.passes, limit)
    name = f"passes at {number(facts.learning_rate)}:"
    return Suggestion(name, facts.passes, f"fewer than {number(limit)}", inside, because, (STATUTES,))


def _learning_rate(facts: PlanFacts) -> Suggestion:
    rate, large = facts.learning_rate, facts.parameters > _LARGE
    high = 1e-4 if large else 2e-4
    because = f"Models {'above' if large else 'up to'} 13 billion parameters were trained at {number(high)}; "
    because += "higher rates can make training unstable"
    sources = (QLORA, UNSLOTH)
    if rate < 5e-6:
        because, sources = "LoRA's best rate is about ten times that of full fine-tuning", (UNSLOTH, REGRET)
    return Suggestion("learning rate", rate, f"5e-6 to {number(high)}", 5e-6 <= rate <= high, because, sources)


def _rank(facts: PlanFacts) -> Suggestion:
    needed = math.ceil(facts.rank * facts.supervised_tokens / facts.adapter_parameters)
    if needed > facts.rank:
        because = f"The adapter's {facts.adapter_parameters:,} parameters should not be fewer than the answers' "
        because += f"{facts.supervised_tokens:,} tokens"
        return Suggestion("rank", facts.rank, f"{needed:,} or more", False, because, (TINKER,))
    because = "16 or 32 is the common choice"
    return Suggestion("rank", facts.rank, "8 to 128", 8 <= facts.rank <= 128, because, (UNSLOTH,))
