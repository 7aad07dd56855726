"""The figures of one model from its answers, and the tables that show them: what verdict, report and comparison share."""

from collections.abc import Sequence
from typing import Any

from slimtune.core.errors import fail
from slimtune.evaluate import kinds
from slimtune.evaluate.kinds.kind import Answers, Figures, TableRow


def measure(answers: Answers, *, labels: Sequence[str] | None = None) -> Figures:
    """`kind`, `n`, what the items say (see `Kind.frame`), and the figures.

    labels: the possible answers in their order; by default all that occur. Raises SlimtuneError if there are no answers.
    """
    if not answers:
        raise fail("no items to measure", fix="evaluate the model on the test questions first")
    kind = kinds.of(answers)
    frame = kind.frame(answers, labels)
    return {"kind": kind.name, "n": len(answers), **frame, **of_model(answers, frame.get("labels", []))}


def of_model(answers: Answers, labels: Sequence[str]) -> Figures:
    """The figures alone, without what the items say."""
    kind = kinds.of(answers)
    return {**kind.figures(answers, labels), **{metric.key: metric.of(answers) for metric in kind.metrics}}


def figure_rows(figures: Figures) -> list[tuple[str, str]]:
    """(measure, value) of one model, from `measure`."""
    return [(name, value) for name, value in table(figures, [figures])]


def summary_rows(verdict: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(measure, base, tuned): about ten rows, for a verdict of any kind and of older versions."""
    return [(name, base, tuned) for name, base, tuned in table(verdict, [verdict["base"], verdict["tuned"]])]


def table(frame: dict[str, Any], sides: Sequence[Figures]) -> list[TableRow]:
    """frame: what the sides have in common: kind, n and `Kind.frame`. A kind that is not known is shown as multiple choice."""
    return kinds.KINDS.get(kinds.name_of(frame), kinds.KINDS["multiple_choice"]).table(frame, sides)
