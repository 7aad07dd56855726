"""What to do about a mismatch: the exact values to set where the recipe can mend it, else the command. No torch."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from slimtune.data.questions import asked_faults
from slimtune.data.records import Conversation
from slimtune.evaluate.mismatch.differences import Difference, system_prompts
from slimtune.evaluate.mismatch.traits import Traits
from slimtune.recipe.schema import EvaluateSection


@dataclass(frozen=True, slots=True)
class Setup:
    """What of a recipe the findings are about.

    train: the first training file. held_out: data.eval. length: model.max_seq_length. other_mode: whether the evaluation
    file also has rows of the mode that is not asked. available: its rows, of which `max_items` are asked.
    """

    evaluate: EvaluateSection | None
    train: str
    held_out: str | None
    length: int
    other_mode: bool = False
    available: int = 0

    @property
    def split(self) -> str:
        """The command that makes a test file of the training rows."""
        return f"hold some of the training rows out: slimtune data split {shlex.quote(self.train)} --test 0.2"


def of(
    found: Difference,
    train: Sequence[Traits],
    test: Sequence[Traits],
    better: Sequence[Traits],
    held_out: Sequence[Conversation],
    setup: Setup,
) -> str:
    """better: the rows of `data.eval` where they are like the training rows, else empty; held_out: these rows."""
    if fix := system_prompt(found, train, test):
        return fix
    if better and setup.held_out:
        return instead(setup, held_out)
    return f"ask rows like the training's. {setup.split[0].upper()}{setup.split[1:]}"


def instead(setup: Setup, held_out: Sequence[Conversation]) -> str:
    """The values that make the rows of `data.eval` the evaluation."""
    assert setup.evaluate is not None and setup.held_out is not None  # only then there is anything to replace
    values: dict[str, object] = {"data": setup.held_out}
    questions = not any(asked_faults(row.meta) for row in held_out)
    modes = {row.meta.get("mode") for row in held_out}
    if not questions:
        # Perplexity needs no room for a reply, which a short context may not have.
        fits = 2 * setup.evaluate.max_new_tokens <= setup.length
        values["kind"] = "generation" if fits else "perplexity"
        values |= {"mode": "direct", "votes": 1, "permutations": 1}
    else:
        values["kind"] = "multiple_choice"
        if len(modes) == 1 and "cot" in modes:
            values["mode"] = "cot"
        elif modes == {"direct"}:
            values |= {"mode": "direct", "votes": 1}
    count = setup.evaluate.max_items
    if count is not None and count > len(held_out):
        values["max_items"] = "null"
    changed = [f"evaluate.{key}: {value}" for key, value in values.items() if getattr(setup.evaluate, key) != value]
    return f"set {' and '.join(changed)}"


def system_prompt(found: Difference, train: Sequence[Traits], test: Sequence[Traits]) -> str:
    """How rows without a system prompt get that of the others; "" for another difference."""
    if found.code != "other-system-prompt":
        return ""
    sides = [system_prompts(rows) for rows in (train, test)]
    texts = [[text for text in side if text] for side in sides]
    for own, other in ((0, 1), (1, 0)):
        if len(texts[own]) == 1 and not sides[own][""] and not texts[other]:
            return f"set data.system: {json.dumps(texts[own][0], ensure_ascii=False)}"
    return "give the rows of both files the same system prompt; rows without one get data.system"
