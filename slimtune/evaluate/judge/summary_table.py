"""The figures of one model, or of base and tuned side by side, as rows ready to print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from slimtune.evaluate.judge.verdict_text import bounds, percent, statuses

Sides = Sequence[dict[str, Any]]


def summary_rows(verdict: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(measure, base, tuned): about ten rows, for a verdict of any kind and of older versions."""
    return [(name, base, tuned) for name, base, tuned in _table(verdict, [verdict["base"], verdict["tuned"]])]


def figure_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """(measure, value) of one model, from `figures.measure`."""
    return [(name, value) for name, value in _table(figures, [figures])]


def _table(frame: dict[str, Any], sides: Sides) -> list[tuple[str, ...]]:
    """frame: what the sides have in common: kind, n and, for multiple choice, the key of `figures.answer_key`."""
    kind = frame.get("kind", "multiple_choice")
    if kind == "perplexity":
        return _perplexity(frame, sides)
    return _generation(frame, sides) if kind == "generation" else _multiple_choice(frame, sides)


def _multiple_choice(frame: dict[str, Any], sides: Sides) -> list[tuple[str, ...]]:
    order, n = frame["labels"], frame["n"]
    gold = " / ".join(str(frame["gold"][label]) for label in order)
    rows = [
        _row("accuracy", sides, _accuracy),
        _row("correct / n", sides, lambda side: f"{side['correct']} / {n}"),
        _row(
            f"answers {' / '.join(order)} (gold {gold})",
            sides,
            lambda side: " / ".join(str(side["histogram"][label]) for label in order),
        ),
    ]
    if any(side["unanswered"] for side in sides):
        rows.append(_row("no answer", sides, _no_answer))
    majority = f"{percent(frame['majority']['share'])} (always {frame['majority']['label']})"
    rows.append(_row("majority baseline", sides, lambda side: majority))
    rows += _where_known("label_mass", "label mass", sides, percent)
    rows += _where_known("greedy_agreement", "agrees with greedy text", sides, percent)
    if permutations := sides[-1].get("permutations"):
        rows.append(_row(f"right in all {permutations['count']} orders (mean)", sides, _all_orders))
        rows += _where_known("position_bias", "position bias", sides, percent)
    rows += _where_known("brier", "Brier score", sides, "{:.3f}".format)
    rows += _where_known("calibration_error", "calibration error", sides, percent)
    return rows


def _perplexity(frame: dict[str, Any], sides: Sides) -> list[tuple[str, ...]]:
    return [
        _row("perplexity", sides, lambda side: f"{side['perplexity']:.2f}"),
        _row("nats per token", sides, lambda side: f"{side['nats_per_token']:.4f}"),
        _row("texts / tokens", sides, lambda side: f"{frame['n']} / {side['tokens']}"),
    ]


def _generation(frame: dict[str, Any], sides: Sides) -> list[tuple[str, ...]]:
    n = frame["n"]
    rows = [
        _row("chrF, mean of the replies", sides, lambda side: f"{side['chrf']:.1f}"),
        _row("chrF of all text", sides, lambda side: f"{side['corpus_chrf']:.1f}"),
        _row("BLEU of all text", sides, lambda side: f"{side['bleu']:.1f}"),
        _row("exact match", sides, lambda side: f"{percent(side['exact'])} ({bounds(side['exact_interval'])})"),
        _row("exact / n", sides, lambda side: f"{side['correct']} / {n}"),
        _row("commonest reply", sides, lambda side: f"{side['commonest']['count']} / {n}"),
    ]
    if any(side["unusable"] for side in sides):
        rows.append(_row("cut off, empty or failed", sides, lambda side: f"{side['unusable']} / {n}"))
    return rows


def _row(name: str, sides: Sides, show: Callable[[dict[str, Any]], str]) -> tuple[str, ...]:
    return name, *(show(side) for side in sides)


def _where_known(key: str, name: str, sides: Sides, show: Callable[[float], str]) -> list[tuple[str, ...]]:
    """A row if any side's figure is known."""
    values = [side.get(key) for side in sides]
    if all(value is None for value in values):
        return []
    return [(name, *("not recorded" if value is None else show(value) for value in values))]


def _accuracy(side: dict[str, Any]) -> str:
    # Verdicts of older versions have no interval.
    return percent(side["accuracy"]) + (f" ({bounds(side['interval'])})" if "interval" in side else "")


def _no_answer(side: dict[str, Any]) -> str:
    return statuses(side) or "none" if "statuses" in side else str(side["unanswered"])


def _all_orders(side: dict[str, Any]) -> str:
    permutations = side["permutations"]
    return f"{percent(permutations['all_correct'])} ({percent(permutations['mean_accuracy'])})"
