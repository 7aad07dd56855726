"""What to do about a mismatch: the exact values to set where the recipe can mend it, else the command. No torch."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slimtune.data.questions import asked_faults
from slimtune.data.records import Conversation
from slimtune.evaluate.mismatch.differences import Difference, system_prompts
from slimtune.evaluate.mismatch.traits import QUESTION, Traits
from slimtune.recipe.schema import EvaluateSection


@dataclass(frozen=True, slots=True)
class Setup:
    """What of a recipe the findings are about.

    train: the training files. held_out: data.eval. thinking: model.thinking. length: model.max_seq_length. other_mode: whether the evaluation
    file also has rows of the mode that is not asked. available: its rows, of which `max_items` are asked.
    """

    evaluate: EvaluateSection | None
    train: tuple[str, ...]
    thinking: bool
    held_out: str | None
    length: int
    other_mode: bool = False
    available: int = 0

    @property
    def files(self) -> str:
        """The training files, as they are typed."""
        return shlex.join(self.train)


def of(found: Difference, train: Sequence[Traits], test: Sequence[Traits], setup: Setup, instead: str) -> str:
    """instead: the values that ask the rows of `data.eval`, "" where these differ from the training rows too."""
    return system_prompt(found, train, test) or instead or _held_out(train, setup)


def _held_out(train: Sequence[Traits], setup: Setup) -> str:
    """How to make the evaluation of some of the training rows."""
    assert setup.evaluate is not None  # only then there is anything to replace
    fix = f"ask rows like the training's: slimtune data split {setup.files} --test 0.2"
    if len(setup.train) > 1:
        return f"{fix} makes a test file of each"
    stem = Path(setup.train[0]).with_suffix("")
    fix += f", then set data.train: [{{path: {stem}.train.jsonl}}] and evaluate.data: {stem}.test.jsonl"
    kind, questions = setup.evaluate.kind, all(row.asks == QUESTION for row in train)
    if kind == "multiple_choice" and not questions:
        fix += f" and evaluate.kind: {_as_text(setup)}"
    return fix


def _as_text(setup: Setup) -> str:
    """The kind of evaluation for free text: perplexity needs no room for a reply, which a short context may not have."""
    assert setup.evaluate is not None  # only then there is a limit
    return "generation" if 2 * setup.evaluate.max_new_tokens <= setup.length else "perplexity"


def instead(setup: Setup, held_out: Sequence[Conversation]) -> str:
    """The values that make the rows of `data.eval` the evaluation."""
    assert setup.evaluate is not None and setup.held_out is not None  # only then there is anything to replace
    values: dict[str, object] = {"data": setup.held_out}
    questions = not any(asked_faults(row.meta) for row in held_out)
    modes = {str(row.meta.get("mode")) for row in held_out}
    if not questions:
        values["kind"] = _as_text(setup)
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
