"""What the measurements of all contenders say: the same examples or not, ratios, goals, the table. Plain data, no torch."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

OURS = "slimtune"
GOALS = {"trl": 3.0, "unsloth": 1.15}
"""How many times as fast as each peer Slimtune wants to be."""

_GIB = 2**30

Report = Mapping[str, Any]


def measured(report: Report, contender: str, name: str) -> dict[str, Any] | None:
    """What a contender measured on a data set; None where it did not come to it."""
    found: dict[str, Any] | None = report["contenders"].get(contender, {}).get("data", {}).get(name)
    return found


def ratio(report: Report, contender: str, peer: str, name: str) -> float | None:
    """How many times the peer's examples a second."""
    ours, theirs = measured(report, contender, name), measured(report, peer, name)
    if ours is None or theirs is None:
        return None
    return float(ours["examples_per_second"] / theirs["examples_per_second"])


def differences(report: Report) -> list[str]:
    """Where a contender's batches were not the examples that were written for all, label for label."""
    problems = []
    for name, data in report["data"].items():
        for contender in report["contenders"]:
            result = measured(report, contender, name)
            if result is not None and result["epoch"] != data["epoch"]:
                seen, wanted = result["epoch"], data["epoch"]
                figures = ", ".join(
                    f"{seen[key]} {key}, not {wanted[key]}" for key in wanted if seen[key] != wanted[key]
                )
                problems.append(f"{contender} on {name}: {figures}")
    return problems


def under_cap(report: Report, contender: str) -> bool | None:
    """Whether all that was measured stayed within the allocator's limit; None on a CPU and where nothing was."""
    limit = report["settings"]["limit_bytes"]
    peaks = [peak for peak in _peaks(report["contenders"].get(contender, {})) if peak is not None]
    return None if limit is None or not peaks else max(peaks) <= limit


def _peaks(result: Mapping[str, Any]) -> list[int | None]:
    trained = [one["memory"].get("peak_reserved") for one in result.get("data", {}).values()]
    tried = (result.get("context") or {}).get("tried", {}).values()
    return trained + [one.get("peak_reserved") for one in tried]


def goals(report: Report) -> list[dict[str, Any]]:
    """Every goal with "met", "not met" or "not measured", and why."""
    result = []
    for peer, wanted in GOALS.items():
        found = {name: ratio(report, OURS, peer, name) for name in report["data"]}
        figures = ", ".join(f"{name} {value:.2f}x" for name, value in found.items() if value is not None)
        missing = [name for name, value in found.items() if value is None] if found else ["every data set"]
        state, why = _state(report, missing, all(value is None or value >= wanted for value in found.values()))
        result.append({"goal": f"at least {wanted:g}x {peer}", "state": state, "why": why or figures})
    kept = under_cap(report, OURS)
    state, why = _state(report, ["memory"] if kept is None else [], bool(kept))
    result.append({"goal": "never above the cap", "state": state, "why": why or "peak memory that PyTorch reserved"})
    return result


def _state(report: Report, missing: list[str], reached: bool) -> tuple[str, str]:
    if report["toy"]:
        return "not measured", "a toy run on a CPU shows that the script works, not how fast anything is"
    if differences(report):
        return "not measured", "the contenders did not see the same examples"
    if not reached:
        return "not met", ""
    return ("not measured", f"missing: {', '.join(missing)}") if missing else ("met", "")


def table(report: Report) -> Table:
    """The measurements, a row for each contender and data set."""
    limit = report["settings"]["limit_bytes"]
    cap = f"allocator capped at {limit / _GIB:.2f} GiB" if limit else "no memory cap on a CPU"
    shown = Table(title=f"{report['machine']['name']}, {cap}", title_justify="left")
    for heading in ("contender", "data", "examples/s", "labelled tok/s", "x trl", "x unsloth"):
        shown.add_column(heading, justify="left" if heading in ("contender", "data") else "right")
    for heading in ("peak GiB", "longest context", "under the cap"):
        shown.add_column(heading, justify="right")
    for name in report["data"] or ["-"]:
        for contender, result in report["contenders"].items():
            one = measured(report, contender, name)
            kept = {True: "yes", False: "NO", None: "-"}[under_cap(report, contender)]
            if one is None:
                failed = "failed" if report["data"] else ""
                shown.add_row(contender, name, failed, "", "", "", "", _context(result), kept)
                continue
            peak = one["memory"].get("peak_reserved", one["memory"].get("peak_resident_set"))
            speeds = (f"{one['examples_per_second']:.2f}", f"{one['supervised_tokens_per_second']:,.0f}")
            ratios = [ratio(report, contender, peer, name) for peer in GOALS]
            shown.add_row(
                contender,
                name,
                *speeds,
                *("-" if value is None else f"{value:.2f}" for value in ratios),
                f"{peak / _GIB:.2f}",
                _context(result),
                kept,
            )
    return shown


def _context(result: Mapping[str, Any]) -> str:
    context = result.get("context")
    if not context:
        return "-"
    if context["tokens"] is None:
        return "not searched"
    return f"{'' if context['finished'] else 'at least '}{context['tokens']:,}"
