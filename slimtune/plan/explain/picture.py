"""The picture of a plan: where the card's memory goes, one stacked bar for each way to run.

Everything is placed in pixels, on one axes as large as the figure, so that each text is measured before it is drawn
and has room of its own. matplotlib is imported only when a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimtune.core import outputs
from slimtune.core.units import GIB, size_text
from slimtune.plan.batching import single
from slimtune.plan.make import Plan
from slimtune.plan.request import Job
from slimtune.plan.search import Choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARGIN = "margin"
"""Up to the upper end of the predicted range."""
# In the order in which it is stacked: what always lies on the card, then what comes and goes.
GROUPS: dict[str, tuple[str, ...]] = {
    "decoder weights": ("linear weights", "dynamic surplus", "layer slots", "norms and biases"),
    "embeddings and head": ("embeddings",),
    "LoRA, gradients, optimizer": ("LoRA weights", "LoRA gradients", "optimizer state"),
    "CUDA context, fragmentation": ("CUDA context", "fragmentation"),
    "buffers": ("dequantisation buffer", "checkpoint staging", "RoPE tables"),
    "kept activations": ("checkpoints", "kept activations"),
    "passing peak": ("MLP backward", "attention backward", "cross entropy", "optimizer step"),
    "margin for activations": (MARGIN,),
}
# Okabe and Ito, "Color Universal Design" (2008): told apart with any kind of colour vision. Their vermilion, darker,
# is left for warnings; grey is added for what is nobody's choice.
COLOURS = {
    "decoder weights": "#0072B2",
    "embeddings and head": "#56B4E9",
    "LoRA, gradients, optimizer": "#009E73",
    "CUDA context, fragmentation": "#A6A6A6",
    "buffers": "#F0E442",
    "kept activations": "#CC79A7",
    "passing peak": "#E69F00",
    "margin for activations": "#F7DDB0",
}
_DARK = {COLOURS["decoder weights"]}  # white stands out more on it than ink does
_INK, _GREY, _RULE, _CARD, _BAND, _WARNING = "#111827", "#4B5563", "#E5E7EB", "#94A3B8", "#F1F5F9", "#B84300"
_QUIET_SHARE = 0.45  # of the colour in a bar that is not the chosen one; the rest is white

WIDTH, ROW_HEIGHT, DPI = 1400, 80, 150
_MARGIN, _GAP = 36, 22
_KEY_TOP, _ROWS_TOP, _AXIS_HEIGHT = 100, 268, 56
_MIN_WIDTH, _LABEL_WIDTH, _KEY_COLUMNS, _MAX_BARS = 120, 300, 7, 8

# Every machine with matplotlib has DejaVu Sans; the first of the others that is installed draws Japanese.
_FONT = "DejaVu Sans"
_JAPANESE_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans JP", "Source Han Sans JP", "Hiragino Sans", "Yu Gothic", "Meiryo", "MS Gothic"),
    *("IPAexGothic", "IPAGothic", "TakaoGothic", "VL Gothic"),
)
_MAX_CHARACTERS = 400
_COMPARED_TOKENS = (1024, 2048, 4096, 8192)


@dataclass(frozen=True)
class Bar:
    """One way to run.

    items: bytes by the names of `vram.FORMULAS`, and `MARGIN`. chosen: drawn prominently (so is every bar where none is chosen).
    remark: a few words below the label ("1,208 tokens/s").
    """

    label: str
    items: dict[str, int]
    chosen: bool = False
    remark: str = ""


def groups(items: Mapping[str, int]) -> dict[str, int]:
    """Bytes by the names of `GROUPS`, in their order, groups of no bytes left out.
    Raises ValueError for a name that is in no group, so that no term silently vanishes, and for negative bytes."""
    known = {name for names in GROUPS.values() for name in names}
    if unknown := sorted(set(items) - known):
        raise ValueError(f"in no group of slimtune.plan.explain.picture.GROUPS: {', '.join(unknown)}")
    if negative := sorted(name for name, size in items.items() if size < 0):
        raise ValueError(f"negative bytes: {', '.join(negative)}")
    sums = {group: sum(items.get(name, 0) for name in names) for group, names in GROUPS.items()}
    return {group: size for group, size in sums.items() if size}


def bars_of(job: Job, plan: Plan) -> list[Bar]:
    """The bar of a plan for a card, then the same run at other micro-batch sizes with no knob turned."""
    assert plan.estimate is not None
    layers, rate = plan.checkpoint_skip_layers, plan.estimate.tokens_per_second
    remark = f"{f'{layers} layers kept' if layers else 'all recomputed'}, {rate:,.0f} tok/s"
    items = plan.memory.items | {MARGIN: plan.margin_bytes}
    bars = [Bar(f"The plan: {plan.micro_batch_tokens:,} tokens", items, chosen=True, remark=remark)]
    for tokens in _COMPARED_TOKENS:
        plain = Choice(job, single(tokens))
        remark = f"all recomputed, {plain.tokens_per_second:,.0f} tok/s"
        bars.append(Bar(f"{tokens:,} tokens", plain.memory.items | {MARGIN: plain.margin_bytes}, remark=remark))
    return bars


def subtitle_of(plan: Plan, card: str) -> str:
    """What the chosen bar is, in a line."""
    parts = [f"Predicted peak with its margin on a {card}"]
    if plan.checkpoint_skip_layers:
        parts.append(f"{plan.checkpoint_skip_layers} layers keep their activations")
    if plan.offload_layers:
        parts.append(f"{plan.offload_layers} layers in CPU memory")
    if plan.offload_embedding:
        parts.append("embedding in CPU memory")
    return "; ".join(parts)


def is_ours(path: Path) -> bool:
    """Whether the file is such a picture."""
    return outputs.made_here(path, "plan")


def plot(
    path: Path,
    bars: Sequence[Bar],
    *,
    title: str,
    subtitle: str,
    budget_bytes: int,
    visible_bytes: int,
    card: str,
    overwrite: bool = False,
) -> Path:
    """Draw one to eight bars into a PNG of 1400 x (324 + 80 · bars) pixels and return its path.

    budget_bytes: what the run may use. visible_bytes: what the card offers. card: its name ("RTX 3080").
    Texts that are too long are shortened; a character that no font at hand has becomes "?". The same arguments,
    matplotlib and fonts give the same bytes.
    overwrite: replace a file that is not a picture of ours.
    Raises SlimtuneError if the file cannot be written; ValueError for another number of bars and as `groups` does.
    """
    if not 1 <= len(bars) <= _MAX_BARS:
        raise ValueError(f"{len(bars)} bars; 1 to {_MAX_BARS} can be drawn")

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = _ROWS_TOP + ROW_HEIGHT * len(bars) + _AXIS_HEIGHT
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    pen = _Pen(axes, renderer, *_fonts())

    for y, words, size, colour, bold in ((34, title, 16, _INK, True), (71, subtitle, 10, _GREY, False)):
        for line in pen.wrap(words, WIDTH - 2 * _MARGIN, size, bold=bold):
            pen.text(_MARGIN, y, line, size, colour, bold=bold)
    _draw_key(pen, bars)
    _draw_bars(pen, bars, budget_bytes, visible_bytes, card)

    with outputs.staged_file(path, overwrite=overwrite, ours=is_ours) as partial:
        figure.savefig(partial, format="png", dpi=DPI, metadata={"Software": f"{outputs.SOFTWARE} plan"})
    return path


@dataclass(frozen=True)
class _Pen:
    """Draws on the axes of `plot`: lengths are pixels from the top left, text sizes are points."""

    axes: Axes
    renderer: Any
    fonts: list[str]
    characters: frozenset[int]  # what the fonts can draw

    def clean(self, words: str) -> str:
        """The words on one line, with "?" for each character that no font has."""
        one_line = " ".join(words.split())[:_MAX_CHARACTERS]
        return "".join(character if ord(character) in self.characters else "?" for character in one_line)

    def width(self, words: str, size: float, *, bold: bool = False) -> float:
        from matplotlib.font_manager import FontProperties

        if not words:
            return 0.0
        font = FontProperties(family=self.fonts, size=size, weight="bold" if bold else "normal")
        return self.renderer.get_text_width_height_descent(words, font, ismath=False)[0]

    def wrap(self, words: str, width: float, size: float, *, bold: bool = False, most: int = 1) -> list[str]:
        """At most `most` lines of at most `width` pixels; where words are left over, the last line ends with "…"."""
        rest = self.clean(words)
        lines: list[str] = []
        while rest:
            if self.width(rest, size, bold=bold) <= width:
                return [*lines, rest]
            end = "…" if len(lines) == most - 1 else ""
            starts = (rest[:length] + end for length in range(1, len(rest) + 1))
            fitting = sum(1 for _ in takewhile(lambda start: self.width(start, size, bold=bold) <= width, starts))
            if end:
                return [*lines, rest[:fitting].rstrip() + end]
            # Japanese has no spaces and breaks anywhere.
            cut = rest.rfind(" ", 0, fitting + 1)
            cut = cut if cut > 0 else max(fitting, 1)
            lines.append(rest[:cut])
            rest = rest[cut:].lstrip()
        return lines

    def text(
        self, x: float, y: float, words: str, size: float, ink: str = _INK, *, bold: bool = False, align: str = "left"
    ) -> None:
        """Write words whose capitals have their middle at y."""
        baseline = y + 0.365 * size * DPI / 72
        look: dict[str, Any] = {"color": ink, "fontsize": size, "fontweight": "bold" if bold else "normal"}
        self.axes.text(x, baseline, words, fontfamily=self.fonts, ha=align, va="baseline", parse_math=False, **look)

    def box(self, left: float, top: float, width: float, height: float, colour: str) -> None:
        from matplotlib.patches import Rectangle

        self.axes.add_patch(Rectangle((left, top), width, height, facecolor=colour, linewidth=0, antialiased=False))

    def line(self, x: float, top: float, bottom: float, colour: str, width: float) -> None:
        self.axes.plot([x, x], [top, bottom], color=colour, linewidth=width * 72 / DPI, solid_capstyle="butt")


def _draw_key(pen: _Pen, bars: Sequence[Bar]) -> None:
    """The groups with their colours; where one bar is the chosen one, its total and its groups' sizes as well."""
    by_bar = [groups(bar.items) for bar in bars]
    chosen = [bar for bar in bars if bar.chosen or len(bars) == 1]
    shown = [group for group in GROUPS if any(group in sizes for sizes in by_bar)]
    entries = [(_key_name(group, bars), COLOURS[group], group) for group in shown]
    sizes: dict[str, int] = {}
    if len(chosen) == 1:
        entries.insert(0, (chosen[0].label, "white", ""))
        sizes = groups(chosen[0].items) | {"": sum(chosen[0].items.values())}
    column = (WIDTH - 2 * _MARGIN + _GAP) / max(len(entries), _KEY_COLUMNS)
    for number, (name, colour, group) in enumerate(entries):
        left = round(_MARGIN + number * column)
        pen.box(left, _KEY_TOP, round(column) - _GAP, 8, colour)
        for line, words in enumerate(pen.wrap(name, column - 8, 8, bold=not group, most=2)):
            pen.text(left, _KEY_TOP + 26 + 20 * line, words, 8, _GREY if group else _INK, bold=not group)
        if sizes:
            pen.text(left, _KEY_TOP + 71, size_text(sizes.get(group, 0)), 10, bold=True)


def _key_name(group: str, bars: Sequence[Bar]) -> str:
    """A group's name; the passing peak says which one it is where that is the same for every bar."""
    present = {name for bar in bars for name in GROUPS[group] if bar.items.get(name)}
    return f"peak: {present.pop()}" if group == "passing peak" and len(present) == 1 else group


@dataclass(frozen=True)
class _Limit:
    """A vertical line at x pixels."""

    x: int
    name: str
    size: int
    colour: str


def _draw_bars(pen: _Pen, bars: Sequence[Bar], budget: int, visible: int, card: str) -> None:
    totals = [sum(bar.items.values()) for bar in bars]
    marks = [(size_text(total), _left_text(budget - total)) for total in totals]
    prominent = [bar.chosen or not any(other.chosen for other in bars) for bar in bars]

    labels = [(bar.label, 10.0) for bar in bars] + [(bar.remark, 8.5) for bar in bars]
    label_width = max(pen.width(pen.clean(words), size, bold=True) for words, size in labels)
    label_width = min(max(label_width, _MIN_WIDTH), _LABEL_WIDTH)
    mark_sizes = [(total, 12.0) for total, _ in marks] + [(left, 8.5) for _, left in marks]
    mark_width = max(_MIN_WIDTH, *(pen.width(words, size, bold=True) for words, size in mark_sizes))
    left, right = round(_MARGIN + label_width + _GAP), round(WIDTH - _MARGIN - mark_width - _GAP)
    end = 1.02 * max(*totals, budget, visible, 1)
    bottom = _ROWS_TOP + ROW_HEIGHT * len(bars)

    def x(size: float) -> int:
        return round(left + (right - left) * size / end)

    for row, bar in enumerate(bars):
        if bar.chosen and len(bars) > 1:
            pen.box(_MARGIN // 2, _ROWS_TOP + row * ROW_HEIGHT, WIDTH - _MARGIN, ROW_HEIGHT, _BAND)
    _draw_axis(pen, x, end, bottom)
    limits = [_Limit(x(budget), "budget", budget, _INK), _Limit(x(visible), card, visible, _CARD)]
    limits.sort(key=lambda limit: limit.x)
    for row, (bar, total, mark) in enumerate(zip(bars, totals, marks, strict=True)):
        middle = _ROWS_TOP + row * ROW_HEIGHT + ROW_HEIGHT // 2
        _draw_label(pen, bar, middle, label_width, bold=prominent[row], warn=total > budget)
        _draw_segments(pen, bar, x, middle, limits, quiet=not prominent[row])
        if total > budget:
            pen.box(x(budget), middle + (29 if prominent[row] else 20), x(total) - x(budget), 4, _WARNING)
        mark_left = right + _GAP
        pen.text(mark_left, middle - 12, mark[0], 12, _INK if prominent[row] else _GREY, bold=prominent[row])
        pen.text(mark_left, middle + 16, mark[1], 8.5, _WARNING if total > budget else _GREY, bold=total > budget)
    _draw_limits(pen, limits, bottom)


def _left_text(left: int) -> str:
    return f"{size_text(left)} left" if left >= 0 else f"{size_text(-left)} too much"


def _draw_axis(pen: _Pen, x: Callable[[float], int], end: float, bottom: int) -> None:
    from matplotlib.ticker import MaxNLocator

    for tick in MaxNLocator(nbins=8, steps=[1, 2, 5, 10]).tick_values(0, end / GIB):
        if tick * GIB <= 0.985 * end:  # beyond, its label would touch the unit's
            pen.box(x(tick * GIB), _ROWS_TOP, 1, bottom - _ROWS_TOP, _RULE)
            pen.text(x(tick * GIB), bottom + 20, f"{tick:,g}", 9, _GREY, align="center")
    pen.box(x(0), bottom, x(end) - x(0), 1, _GREY)
    pen.text(x(end) + _GAP, bottom + 20, "GiB", 9, _GREY)


def _draw_label(pen: _Pen, bar: Bar, middle: int, width: float, *, bold: bool, warn: bool) -> None:
    """Up to two lines of label and one of remark, to the left of the bar."""
    lines = pen.wrap(bar.label, width, 10, bold=bold, most=2)
    remark = pen.wrap(bar.remark, width, 8.5)
    top = middle - 12 * (len(lines) + len(remark) - 1)
    for number, line in enumerate(lines):
        pen.text(_MARGIN, top + 24 * number, line, 10, _INK if bold else _GREY, bold=bold)
    for line in remark:
        pen.text(_MARGIN, top + 24 * len(lines), line, 8.5, _WARNING if warn else _GREY)


def _draw_segments(
    pen: _Pen, bar: Bar, x: Callable[[float], int], middle: int, limits: Sequence[_Limit], *, quiet: bool
) -> None:
    """The stacked bar; a segment's size is written where no limit's line crosses it."""
    height, points = (34, 8.0) if quiet else (52, 9.0)
    start = 0
    for group, size in groups(bar.items).items():
        left, right = x(start), x(start + size)
        start += size
        colour = _paler(COLOURS[group]) if quiet else COLOURS[group]
        seam = 1 if right - left > 3 else 0
        pen.box(left, middle - height // 2, right - left - seam, height, colour)
        edges = [left, *(limit.x for limit in limits if left < limit.x < right), right]
        room_left, room_right = max(pairwise(edges), key=lambda room: room[1] - room[0])
        words = f"{size / GIB:,.2f}"
        if pen.width(words, points, bold=not quiet) + 12 <= room_right - room_left:
            ink = "white" if colour in _DARK else _INK
            pen.text((room_left + room_right) / 2, middle, words, points, ink, bold=not quiet, align="center")


def _draw_limits(pen: _Pen, limits: Sequence[_Limit], bottom: int) -> None:
    """The lines of the budget and of the card's memory: the first with its text on the left, the second on the right."""
    top = _ROWS_TOP - 44
    for limit in limits:
        pen.line(limit.x, _ROWS_TOP, bottom, "white", 5)
    for limit, align, edge in zip(limits, ("right", "left"), (limits[0].x - 8, limits[1].x + 8), strict=True):
        pen.line(limit.x, top, bottom, limit.colour, 2)
        room = edge - _MARGIN if align == "right" else WIDTH - _MARGIN - edge
        for line, words in enumerate(reversed(pen.wrap(limit.name, room, 8, most=2))):
            pen.text(edge, top + 8 - 20 * line, words, 8, _GREY, align=align)
        pen.text(edge, top + 28, size_text(limit.size), 8.5, bold=True, align=align)


def _paler(colour: str) -> str:
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = (_QUIET_SHARE * part + 1 - _QUIET_SHARE for part in to_rgb(colour))
    return to_hex((red, green, blue))


def _fonts() -> tuple[list[str], frozenset[int]]:
    """The fonts to draw with, and the code points that at least one of them has."""
    from matplotlib.font_manager import findfont, fontManager, get_font

    installed = set(fontManager.get_font_names())
    names = [_FONT, *[name for name in _JAPANESE_FONTS if name in installed][:1]]
    return names, frozenset(code for name in names for code in get_font(findfont(name)).get_charmap())
