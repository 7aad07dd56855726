"""How the parts of a run look on the screen: plan, mask audit, memory, verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from slimtune.core.console import Console, visible
from slimtune.core.memory import Comparison, sentences
from slimtune.core.run_folder import required
from slimtune.core.units import size_text
from slimtune.evaluate import contamination, kinds
from slimtune.evaluate.judge import comparison_text, pairwise
from slimtune.plan.explain import suggestions
from slimtune.plan.make import Plan
from slimtune.plan.memory import ram, vram
from slimtune.plan.speed import Estimate
from slimtune.run import suitability
from slimtune.run.report.values import duration

if TYPE_CHECKING:
    from slimtune.run.prepare import Prepared
    from slimtune.train.audit import MaskAudit

_SHOWN_PROMPT_CHARACTERS = 220
# Columns of a comparison's table that a terminal holds.
_WIDEST = 3


def plan(console: Console, prepared: Prepared) -> None:
    """The plan, each value with its reason."""
    plan = prepared.plan
    console.step(f"Plan of '{prepared.recipe.name}' for {prepared.hardware.name}")
    facts = f"{len(prepared.train)} training, {len(prepared.held_out)} held-out, {len(prepared.test)} test examples"
    console.say(f"{plan.base} ({_count(prepared.shape.total_parameters)} parameters); {facts}")
    console.say(f"LoRA rank {plan.lora_rank}, alpha {plan.lora_alpha}, on {', '.join(plan.lora_targets)}")
    console.say(f"learning rate {plan.learning_rate:g}, {plan.lr_scheduler_type}")
    table = Table(box=None, padding=(0, 2), show_header=False)
    for name, setting in plan.as_json()["settings"].items():
        reason, value = setting["reason"], setting["value"]
        if reason != "recipe":
            shown = size_text(value) if name.endswith("_bytes") and value is not None else _shown(value)
            table.add_row(f"  {name}", Text(visible(shown)), Text(visible(reason), style="dim"))
    console.out.print(table)
    _memory(console, plan)
    if plan.estimate is not None:
        _estimate(console, plan.estimate)
    first, *others = suggestions.lines(prepared.facts, suggestions.suggest(prepared.facts))
    console.say(first)
    for line in others:
        console.out.print(Padding(Text(visible(line)), (0, 0, 0, 4)))
    warned = set(map(suitability.sentence, prepared.warnings))
    for note in plan.notes:
        if note in warned:
            console.warn(note)
        else:
            console.say(f"note: {note}")


def _memory(console: Console, plan: Plan) -> None:
    memory, budget = plan.memory, plan.budget_bytes
    total = f"{peak_range(plan)} of a budget of {size_text(budget)}, {size_text(budget - plan.upper_bytes)} left"
    console.out.print(f"  [bold]Predicted peak memory: {total}[/bold]")
    if plan.margin_bytes:
        share = plan.margin_bytes / vram.growing(memory)
        console.say(f"At the upper end, activations take {share:.0%} more than their formulas say")
    table = Table(box=None, padding=(0, 2), show_header=False)
    formulas = vram.FORMULAS if plan.device == "cuda" else ram.FORMULAS
    for item, size in sorted(memory.items.items(), key=lambda entry: -entry[1]):
        table.add_row(f"    {item}", f"{size / 2**20:>9,.0f} MiB", Text(formulas.get(item, ""), style="dim"))
    console.out.print(table)
    console.say(f"By phase: {_sizes({name: size for name, size in plan.phases.items() if name != 'train'})}")
    if memory.cpu_items:
        console.say(f"In the computer's memory: {_sizes(memory.cpu_items)}")
    if plan.least_bytes:
        console.say(f"Minimum: {size_text(plan.least_bytes)}. The remaining memory makes training faster.")
    if plan.longest_context:
        console.say(f"Longest example that would fit: {plan.longest_context:,} tokens, with every layer recomputed")


def peak_range(plan: Plan) -> str:
    """ "7.85 to 8.20 GiB": the predicted peak and the upper end; the peak alone where nothing is uncertain."""
    if not plan.margin_bytes:
        return size_text(plan.peak_bytes)
    low, high = size_text(plan.peak_bytes), size_text(plan.upper_bytes)
    unit = high[high.index(" ") :]
    return f"{low.removesuffix(unit)} to {high}"


def _estimate(console: Console, estimate: Estimate) -> None:
    source = f"{estimate.efficiency:.0%} of the card's peak, {estimate.source}"
    console.say(f"Predicted speed: {estimate.tokens_per_second:,.0f} tokens/s ({source})")
    cost = "" if estimate.cost is None else f"; cost {estimate.cost:,.2f}"
    console.say(
        f"Predicted time: {duration(round(estimate.train_seconds))} of training and "
        f"{duration(round(estimate.evaluation_seconds))} of evaluation, without loading and export{cost}"
    )


def mask_audit(console: Console, audit: MaskAudit) -> None:
    """The audit's figures and, in colour, what carries loss in three examples."""
    console.step("Mask audit: which tokens of the trainer's batches carry loss")
    console.say(
        f"{audit.rows} examples in {audit.batches} batches; {audit.supervised_tokens:,} of {audit.tokens:,} tokens "
        f"carry loss ({audit.supervised_share:.1%}); every label equals the computed response mask"
    )
    if audit.refined_rows:
        console.say(
            f"In {audit.refined_rows} examples marker-based masking differs. The computed response mask is used."
        )
    for example in audit.preview:
        text = Text(f"  {visible(example['where'])}  ", style="dim")
        for segment in example["segments"]:
            shown = segment["text"] if segment["supervised"] else _shortened(segment["text"])
            text.append(visible(shown).replace("\n", "⏎"), style="bold green" if segment["supervised"] else "dim")
        console.out.print(text, soft_wrap=True)


def memory(console: Console, compared: Sequence[Comparison]) -> None:
    """Predicted beside measured memory, and a warning for each large difference."""
    rows = [(one.name, size_text(one.predicted), size_text(one.measured), f"{one.error:+.1%}") for one in compared]
    heading = ("", "predicted", "measured", "difference")
    console.table("Memory: predicted and measured", [heading, *rows], numbers=True)
    for sentence in sentences(compared):
        console.warn(sentence)


def verdict(console: Console, judged: dict[str, Any]) -> None:
    """The before/after table and the verdict in a sentence."""
    rows = [("", "base", "tuned"), *kinds.table(judged)]
    console.table("Before and after, on the same held-out questions", rows)
    console.out.print(Text.assemble("  ", ("Verdict:", "bold"), " ", visible(judged["sentence"])))


def evaluation(console: Console, folder: Path) -> None:
    """What `slimtune evaluate` left in its folder."""
    judged = required(folder, "verdict.json")
    if judged:
        verdict(console, judged)
    else:
        console.table("Figures", [("", ""), *kinds.table(required(folder, "figures.json"))])
    found = required(folder, "contamination.json")
    if found and (told := contamination.lines(found)):
        console.warn(told[0])
        for line in told[1:]:
            console.say(line)
    console.paths([("results", folder)])


def comparison(console: Console, result: Mapping[str, Any], folder: Path) -> None:
    """What `slimtune compare` found, and where its page is."""
    brief = len(result["contenders"]) > _WIDEST
    rows = comparison_text.as_list(result) if brief else comparison_text.as_rows(result)
    console.table(comparison_text.title(result), rows)
    for pair in comparison_text.against_reference(result):
        console.say(pair["sentence"])
    for judged in result.get("judged", ()):
        console.say(pairwise.sentence(judged))
    for note in result["notes"]:
        console.warn(note)
    console.paths([("page", folder / "comparison.html"), ("Markdown", folder / "comparison.md")])


def ensemble(console: Console, result: Mapping[str, Any], folder: Path) -> None:
    """What `slimtune ensemble` found: its members and the ways to combine them."""
    console.table("Members and their ensembles, on the same questions", comparison_text.as_list(result))
    console.paths([("results", folder)])


def _sizes(named: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size_text(size)}" for name, size in named.items())


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
