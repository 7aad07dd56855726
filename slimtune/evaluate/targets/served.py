"""Requests to a server, several at a time; and from its answers, or a model's own, the probabilities of letters."""

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pydantic import BaseModel, Field

from slimtune.evaluate.targets.target import Letters, spellings, spells

_Given = TypeVar("_Given")
_Got = TypeVar("_Got")

_HIGHEST_LOGPROB = 0.01
"""Of a probability of 1, and what rounding adds; NaN is not below it either."""
# Servers compute in fp32: what they round to 0, and report as -inf, -9999 or so, is below its smallest number.
_SMALLEST_LOGPROB = math.log(2.0**-149)


def in_threads(
    ask: Callable[[_Given], _Got], given: Iterable[_Given], count: int, *, interrupt: Callable[[], None]
) -> list[_Got]:
    """`ask` of each, `count` at a time, in order; the first exception where any fail. interrupt: ends all on Ctrl-C."""
    pool = ThreadPoolExecutor(count)
    try:
        return list(pool.map(ask, given))
    except KeyboardInterrupt:
        interrupt()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class Told(BaseModel):
    """A token that may come next. logprob: natural logarithm. id: in the model's vocabulary, where told."""

    token: str
    logprob: float = Field(le=_HIGHEST_LOGPROB)
    id: int | None = None


def letters_of(
    told: Sequence[Told], labels: Sequence[str], *, spelled: Mapping[str, Collection[int]] | None = None
) -> Letters:
    """The labels' probabilities, each summed over the tokens that spell it.

    told: at least one. spelled: the ids that do, where they are known; without them, the tokens' texts decide (see
    `spells`). A label without a token is `bounded`: it cannot be likelier than the unlikeliest of the tokens told.
    """
    logprobs: dict[str, float] = {}
    bounded = []
    for label in labels:
        own = [token.logprob for token in told if _is(token, label, spelled)]
        bounded += [] if own else [label]
        logprobs[label] = _log_sum(own or [min(token.logprob for token in told)])
    likeliest = max(told, key=lambda token: token.logprob)
    return Letters(logprobs, likeliest.token, likeliest.id, tuple(bounded))


def single_tokens(label: str, encode: Callable[[str], Sequence[int]]) -> frozenset[int]:
    """Ids of the single tokens that spell a label. encode: a vocabulary's, without tokens of its own."""
    encoded = [encode(text) for text in spellings(label)]
    return frozenset(ids[0] for ids in encoded if len(ids) == 1)


def ids_sha256(ids: Sequence[int]) -> str:
    return hashlib.sha256(repr(tuple(ids)).encode()).hexdigest()


def _is(told: Told, label: str, spelled: Mapping[str, Collection[int]] | None) -> bool:
    if spelled is None:
        return spells(told.token, label)
    # A vocabulary that begins words with a space may have a bare letter too, which no text is tokenised to.
    return told.id in spelled[label] or told.token in spellings(label)


def _log_sum(logprobs: Sequence[float]) -> float:
    """log Σ exp, without underflow."""
    highest = max(logprobs)
    if highest < _SMALLEST_LOGPROB:
        return _SMALLEST_LOGPROB
    return highest + math.log(sum(math.exp(value - highest) for value in logprobs))
