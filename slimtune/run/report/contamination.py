"""The report's section on contamination: what training files and the evaluation set have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from slimtune.core.run_folder import as_dict, as_list
from slimtune.evaluate.judge.text import percent
from slimtune.run.report.values import number

# It is told, but an item that shares only this is not contaminated.
SHARED_CONTEXT = "shared context"


def section(verdict: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Counts, every pair with both lines, and the figures with and without the contaminated items.

    verdict: eval/verdict.json. found: eval/contamination.json. `checked` is false where neither tells of a check.
    """
    told, checked = as_dict(verdict.get("contamination")), as_dict(found.get("checked"))
    pairs = [_pair(as_dict(item)) for item in as_list(found.get("items"))]
    by_kind = Counter(pair["kind"] for pair in pairs if pair["kind"] != SHARED_CONTEXT)
    counts = as_dict(told.get("by_kind")) if told else dict(by_kind)
    return {
        "checked": bool(told or found),
        "against": [
            f"{file.get('path', '?')} ({file.get('rows', '?')} rows)"
            for file in map(as_dict, as_list(checked.get("train")))
        ],
        "test_rows": checked.get("test"),
        "threshold": found.get("threshold"),
        "contaminated": told.get("items", sum(by_kind.values())),
        "counts": [(kind, count) for kind, count in counts.items() if count],
        "shared": told.get("shared_context", sum(pair["kind"] == SHARED_CONTEXT for pair in pairs)),
        "pairs": [pair for pair in pairs if pair["kind"] != SHARED_CONTEXT],
        "shared_pairs": [pair for pair in pairs if pair["kind"] == SHARED_CONTEXT],
        "apart": _apart(told),
    }


def _pair(item: dict[str, Any]) -> dict[str, str]:
    similarity = number(item.get("similarity"))
    return {
        "id": str(item.get("id", "")),
        "kind": str(item.get("kind", "")),
        "similarity": "" if similarity is None else percent(similarity),
        "where": str(item.get("where", "?")),
        "train_where": str(item.get("train_where", "?")),
        "text": str(item.get("test_text", "")),
        "train_text": str(item.get("train_text", "")),
    }


def _apart(told: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """(items, n, base, tuned, p) of the clean and of the contaminated ones, as far as there are any."""
    parts = [(name, as_dict(told.get(name))) for name in ("clean", "contaminated")]
    return [
        (name, str(part["n"]), _score(part, "base"), _score(part, "tuned"), _p_value(part.get("p_value")))
        for name, part in parts
        if part.get("n")
    ]


def _score(part: dict[str, Any], side: str) -> str:
    """How many are right; of texts, the perplexity or the mean chrF."""
    if (correct := number(part.get(f"{side}_correct"))) is not None:
        return f"{correct} right ({percent(correct / part['n'])})"
    for name, label in (("perplexity", "perplexity"), ("chrf", "chrF")):
        if (value := number(part.get(f"{side}_{name}"))) is not None:
            return f"{label} {value:.2f}"
    return "–"


def _p_value(value: Any) -> str:
    p = number(value)
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3g}"
