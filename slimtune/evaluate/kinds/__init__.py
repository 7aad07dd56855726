"""The kinds of evaluation. A new one is a file here, a row in `KINDS`, and its name in `recipe.names.KindName`."""

from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.core.errors import fail
from slimtune.evaluate.kinds.generation import Generation
from slimtune.evaluate.kinds.kind import Answers, Figures, Kind, Settings, TableRow
from slimtune.evaluate.kinds.multiple_choice import MultipleChoice
from slimtune.evaluate.kinds.perplexity import Perplexity

KINDS: dict[str, Kind] = {kind.name: kind for kind in (MultipleChoice(), Perplexity(), Generation())}


def named(name: str) -> Kind:
    """Raises SlimtuneError for a kind that is not known."""
    if name not in KINDS:
        raise fail(f"unknown kind '{name}'", fix=f"use one of {', '.join(KINDS)}")
    return KINDS[name]


def name_of(record: Mapping[str, Any]) -> str:
    """The kind of an answer, of figures or of a verdict; those of older versions without one are multiple choice."""
    return str(record.get("kind", "multiple_choice"))


def of(record: Mapping[str, Any]) -> Kind:
    """Raises SlimtuneError as `named` does."""
    return named(name_of(record))


def by_letters(settings: Settings) -> bool:
    """Whether answers are read from the first token's probabilities, and nothing is generated."""
    return named(settings.kind).ability(settings) == "score"


def measure(answers: Answers, *, labels: Sequence[str] | None = None) -> Figures:
    """`kind`, `n`, what the items say (see `Kind.frame`), and the `figures`.

    labels: the possible answers in their order; by default all that occur. Raises SlimtuneError if there are no answers.
    """
    if not answers:
        raise fail("no items to measure", fix="evaluate the model on the test questions first")
    kind = of(answers[0])
    frame = kind.frame(answers, labels)
    return {"kind": kind.name, "n": len(answers), **frame, **figures(answers, frame.get("labels", []))}


def figures(answers: Answers, labels: Sequence[str]) -> Figures:
    """What was counted of one model's answers, and its metrics."""
    kind = of(answers[0])
    return {**kind.figures(answers, labels), **{metric.key: metric.of(answers) for metric in kind.metrics}}


def table(record: dict[str, Any]) -> list[TableRow]:
    """(measure, value) each of one model's figures, (measure, base, tuned) of a verdict, also of older versions.

    A kind that is not known is shown as multiple choice.
    """
    sides = [record["base"], record["tuned"]] if "base" in record else [record]
    return KINDS.get(name_of(record), KINDS["multiple_choice"]).table(record, sides)
