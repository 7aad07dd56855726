"""Names that recipes, the command line and the code share; nothing heavy is imported for them."""

from __future__ import annotations

from typing import Literal

KindName = Literal["multiple_choice", "perplexity", "generation"]
"""The kinds of evaluation; each is a file in evaluate/kinds."""


def misfit(kind: str, mode: str, permutations: int, votes: int) -> tuple[str, str]:
    """Which of an evaluation's settings does not fit the others, and why; ("", "") if all do."""
    choices = kind == "multiple_choice"
    if votes > 1 and not (choices and mode == "cot"):
        return "votes", "several votes need kind multiple_choice and mode cot, where replies differ"
    if permutations > 1 and not choices:
        return "permutations", f"kind {kind} has no choices to permute"
    if mode == "cot" and not choices:
        return "mode", "mode cot is for kind multiple_choice; a free reply is judged as a whole"
    return "", ""
