"""Where the marks of a chart go, in percent of its plot; templates/charts.html.jinja draws them.

Percentages let a chart fill whatever width a screen has while its text and its lines keep their size.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core.errors import SlimtuneError
from slimtune.run import loss_curve

# A screen cannot show more points than this, and they make the page heavy.
_MOST_POINTS = 500

Points = list[tuple[float, float]]
Series = tuple[list[int], list[float]]
"""Steps and values."""


@dataclass(frozen=True)
class Scale:
    """Maps low … high to 0 … 100."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        return round(100 * (value - self.low) / ((self.high - self.low) or 1), 2)


def ticks(scale: Scale, *, about: int = 5, steps: Sequence[float] = (1, 2, 2.5, 5, 10), unit: str = "") -> list[Any]:
    """About so many round values within the scale: a list of {"at": percent, "text": "0.5"}."""
    rough = (scale.high - scale.low) / about
    if rough <= 0:
        return [{"at": scale(scale.low), "text": f"{scale.low:g}{unit}"}]
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in steps if factor * magnitude >= rough * 0.999)
    first, last = math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)
    return [{"at": scale(index * step), "text": f"{index * step:g}{unit}"} for index in range(first, last + 1)]


def whole_ticks(scale: Scale, *, about: int = 5) -> list[Any]:
    """As `ticks`, for counts: whole numbers only."""
    return ticks(scale, about=max(1, min(about, math.floor(scale.high - scale.low))), steps=(1, 2, 5, 10))


def path(points: Iterable[tuple[float, float]]) -> str:
    """SVG path data through points in percent, y upwards."""
    return "M" + "L".join(f"{x:g} {100 - y:g}" for x, y in points)


def around_zero(values: Iterable[float]) -> Scale:
    """A scale that holds 0 and all values, with room on either side."""
    held = [0.0, *values]
    low, high = min(held), max(held)
    room = 0.1 * (high - low) or 1.0
    return Scale(low - room, high + room)


def whiskers(lines: Iterable[tuple[Any, ...]], scale: Scale) -> dict[str, Any]:
    """Dots with their intervals: the `rows`, and the `texts` above the dots.

    lines: (name, colour, height in percent of the plot, value, the interval's ends or None, text) each.
    """
    rows = []
    for name, colour, height, value, ends, text in lines:
        low, high = map(scale, ends) if ends else (None, None)
        rows.append(
            {"name": name, "colour": colour, "at": scale(value), "low": low, "high": high, "y": height, "text": text}
        )
    return {"rows": rows, "texts": [(row["at"], row["y"], row["text"]) for row in rows]}


def loss_curves(run_dir: Path, unreadable: list[str]) -> dict[str, Any]:
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


def _figures(rows: list[dict[str, Any]], losses: list[float], evaluations: Series) -> str:
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


def _losses(steps: Scale, losses: Series, evaluations: Series) -> dict[str, Any]:
    values = Scale(0, 1.05 * max([*losses[1], *evaluations[1]]) or 1)
    raw, evaluated = _placed(losses, steps, values), _placed(evaluations, steps, values)
    many = len(raw) > loss_curve.SMOOTH_ABOVE
    smooth = _placed((losses[0], loss_curve.smooth(losses[1])), steps, values) if many else raw
    return {
        "x": whole_ticks(steps),
        "y": ticks(values),
        "raw": _line(raw) if many else "",
        "training": _line(smooth),
        "evaluation": _line(evaluated),
        "evaluations": evaluated if len(evaluated) <= _MOST_POINTS // 10 else [],
        "best": evaluated[evaluations[1].index(min(evaluations[1]))] if evaluated else None,
    }


def _rate(steps: Scale, rates: Series) -> dict[str, Any] | None:
    if not rates[0]:
        return None
    values = Scale(0, 1.1 * max(rates[1]) or 1)
    return {"x": whole_ticks(steps), "y": ticks(values, about=2), "line": _line(_placed(rates, steps, values))}


def _placed(series: Series, steps: Scale, values: Scale) -> Points:
    return [(steps(step), values(value)) for step, value in zip(*series, strict=True)]


def _line(points: Points) -> str:
    """The path through at most about `_MOST_POINTS`, evenly, with the last; "" without any."""
    stride = math.ceil(len(points) / _MOST_POINTS) or 1
    return path([*points[:-1:stride], *points[-1:]]) if points else ""
