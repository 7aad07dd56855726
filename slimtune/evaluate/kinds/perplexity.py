"""Perplexity: how likely a model finds the reference answers. Its items are texts."""

import math
from collections.abc import Sequence
from typing import Any

from slimtune.evaluate.kinds.kind import Answer, Answers, Change, Figures, Item, Kind, Metric, Settings, TableRow
from slimtune.evaluate.targets.target import Ability, Prompt, Target


def nats_per_token(answers: Answers) -> float:
    """Σ nll / Σ tokens: a long text counts for more than a short one."""
    return math.fsum(answer["nll"] for answer in answers) / sum(answer["tokens"] for answer in answers)


def perplexity(answers: Answers) -> float:
    """exp(Σ nll / Σ tokens)."""
    return math.exp(nats_per_token(answers))


class Perplexity(Kind):
    """An answer has `nll`, the negative natural log-likelihood of the reference, summed over its `tokens`."""

    name = "perplexity"
    noun, unit, higher_is_better = "text", "nats per token", False
    needed = ("nll", "tokens")
    same = (
        "tokens",
        "different numbers of tokens",
        "a perplexity compares models of one tokenizer and chat template; otherwise generate replies and compare chrF",
    )
    score, score_name = "perplexity", "perplexity "
    metrics = (
        Metric("perplexity", "perplexity", perplexity, "{:.2f}".format),
        Metric("nats_per_token", "nats per token", nats_per_token, "{:.4f}".format),
    )

    def ability(self, settings: Settings) -> Ability:
        return "likelihood"

    def room(self, settings: Settings) -> int:
        return 0

    def ask(self, target: Target, batch: Sequence[Item], settings: Settings) -> list[Answer]:
        found = target.likelihood([Prompt(item.prompt) for item in batch], [item.reference for item in batch])
        return [{"prompt_sha256": None, "nll": round(one.nll, 6), "tokens": one.tokens} for one in found]

    def fault(self, answer: Answer) -> str:
        usable = math.isfinite(answer["nll"]) and answer["tokens"] > 0
        return "" if usable else f"nll is {answer['nll']} over {answer['tokens']} tokens"

    def figures(self, answers: Answers, labels: Sequence[str]) -> Figures:
        return {
            "nll": math.fsum(answer["nll"] for answer in answers),
            "tokens": sum(answer["tokens"] for answer in answers),
        }

    def table(self, frame: dict[str, Any], sides: Sequence[Figures]) -> list[TableRow]:
        return [*self.metric_rows(sides), ("texts / tokens", *(f"{frame['n']} / {side['tokens']}" for side in sides))]

    def change(self, reference: Answers, contender: Answers) -> Change:
        values = [other["nll"] - one["nll"] for one, other in zip(reference, contender, strict=True)]
        return Change(values, [one["tokens"] for one in reference])

    def spread(self, answers: Answers) -> float:
        each = [nats_per_token([answer]) for answer in answers]
        return max(each) - min(each)

    def told(self, answer: Answer) -> dict[str, Any]:
        return {"nats_per_token": nats_per_token([answer])}

    def in_a_word(self, told: dict[str, Any]) -> str:
        return f"{told['nats_per_token']:.3f}"
