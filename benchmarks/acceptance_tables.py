"""The acceptance's results as tables, from its JSON alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

GIB = 2**30


def show(report: Mapping[str, Any], console: Console) -> None:
    """Prediction beside measurement, the effect of each knob, packing, and what went wrong or was left out."""
    if report["stand_in"]:
        console.print(
            f"{report['hardware']['name']} stands for a card with {report['vram_gb']:g} GB: its allocator is capped, its "
            "loss is that of a small card; the speed is its own."
        )
    _print(
        console,
        ("case", "tokens", "predicted GiB", "measured GiB", "error", "of tensors", "tokens/s", "full"),
        measured(report),
    )
    _print(console, ("knob", "tokens", "GiB", "predicted", "speed"), knob_rows(report["knobs"]))
    for case in report["cases"]:
        found = case.get("packing_check")
        if found and found["status"] == "complete":
            apart = {True: "are kept apart", False: "SEE EACH OTHER", None: "cannot be told apart from rounding"}
            labels = "survive" if found["labels_survive"] else "ARE LOST"
            console.print(
                f"{case['case']['name']}: packed examples {apart[found['apart']]} (mean difference "
                f"{found['packed']['mean']:.2g}, rounding {found['noise']['mean']:.2g}, without boundaries "
                f"{found['control']['mean']:.2g}); labels {labels}"
            )
    for name, error in problems(report):
        console.print(f"failed: {name}: {error}", style="red")
    for left in report["left_out"]:
        console.print(f"left out: {left['name']}: {left['reason']}", style="yellow")


def _print(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    table = Table(box=None, padding=(0, 2))
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("case", "knob") else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def measured(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each measurement; on a CPU the measured size is the process's resident set.

    Two errors: of everything the run held, gaps and context included, and of what its tensors took alone.
    """
    rows: list[tuple[str, ...]] = []
    for case in report["cases"]:
        for entry in case["measurements"]:
            name, tokens = case["case"]["name"], str(entry["tokens"] or "")
            if entry["status"] != "complete":
                rows.append((name, tokens, entry["status"], "", "", "", "", ""))
                continue
            predicted = entry["predicted"]["total_bytes"] if entry["predicted"] else None
            errors = entry["errors"] or {}
            rows.append(
                (
                    name,
                    tokens,
                    "–" if predicted is None else f"{predicted / GIB:.2f}",
                    f"{peak_bytes(entry) / GIB:.2f}",
                    *(f"{errors[of]:+.1%}" if of in errors else "–" for of in ("total", "allocated")),
                    f"{entry['speed']['tokens_per_second']:,.0f}",
                    f"{entry['rows']['efficiency']:.0%}",
                )
            )
    return rows


def peak_bytes(entry: Mapping[str, Any]) -> int:
    """What training held at its peak: on a card what the allocator reserved, and the context; else the resident set."""
    train = entry["measured"]["train"]
    if "peak_reserved" in train:
        return int(train["peak_reserved"] + train["context"])
    return int(train.get("peak_resident_set", train.get("peak_resident_set_so_far", 0)))


def knobs(cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each case that turns one knob, against its model's baseline at the same tokens."""
    complete = [
        (case["case"], entry) for case in cases for entry in case["measurements"] if entry["status"] == "complete"
    ]
    baselines = {(case["model"], entry["tokens"]): entry for case, entry in complete if not case["knob"]}
    found = []
    for case, entry in complete:
        base = baselines.get((case["model"], entry["tokens"]))
        if base is None or base is entry:
            continue
        both = entry["predicted"] and base["predicted"]
        found.append(
            {
                "knob": case["knob"],
                "tokens": entry["tokens"],
                "bytes": peak_bytes(entry) - peak_bytes(base),
                "predicted_bytes": entry["predicted"]["total_bytes"] - base["predicted"]["total_bytes"]
                if both
                else None,
                "speed": entry["speed"]["tokens_per_second"] / base["speed"]["tokens_per_second"] - 1,
            }
        )
    return found


def knob_rows(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            knob["knob"],
            str(knob["tokens"]),
            f"{knob['bytes'] / GIB:+.2f}",
            "–" if knob["predicted_bytes"] is None else f"{knob['predicted_bytes'] / GIB:+.2f}",
            f"{knob['speed']:+.1%}",
        )
        for knob in found
    ]


def problems(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and first line of every failure."""
    for model in report["models"]:
        if model["status"] == "failed":
            yield "building the models", model["error"].partition("\n")[0]
    for case in report["cases"]:
        parts = [("", case), (", packing", case.get("packing_check", {}))]
        for entry in case["measurements"]:
            where = f" at {entry['tokens']}"
            parts += [(where, entry), (f"{where}, questions", entry.get("evaluation", {}))]
        for where, part in parts:
            if "error" in part:
                yield case["case"]["name"] + where, part["error"].partition("\n")[0]
