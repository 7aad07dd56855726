"""What a person sees of a run, on a screen or in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from slimtune.core.memory import Comparison, sentences, shown
from slimtune.plan.explain import suggestions
from slimtune.plan.memory import ram, vram

if TYPE_CHECKING:
    from slimtune.plan.make import Plan
    from slimtune.plan.speed import Estimate
    from slimtune.run.prepare import Prepared
    from slimtune.train.audit import MaskAudit

_LOG_EVERY_SECONDS = 5.0
_LOG_WIDTH = 120
_SHOWN_PROMPT_CHARACTERS = 220


class Console:
    """Prints the parts of a run. On a terminal progress is one line that changes; in a file, a line every few seconds."""

    def __init__(self, file: Any = None):
        self.out = RichConsole(file=file, highlight=False)
        if not self.out.is_terminal:
            self.out.width = _LOG_WIDTH
        self._last_progress, self._last_line = 0.0, ""
        self._open_line = False

    def step(self, text: str) -> None:
        """A new step of the story."""
        self._end_line()
        self._last_line = ""
        self.out.print(f"[bold]▸ {escape(text)}[/bold]")

    def say(self, text: str) -> None:
        self._end_line()
        self.out.print(f"  {escape(text)}")

    def warn(self, text: str) -> None:
        self._end_line()
        self.out.print(f"  [yellow]warning:[/yellow] {escape(text)}")

    def progress(self, line: str, last: bool = False) -> None:
        """The progress line; `last` ends it."""
        if self.out.is_terminal:
            self.out.file.write(f"\r\x1b[2K  {line[: self.out.width - 3]}")
            self.out.file.flush()
            self._open_line = True
        elif (last and line != self._last_line) or time.monotonic() - self._last_progress >= _LOG_EVERY_SECONDS:
            self._last_progress, self._last_line = time.monotonic(), line
            self.out.print(f"  {escape(line)}")
        if last:
            self._end_line()

    def _end_line(self) -> None:
        if self._open_line:
            self.out.file.write("\n")
            self._open_line = False

    def plan(self, prepared: Prepared) -> None:
        """The plan: what will happen, each value with its reason."""
        plan, recipe = prepared.plan, prepared.recipe
        hardware = prepared.hardware
        self.step(f"Plan of '{recipe.name}' for {hardware.name}")
        facts = f"{len(prepared.train)} training, {len(prepared.held_out)} held-out, {len(prepared.test)} test examples"
        self.say(f"{plan.base} ({_count(prepared.shape.total_parameters)} parameters); {facts}")
        self.say(f"LoRA rank {plan.lora_rank}, alpha {plan.lora_alpha}, on {', '.join(plan.lora_targets)}")
        self.say(f"learning rate {plan.learning_rate:g}, {plan.lr_scheduler_type}")
        table = Table(box=None, padding=(0, 2), show_header=False)
        for name, setting in plan.as_json()["settings"].items():
            reason = setting["reason"]
            if reason != "recipe":
                value = setting["value"]
                shown = _gib(value) if name.endswith("_bytes") and value is not None else _shown(value)
                table.add_row(f"  {name}", escape(shown), Text(reason, style="dim"))
        self.out.print(table)
        if plan.memory is not None and plan.budget_bytes is not None:
            self._memory(plan)
        if plan.estimate is not None:
            self._estimate(plan.estimate)
        if prepared.facts is not None:
            first, *others = suggestions.lines(prepared.facts, suggestions.suggest(prepared.facts))
            self.say(first)
            for line in others:
                self.out.print(Padding(Text(line), (0, 0, 0, 4)))
        for note in plan.notes:
            self.say(f"note: {note}")

    def _memory(self, plan: Plan) -> None:
        memory, budget, peak = plan.memory, plan.budget_bytes or 0, plan.peak_bytes or 0
        assert memory is not None
        self.out.print(
            f"  [bold]Predicted peak memory {_gib(peak)} of a budget of {_gib(budget)}, {_gib(budget - peak)} left[/bold]"
        )
        table = Table(box=None, padding=(0, 2), show_header=False)
        formulas = vram.FORMULAS if plan.device == "cuda" else ram.FORMULAS
        for item, size in sorted(memory.items.items(), key=lambda entry: -entry[1]):
            table.add_row(f"    {item}", f"{size / 2**20:>9,.0f} MiB", Text(formulas.get(item, ""), style="dim"))
        self.out.print(table)
        by_phase = ", ".join(f"{name} {_gib(size)}" for name, size in plan.phases.items() if name != "train")
        self.say(f"By phase: {by_phase}")
        if memory.cpu_items:
            parts = ", ".join(f"{item} {_gib(size)}" for item, size in memory.cpu_items.items())
            self.say(f"In the computer's memory instead: {parts}")
        if plan.least_bytes:
            self.say(f"At least {_gib(plan.least_bytes)} are needed; the rest buys speed")
        if plan.longest_context:
            self.say(f"Longest example that would still fit: {plan.longest_context:,} tokens, every layer recomputed")

    def _estimate(self, estimate: Estimate) -> None:
        source = f"{estimate.efficiency:.0%} of the card's peak, {estimate.source}"
        self.say(f"Predicted speed {estimate.tokens_per_second:,.0f} tokens/s ({source})")
        cost = "" if estimate.cost is None else f"; cost {estimate.cost:,.2f}"
        self.say(
            f"Predicted time {_duration(estimate.train_seconds)} for training and "
            f"{_duration(estimate.evaluation_seconds)} for evaluation, loading and export not counted{cost}"
        )

    def mask_audit(self, audit: MaskAudit) -> None:
        """The audit's figures and, in colour, what carries loss in three examples."""
        self.step("Mask audit: what the trainer's own batches teach")
        self.say(
            f"{audit.rows} examples in {audit.batches} batches; {audit.supervised_tokens:,} of {audit.tokens:,} tokens "
            f"carry loss ({audit.supervised_share:.1%}); every label equals the computed response mask"
        )
        if audit.refined_rows:
            self.say(f"{audit.refined_rows} examples: marker-based masking differs, the computed boundary is used")
        for example in audit.preview:
            text = Text(f"  {example['where']}  ", style="dim")
            for segment in example["segments"]:
                shown = segment["text"] if segment["supervised"] else _shortened(segment["text"])
                text.append(shown.replace("\n", "⏎"), style="bold green" if segment["supervised"] else "dim")
            self.out.print(text, soft_wrap=True)

    def memory(self, compared: Sequence[Comparison]) -> None:
        """Prediction beside measurement, and in words what is too far apart."""
        if not compared:
            return
        self.step("Memory: predicted and measured")
        table = Table(box=None, padding=(0, 2))
        for heading in ("", "predicted", "measured", "difference"):
            table.add_column(heading, justify="left" if not heading else "right")
        for one in compared:
            table.add_row(f"  {one.name}", shown(one.predicted), shown(one.measured), f"{one.error:+.1%}")
        self.out.print(table)
        for sentence in sentences(compared):
            self.warn(sentence)

    def verdict(self, rows: Sequence[Sequence[str]], sentence: str) -> None:
        """The before/after table and the verdict in a sentence."""
        self.table("Before and after, on the same held-out questions", [("", "base", "tuned"), *rows])
        self.out.print(f"  [bold]Verdict:[/bold] {escape(sentence)}")

    def figures(self, rows: Sequence[Sequence[str]]) -> None:
        """What one model reached: (measure, value) each."""
        self.table("Figures", [("", ""), *rows])

    def table(self, title: str, rows: Sequence[Sequence[str]]) -> None:
        """A step whose result is a table; the first row is its heading."""
        self.step(title)
        heading, *body = rows
        table = Table(box=None, padding=(0, 2), show_header=any(heading))
        for cell in heading:
            table.add_column(escape(cell), overflow="fold")
        for row in body:
            table.add_row(*(escape(str(cell)) for cell in row))
        self.out.print(table)

    def paths(self, pairs: Sequence[tuple[str, Path | str]]) -> None:
        """Where everything is."""
        self.step("Done")
        for label, path in pairs:
            self.out.print(f"  {label:<12} {escape(str(path))}")

    def error(self, text: str) -> None:
        self._end_line()
        self.out.print(Text("error: ", style="bold red") + Text(text), soft_wrap=True)


def stderr() -> Console:
    """A console for errors."""
    return Console(file=sys.stderr)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _duration(seconds: float) -> str:
    """75 → "1 min 15 s"; 5000 → "1 h 23 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _count(number: int) -> str:
    """8190735360 → "8.19 B"; 947072 → "0.95 M"."""
    return f"{number / 1e9:.2f} B" if number >= 1e8 else f"{number / 1e6:.2f} M"


def _shortened(text: str) -> str:
    if len(text) <= _SHOWN_PROMPT_CHARACTERS:
        return text
    half = _SHOWN_PROMPT_CHARACTERS // 2
    return f"{text[:half]} … {text[-half:]}"
