"""A report of `check` as a picture: lengths, right answers, findings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from slimtune.core import outputs
from slimtune.core.findings import LEVELS
from slimtune.core.visible import visible
from slimtune.datatools.check.check import Report
from slimtune.datatools.check.rendering import closing, label_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _GREY, _INK = "#2c6fbb", "#9ca3af", "#374151"
_COLOURS = {"error": "#b91c1c", "warning": "#d97706", "note": _GREY}
_SHOWN_FILES, _SHOWN_CODES, _LEAST_BARS = 6, 20, 8


def is_ours(path: Path) -> bool:
    """Whether the file is such a picture."""
    return outputs.made_here(path, "data check")


def plot(report: Report, path: Path, *, overwrite: bool = False) -> None:
    """Draw it into a PNG of 1300 x 800 pixels, which is written whole or not at all.

    overwrite: replace a file that is not a picture of ours. Raises SlimtuneError if the file cannot be written.

    Names are shown in ASCII: every machine has the letters for it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    title = closing(report)
    if len(report.files) > _SHOWN_FILES:
        title += f" (lengths and answers of the first {_SHOWN_FILES} files)"
    figure.suptitle(title, fontsize=14, color=_INK, x=0.01, ha="left")
    grid = figure.add_gridspec(2, 2, width_ratios=(3, 2))
    _lengths(figure.add_subplot(grid[:, 0]), report)
    _labels(figure.add_subplot(grid[0, 1]), report)
    _findings(figure.add_subplot(grid[1, 1]), report)
    with outputs.staged_file(path, overwrite=overwrite, ours=is_ours) as partial:
        figure.savefig(partial, format="png", metadata={"Software": f"{outputs.SOFTWARE} data check"})


def _lengths(axes: Axes, report: Report) -> None:
    counted = [file for file in report.files[:_SHOWN_FILES] if file.lengths.tokens]
    axes.set_title("How long the examples are", loc="left", fontsize=12)
    if not counted:
        return _nothing(axes, "no example could be read")
    longest = max(max(file.lengths.tokens) for file in counted)
    alone = len(counted) == 1
    for number, file in enumerate(counted):
        axes.hist(
            list(file.lengths.tokens),
            bins=40,
            range=(0, longest + 1),
            histtype="stepfilled" if alone else "step",
            color=_BLUE if alone else f"C{number}",
            linewidth=1.6,
            label=_ascii(Path(file.path).name),
        )
    limit = report.max_seq_length
    if limit <= 1.5 * longest:
        axes.axvline(limit, color=_COLOURS["error"], linewidth=1.4, linestyle="--")
        cut = sum(file.lengths.cut()[0] for file in counted)
        total = sum(len(file.lengths.tokens) for file in counted)
        note = f" max_seq_length {limit:,} \n {cut:,} of {total:,} longer ({cut / total:.1%}) "
        side = "right" if limit > longest / 2 else "left"
        axes.text(limit, axes.get_ylim()[1] * 0.97, note, va="top", ha=side, color=_COLOURS["error"], fontsize=9)
    axes.set_xlabel(f"tokens of {_ascii(report.model)}" if report.model else "tokens, estimated from characters")
    axes.set_ylabel("examples")
    if not alone:
        axes.legend(frameon=False, fontsize=9)
    _plain(axes)


def _labels(axes: Axes, report: Report) -> None:
    named = [(file, label_shares(file)) for file in report.files[:_SHOWN_FILES]]
    named = [(file, shares) for file, shares in named if shares]
    axes.set_title("Right answers", loc="left", fontsize=12)
    if not named:
        return _nothing(axes, "no row has a labelled answer")
    labels = sorted({label for _, shares in named for label in shares})
    width = 0.8 / len(named)
    for number, (file, shares) in enumerate(named):
        places = [index - 0.4 + width * (number + 0.5) for index in range(len(labels))]
        heights = [100 * shares.get(label, 0.0) for label in labels]
        colour = _BLUE if len(named) == 1 else f"C{number}"
        bars = axes.bar(places, heights, width * 0.92, color=colour, label=_ascii(Path(file.path).name))
        if len(named) == 1:
            axes.bar_label(bars, fmt="%.1f %%", fontsize=9, padding=2)
    axes.set_xticks(range(len(labels)), [_ascii(label) for label in labels])
    axes.set_ylabel("% of labelled rows")
    axes.margins(y=0.15)
    _plain(axes)


def _findings(axes: Axes, report: Report) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title("Findings", loc="left", fontsize=12)
    counts = Counter((finding.level, finding.code) for finding in report.findings)
    if not counts:
        return _nothing(axes, "nothing found")
    ordered = sorted(counts.items(), key=lambda one: (LEVELS.index(one[0][0]), -one[1]))
    shown = ordered[:_SHOWN_CODES]
    places = range(len(shown))
    bars = axes.barh(places, [count for _, count in shown], color=[_COLOURS[level] for (level, _), _ in shown])
    axes.bar_label(bars, fmt="{:,.0f}", fontsize=9, padding=3)
    axes.set_yticks(places, [code for (_, code), _ in shown])
    # From the top, and with room for a few: one bar alone would fill the place.
    axes.set_ylim(max(len(shown), _LEAST_BARS) - 0.5, -0.5)
    axes.set_xlim(0, 1.15 * max(counts.values()))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    more = f"; {len(ordered) - len(shown)} more kinds" if len(ordered) > len(shown) else ""
    axes.set_xlabel(f"red: refused; orange: trains, but probably not as meant; grey: note{more}", fontsize=9)
    _plain(axes)


def _nothing(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes, color=_INK)
    axes.set_axis_off()


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def _ascii(text: str) -> str:
    # Two dollars would be a formula to matplotlib.
    return visible(text).encode("ascii", "replace").decode().replace("$", r"\$")
