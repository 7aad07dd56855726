"""The report's loss curves: training loss, evaluation loss and learning rate over the optimizer steps."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimtune.core.errors import SlimtuneError
from slimtune.run import loss_curve
from slimtune.run.report.charts import Scale, path, ticks, whole_ticks

# A screen cannot show more points than this, and they make the page heavy.
_MOST_POINTS = 500

Points = list[tuple[float, float]]


def section(run_dir: Path, unreadable: list[str]) -> dict[str, Any]:
    """A line of figures and the charts, from metrics.jsonl; both empty where no loss was logged."""
    metrics = run_dir / "metrics.jsonl"
    rows: list[dict[str, Any]] = []
    if metrics.is_file():
        try:
            rows = loss_curve.read(metrics)
        except (SlimtuneError, UnicodeDecodeError) as error:
            unreadable.append(str(error))
    losses, evaluations = loss_curve.series(rows, "loss"), loss_curve.series(rows, "eval_loss")
    if not losses[0] and not evaluations[0]:
        return {"figures": "", "loss": None, "rate": None}
    steps = Scale(rows[0]["step"], rows[-1]["step"])
    return {
        "figures": _figures(rows, losses[1], evaluations),
        "loss": _losses(steps, losses, evaluations),
        "rate": _rate(steps, loss_curve.series(rows, "learning_rate")),
    }


def _figures(rows: list[dict[str, Any]], losses: list[float], evaluations: tuple[list[int], list[float]]) -> str:
    figures = []
    if losses:
        figures.append(f"training loss {losses[0]:.3g} → {losses[-1]:.3g} in {rows[-1]['step']} steps")
    if evaluations[0]:
        step, best = min(zip(*evaluations, strict=True), key=lambda point: point[1])
        figures.append(f"best evaluation loss {best:.3g} at step {step}")
    _, speeds = loss_curve.series(rows, "tokens_per_second")
    if speeds:
        figures.append(f"median {statistics.median(speeds):,.0f} tokens/s")
    return "; ".join(figures + loss_curve.not_drawn(rows))


def _losses(
    steps: Scale, losses: tuple[list[int], list[float]], evaluations: tuple[list[int], list[float]]
) -> dict[str, Any]:
    values = Scale(0, 1.05 * max([*losses[1], *evaluations[1]]) or 1)

    def place(series: tuple[list[int], Sequence[float]]) -> Points:
        return [(steps(step), values(value)) for step, value in zip(*series, strict=True)]

    raw, evaluated = place(losses), place(evaluations)
    many = len(raw) > loss_curve.SMOOTH_ABOVE
    smooth = place((losses[0], loss_curve.smooth(losses[1]))) if many else raw
    return {
        "x": whole_ticks(steps),
        "y": ticks(values),
        "raw": path(_thinned(raw)) if many else "",
        "training": path(_thinned(smooth)) if raw else "",
        "evaluation": path(_thinned(evaluated)) if evaluated else "",
        "evaluations": _thinned(evaluated) if len(evaluated) <= _MOST_POINTS // 10 else [],
        "best": evaluated[evaluations[1].index(min(evaluations[1]))] if evaluated else None,
    }


def _rate(steps: Scale, rates: tuple[list[int], list[float]]) -> dict[str, Any] | None:
    if not rates[0]:
        return None
    values = Scale(0, 1.1 * max(rates[1]) or 1)
    points = [(steps(step), values(rate)) for step, rate in zip(*rates, strict=True)]
    return {"x": whole_ticks(steps), "y": ticks(values, about=2), "line": path(_thinned(points))}


def _thinned(points: Points) -> Points:
    """At most about `_MOST_POINTS` of them, evenly, with the last."""
    stride = math.ceil(len(points) / _MOST_POINTS) or 1
    return [*points[:-1:stride], *points[-1:]]
