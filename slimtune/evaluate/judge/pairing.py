"""Which rows of two evaluations belong together, and which of them the training data gave away."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.evaluate.judge.figures import Rows, is_correct, labels_in

# What a row cannot do without, by its kind.
_NEEDED = {
    "multiple_choice": ("id", "gold", "predicted"),
    "perplexity": ("id", "nll", "tokens"),
    "generation": ("id", "text", "reference", "chrf"),
}
# Without an answer, `predicted` is there and null.
_NULLABLE = ("predicted",)
# What must be the same on both sides for a comparison to mean anything: (field, what is wrong otherwise, what to do).
_SAME_FILE = "let both models answer the same, complete question file"
_REFERENCE = {
    "multiple_choice": ("gold", "different gold answers", _SAME_FILE),
    "perplexity": (
        "tokens",
        "different numbers of tokens",
        "a perplexity per token compares models of one tokenizer and chat template; otherwise generate and compare chrF",
    ),
    "generation": ("reference", "different references", _SAME_FILE),
}
_PROMPT = ("prompt_sha256", "different prompts", "evaluate both with the same data, chat template and settings")
# In the order in which they are told. A shared context alone does not give an answer away.
DUPLICATES = ("exact", "normalised", "near duplicate")
SHARED_CONTEXT = "shared context"


def kind_of(rows: Rows) -> str:
    """The kind of the first row; rows without one are multiple choice."""
    return str(rows[0].get("kind", "multiple_choice")) if rows else "multiple_choice"


def pair(
    base: Rows, tuned: Rows, *, kind: str, labels: Sequence[str] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Both models' rows in the order of the base model's.

    Raises SlimtuneError with all rows that lack a field, repeat an id, contradict themselves, are of another kind or
    answer outside `labels`; if there are none of these, with all that have no partner or were asked something else.
    """
    problems = [*_row_problems("base", base, kind), *_row_problems("tuned", tuned, kind)]
    if not problems:
        problems = _pairing_problems(base, tuned, kind)
    if not problems and labels is not None:
        problems = _label_problems([*base, *tuned], labels)
    if problems:
        raise SlimtuneError(problems, summary="the two evaluations cannot be compared")
    tuned_by_id = {row["id"]: row for row in tuned}
    return list(base), [tuned_by_id[row["id"]] for row in base]


def contaminated(contamination: dict[str, Any] | None, rows: Rows) -> dict[str, Any] | None:
    """What the contamination check says of these rows; None if there was no check.

    contamination: the content of `eval/contamination.json`. Returns items (how many are in the training data), by_kind,
    shared_context (how many only share their context with it) and ids, in the order of the rows.
    """
    if contamination is None:
        return None
    kinds = {str(item["id"]): item["kind"] for item in contamination["items"]}
    ids = [row["id"] for row in rows if kinds.get(str(row["id"])) in DUPLICATES]
    counts = Counter(kinds.get(str(row["id"])) for row in rows)
    return {
        "items": len(ids),
        "by_kind": {kind: counts[kind] for kind in DUPLICATES if counts[kind]},
        "shared_context": counts[SHARED_CONTEXT],
        "ids": ids,
    }


def _row_problems(side: str, rows: Rows, kind: str) -> list[Problem]:
    again = "evaluate this model again"
    if kind not in _NEEDED:
        return [Problem(f"unknown kind '{kind}'", side, f"known are {', '.join(_NEEDED)}")]
    if not rows:
        return [Problem("no items to judge", side, "evaluate this model on the test questions first")]
    problems = []
    for number, row in enumerate(rows, 1):
        where = f"{side} item {number}"
        other = row.get("kind", "multiple_choice")
        missing = [key for key in _NEEDED[kind] if key not in row or (row[key] is None and key not in _NULLABLE)]
        if other != kind:
            problems.append(
                Problem(f"is of the kind '{other}', not '{kind}'", where, "compare evaluations of one kind")
            )
        elif missing:
            problems.append(Problem(f"without {', '.join(missing)}", where, again))
        elif kind == "multiple_choice" and bool(row.get("correct", is_correct(row))) != is_correct(row):
            what = f"marked correct={row['correct']}, but gold is {row['gold']} and predicted {row['predicted']}"
            problems.append(Problem(what, f"{where} ({row['id']})", again))
        elif kind == "perplexity" and not (math.isfinite(row["nll"]) and row["tokens"] > 0):
            what = f"nll is {row['nll']} over {row['tokens']} tokens"
            problems.append(Problem(what, f"{where} ({row['id']})", "check the text and the model's weights"))
    counts = Counter(row.get("id") for row in rows)
    repeated = [str(key) for key, count in counts.items() if count > 1 and key is not None]
    if repeated:
        problems.append(Problem(f"repeated ids: {_some(repeated)}", side, "give every question an id of its own"))
    return problems


def _pairing_problems(base: Rows, tuned: Rows, kind: str) -> list[Problem]:
    base_by_id, tuned_by_id = ({row["id"]: row for row in rows} for rows in (base, tuned))
    problems = []
    if only_base := [str(key) for key in base_by_id if key not in tuned_by_id]:
        problems.append(Problem(f"answered by the base model only: {_some(only_base)}", "tuned", _SAME_FILE))
    if only_tuned := [str(key) for key in tuned_by_id if key not in base_by_id]:
        problems.append(Problem(f"answered by the tuned model only: {_some(only_tuned)}", "base", _SAME_FILE))
    both = [(key, base_by_id[key], tuned_by_id[key]) for key in base_by_id if key in tuned_by_id]
    for field, what, fix in (_REFERENCE[kind], _PROMPT):
        # Servers that render the prompt themselves do not tell its hash.
        told = [(key, one.get(field), other.get(field)) for key, one, other in both]
        if differ := [str(key) for key, one, other in told if None not in (one, other) and one != other]:
            problems.append(Problem(f"{what}: {_some(differ)}", "base and tuned", fix))
    shown = [(key, _orders(one), _orders(other)) for key, one, other in both]
    # An ensemble has combined its members' orders already, and shows none.
    if orders := [str(key) for key, one, other in shown if one and other and one != other]:
        fix = "evaluate both with the same permutations of the choices"
        problems.append(Problem(f"choices asked in different orders: {_some(orders)}", "base and tuned", fix))
    return problems


def _orders(row: dict[str, Any]) -> list[str]:
    return [order["order"] for order in row.get("permutations") or ()]


def _label_problems(rows: Rows, labels: Sequence[str]) -> list[Problem]:
    used = labels_in([{"gold": row["gold"], "predicted": row["predicted"]} for row in rows])
    unknown = [label for label in used if label not in labels]
    if not unknown:
        return []
    return [Problem(f"answers outside {', '.join(labels)}: {_some(unknown)}", "labels", "name every possible answer")]


def _some(names: list[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
