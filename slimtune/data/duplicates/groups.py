"""Which questions of a set belong together: equal, nearly equal, or of one key. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from slimtune.data.duplicates import ngrams, similarity
from slimtune.data.duplicates.question_text import Asked

THRESHOLD = 0.8
# A question is compared with those that have most of its n-grams, if they have this share of its n-grams' weight.
_CANDIDATES, _LEAST_SHARE = 4, 0.5
_BATCH = 256


class Union:
    """Disjoint sets of the numbers below `count` (union-find with path halving; Tarjan and van Leeuwen 1984)."""

    def __init__(self, count: int):
        self._parents = list(range(count))

    def root(self, number: int) -> int:
        """Equal for two numbers of one set: the least of them."""
        parents = self._parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._parents[high] = low

    def join_equal(self, keys: Sequence[object]) -> None:
        """One set for the numbers whose keys are equal; None is no key."""
        first: dict[object, int] = {}
        for number, key in enumerate(keys):
            if key is not None:
                self.join(first.setdefault(key, number), number)


def near_duplicates(
    asked: Sequence[Asked],
    *,
    threshold: float = THRESHOLD,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, int]]:
    """Pairs of places in `asked` of one question written twice: similarity.similarity from `threshold` on, one way or
    the other, equal questions always.

    Equal questions are looked at once. A question is compared with the few that share most of its rare n-grams, and of
    a chain of near duplicates not every pair is given, only enough to join them.
    """
    first: dict[tuple[str, tuple[str, ...]], int] = {}
    for number, one in enumerate(asked):
        earlier = first.setdefault((one.question, one.options), number)
        if earlier != number:
            yield earlier, number
    places = list(first.values())
    distinct = [asked[place] for place in places]
    index = ngrams.index([one.parts for one in distinct], ())
    sought: dict[int, similarity.Sought] = {}
    joined = Union(len(distinct))
    for start in range(0, len(distinct), _BATCH):
        batch = distinct[start : start + _BATCH]
        for row, column in _candidates(index, [one.parts for one in batch], start):
            if joined.root(row) == joined.root(column):
                continue
            if column not in sought:
                sought[column] = similarity.prepare(distinct[column], index)
            if similarity.similarity(sought[column], distinct[row]) >= threshold:
                joined.join(row, column)
                yield places[row], places[column]
        if on_progress:
            on_progress(start + len(batch), len(distinct))


def _candidates(index: ngrams.Index, texts: Sequence[Sequence[str]], start: int) -> list[tuple[int, int]]:
    """(number of a text, number of an indexed text that it may be a duplicate of); texts: those from `start` on."""
    shares = index.shares(texts)
    likely = (shares.data >= _LEAST_SHARE) & (shares.row + start != shares.col)
    rows, columns, values = shares.row[likely] + start, shares.col[likely], shares.data[likely]
    order = np.lexsort((columns, -values, rows))
    rows, columns = rows[order], columns[order]
    kept = _rank(rows) < _CANDIDATES
    return list(zip(rows[kept].tolist(), columns[kept].tolist(), strict=True))


def _rank(sorted_rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many equal values stand before each."""
    ranks: npt.NDArray[np.int64] = np.arange(len(sorted_rows)) - np.searchsorted(sorted_rows, sorted_rows)
    return ranks
