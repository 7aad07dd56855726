"""`loss_curve.png`: training loss, evaluation loss and learning rate over the optimizer steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimtune.core import inputs, run_folder
from slimtune.core.errors import fail
from slimtune.core.files import staged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Up to this many points, the raw curve is readable as it is.
SMOOTH_ABOVE = 30
_TRAIN, _EVAL, _RATE, _GREY = "#2c6fbb", "#d1495b", "#6b7280", "#4b5563"


def read(metrics_path: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, by step. Of two values for one step, the later row counts.

    A last line without a line end was cut off when the process ended, and is left out.
    Raises SlimtuneError if the file is missing, and with every other line that is not a row of metrics with its step.
    """
    if not inputs.is_file(metrics_path):
        raise fail("no such file", where=str(metrics_path), fix="name the folder of a run that was started")
    by_step: dict[int, dict[str, Any]] = {}
    for row in run_folder.read_lines(metrics_path, fix="remove this line", like="metrics.jsonl"):
        by_step.setdefault(row["step"], {}).update(row)
    return [by_step[step] for step in sorted(by_step)]


def series(rows: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric, in order; values that are missing or not finite are left out."""
    points = [(row["step"], float(row[key])) for row in rows if isinstance(row.get(key), int | float)]
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]


def not_drawn(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A remark for each kind of loss that has values which are not finite."""
    notes = []
    for key, name in (("loss", "training"), ("eval_loss", "evaluation")):
        if broken := sum(isinstance(row.get(key), float) and not math.isfinite(row[key]) for row in rows):
            notes.append(f"{broken} {name} losses are NaN or infinite and not drawn")
    return notes


def smooth(values: Sequence[float]) -> list[float]:
    """Centred moving average over about a fifteenth of the points (an odd number, at least 5), so that the curve does not
    lag. Towards the ends the window shrinks symmetrically."""
    half = max(2, len(values) // 30)
    reaches = [min(half, place, len(values) - 1 - place) for place in range(len(values))]
    return [statistics.fmean(values[at - reach : at + reach + 1]) for at, reach in enumerate(reaches)]


def plot(metrics_path: Path, out_path: Path, *, title: str) -> Path:
    """Draw metrics.jsonl into a PNG of 1200 x 750 pixels and return its path.

    title: ASCII; other characters become "?", since the font that every machine has cannot show Japanese.
    Raises SlimtuneError if the metrics cannot be read, see `read`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    rows = read(metrics_path)
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12)
    figure = Figure(figsize=(12, 7.5), dpi=100, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    shown_title = title.encode("ascii", "replace").decode("ascii")
    figure.suptitle(shown_title, fontsize=17, fontweight="bold", parse_math=False)

    _draw_losses(top, rows)
    _draw_learning_rate(bottom, rows)
    for axes in (top, bottom):
        axes.grid(True, color="#e5e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=12)
    bottom.set_xlabel("optimizer step", fontsize=13)
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    if steps := [row["step"] for row in rows]:
        # One logged point has no extent of its own; give it room on both sides.
        margin = max(0.5, (steps[-1] - steps[0]) * 0.02)
        bottom.set_xlim(steps[0] - margin, steps[-1] + margin)

    with staged(out_path) as partial:
        figure.savefig(partial, format="png")
    return out_path


def _say(axes: Axes, height: float, text: str, *, va: str) -> None:
    """Write a remark, centred, at a height in shares of the plot."""
    axes.text(0.5, height, text, transform=axes.transAxes, ha="center", va=va, fontsize=13, color=_GREY)


def _draw_losses(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    steps, losses = series(rows, "loss")
    eval_steps, eval_losses = series(rows, "eval_loss")
    few = len(losses) <= SMOOTH_ABOVE
    if losses and few:
        axes.plot(steps, losses, color=_TRAIN, linewidth=2, marker="o", markersize=6, label="training loss")
    elif losses:
        axes.plot(steps, losses, color=_TRAIN, linewidth=1, alpha=0.3, label="training loss, every logged step")
        axes.plot(steps, smooth(losses), color=_TRAIN, linewidth=2.4, label="training loss, moving average")
    if eval_losses:
        axes.plot(eval_steps, eval_losses, color=_EVAL, linewidth=2, marker="s", markersize=7, label="evaluation loss")
        best = min(range(len(eval_losses)), key=eval_losses.__getitem__)
        label = f"best evaluation loss: {eval_losses[best]:.4g} at step {eval_steps[best]}"
        (star,) = axes.plot(eval_steps[best], eval_losses[best], "*", markersize=19, zorder=5, label=label)
        star.set(markerfacecolor="#f2b134", markeredgecolor=_EVAL, markeredgewidth=1.4)

    missing = [name for name, found in (("training", losses), ("evaluation", eval_losses)) if not found]
    notes = [f"no {name} loss was logged" for name in missing] + not_drawn(rows)
    _say(axes, 1.01, "; ".join(notes), va="bottom")
    if losses or eval_losses:
        axes.legend(fontsize=12, frameon=True, framealpha=0.9, edgecolor="#d1d5db", loc="best")
        axes.set_ylim(bottom=0, top=1.08 * max(losses + eval_losses) or 1)
    else:
        axes.set_yticks([])
    axes.set_ylabel("cross-entropy loss (nats/token)", fontsize=13)


def _draw_learning_rate(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    steps, rates = series(rows, "learning_rate")
    axes.set_ylabel("learning rate", fontsize=13)
    if not rates:
        axes.set_yticks([])
        _say(axes, 0.5, "no learning rate was logged", va="center")
        return
    axes.plot(steps, rates, color=_RATE, linewidth=2, marker="o" if len(rates) == 1 else None)
    axes.set_ylim(bottom=0, top=1.15 * max(rates) or 1)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    axes.yaxis.get_offset_text().set_fontsize(11)
