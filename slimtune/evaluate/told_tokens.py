"""Letter probabilities from the likeliest tokens that a server tells."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from slimtune.evaluate.target import Letters, spells

# Servers compute in fp32: what they round to 0, and report as -inf, -9999 or so, is below its smallest number.
_SMALLEST_LOGPROB = math.log(2.0**-149)


@dataclass(frozen=True, slots=True)
class Told:
    """A token that may come next. logprob: natural logarithm. id: in the model's vocabulary, where told."""

    text: str
    logprob: float
    id: int | None = None


def letters_of(
    told: Sequence[Told],
    labels: Sequence[str],
    *,
    spelled: Mapping[str, Collection[int]] | None = None,
    prompt_sha256: str | None = None,
) -> Letters:
    """The labels' probabilities, each summed over the tokens that spell it.

    told: at least one. spelled: ids that spell a label, in addition to what the tokens' texts show. A label without a
    token is `bounded`: it cannot be likelier than the unlikeliest of the tokens told.
    """
    logprobs: dict[str, float] = {}
    bounded = []
    for label in labels:
        ids = (spelled or {}).get(label, ())
        own = [max(t.logprob, _SMALLEST_LOGPROB) for t in told if t.id in ids or spells(t.text, label)]
        if not own:
            bounded.append(label)
        logprobs[label] = _log_sum(own or [max(min(t.logprob for t in told), _SMALLEST_LOGPROB)])
    likeliest = max(told, key=lambda token: token.logprob)
    return Letters(logprobs, likeliest.text, likeliest.id, tuple(bounded), prompt_sha256)


def _log_sum(logprobs: Sequence[float]) -> float:
    """log Σ exp, without underflow."""
    highest = max(logprobs)
    return highest + math.log(sum(math.exp(value - highest) for value in logprobs))
