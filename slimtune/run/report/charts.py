"""Where the marks of a chart go, in percent of its plot; templates/charts.html.jinja draws them.

Percentages let a chart fill whatever width a screen has while its text and its lines keep their size.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


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
