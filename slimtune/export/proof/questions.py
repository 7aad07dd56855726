"""The verdict's questions again, through the file that ships: accuracy beside the judged model's, and who flipped. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core.errors import Problem
from slimtune.core.progress import Advance
from slimtune.evaluate import asking
from slimtune.evaluate.judge import statistics
from slimtune.evaluate.kinds.kind import Answer, Item, Settings
from slimtune.evaluate.targets.gguf_target import GgufTarget
from slimtune.models.llama_server import LlamaServer

WHERE_LETTERS_ANSWER = 100
"""Questions that each file is asked, unless the recipe says otherwise: a letter costs one pass over the prompt."""

CLEAR_MARGIN = 0.5
"""Nats between the two likeliest letters of the judged model. The judged model has 4-bit base weights and 16-bit arithmetic,
llama.cpp fp32: their difference is smaller than this. A 16-bit file that flips such an answer is another model."""

_SIGNIFICANT = 0.05
_FLIPS_SHOWN = 20


@dataclass(frozen=True)
class Questions:
    """What the verdict asked, and what the tuned model answered, row for item. of: how many the verdict had."""

    items: Sequence[Item]
    tuned: Sequence[Answer]
    settings: Settings
    of: int

    @classmethod
    def first(cls, count: int, items: Sequence[Item], tuned: Sequence[Answer], settings: Settings) -> Questions | None:
        """The first `count` questions; None for none."""
        count = min(count, len(items))
        return cls(items[:count], tuned[:count], settings, len(items)) if count else None


@dataclass(frozen=True, slots=True)
class QuestionsRecord:
    """asked: of `of` questions. correct, tuned_correct: by the file and by the judged model. prompts_equal: with the ids
    that the judged model was given. lost, gained: right only before, and only now; p_value: of McNemar's exact test.
    clear_flips: other answers where the judged model was sure of its own by more than CLEAR_MARGIN; None where answers
    are text. flips: the first few, {"id", "gold", "tuned", "gguf", "margin"}.
    """

    asked: int
    of: int
    correct: int
    tuned_correct: int
    prompts_equal: int | None
    flipped: int
    clear_flips: int | None
    lost: int
    gained: int
    p_value: float
    flips: tuple[dict[str, Any], ...]

    def problems(self, gguf: str, *, exact: bool) -> list[Problem]:
        """What forbids an export. exact: the file holds the merged weights themselves."""
        problems = []
        if self.prompts_equal is not None and self.prompts_equal < self.asked:
            what = f"{self.asked - self.prompts_equal} of {self.asked} of the verdict's questions become other tokens"
            problems.append(Problem(what, gguf))
        if exact and self.clear_flips:
            told = f"{self.clear_flips} of {self.asked} of the verdict's questions"
            first = next(filter(_is_clear, self.flips), None)
            shown = f"{first['id']}: {first['tuned']} before, {first['gguf']} now" if first else ""
            problems.append(Problem(f"it answers {told} differently from the judged model", gguf, shown))
        if self.lost > self.gained and self.p_value < _SIGNIFICANT:
            what = (
                f"it answers {self.correct} of {self.asked} of the verdict's questions right, and the judged model "
                f"{self.tuned_correct} (McNemar p = {self.p_value:.3f})"
            )
            problems.append(Problem(what, gguf, "export a type with more bits: export.gguf, or --gguf"))
        return problems


def ask(server: LlamaServer, gguf: Path, questions: Questions, *, slots: int, advance: Advance) -> QuestionsRecord:
    """Ask the file in `server` the questions as the verdict asked them.

    Raises SlimtuneError for a prompt that does not fit the server's context, and where llama.cpp fails.
    """
    target = GgufTarget(gguf, server, "unknown", slots, thinking=None)
    rows = asking.ask(target, questions.items, questions.settings, advance=advance)
    pairs = list(zip(questions.tuned, rows, strict=True))
    flips = [
        {
            "id": then["id"],
            "gold": then["gold"],
            "tuned": then["predicted"],
            "gguf": now["predicted"],
            "margin": _margin(then),
        }
        for then, now in pairs
        if then["predicted"] != now["predicted"]
    ]
    by_letters = all("logprobs" in row for row in questions.tuned)
    hashed = [(then["prompt_sha256"], now["prompt_sha256"]) for then, now in pairs]
    known = [pair for pair in hashed if None not in pair]
    lost = sum(then["correct"] and not now["correct"] for then, now in pairs)
    gained = sum(now["correct"] and not then["correct"] for then, now in pairs)
    return QuestionsRecord(
        asked=len(pairs),
        of=questions.of,
        correct=sum(now["correct"] for _, now in pairs),
        tuned_correct=sum(then["correct"] for then, _ in pairs),
        prompts_equal=sum(then == now for then, now in known) if len(known) == len(pairs) else None,
        flipped=len(flips),
        clear_flips=sum(map(_is_clear, flips)) if by_letters else None,
        lost=lost,
        gained=gained,
        p_value=statistics.mcnemar_exact(lost, gained),
        flips=tuple(flips[:_FLIPS_SHOWN]),
    )


def _is_clear(flip: Mapping[str, Any]) -> bool:
    return flip["margin"] is not None and flip["margin"] > CLEAR_MARGIN


def _margin(row: Answer) -> float | None:
    """Log-probability of the likeliest label less that of the next; None where the answer was read from text."""
    if "logprobs" not in row:
        return None
    first, second = sorted(row["logprobs"].values(), reverse=True)[:2]
    return round(first - second, 6)
