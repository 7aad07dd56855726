"""Which questions of a set belong together: equal, nearly equal, or of one key. No torch."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from slimtune.core.progress import Advance, ignore
from slimtune.data.duplicates import ngrams, similarity
from slimtune.data.duplicates.ngrams import Floats
from slimtune.data.duplicates.question_text import Asked

Numbers = npt.NDArray[np.int64]

THRESHOLD = 0.8
# A question is compared with all that have this share of its n-grams' weight. A changed letter breaks five n-grams: in
# sets of one template, pairs with a similarity from 0.8 on had a share of at least 0.3.
_LEAST_SHARE = 0.3
# Bounds what a batch takes: each of its questions may have something in common with each of all.
_BATCH_PAIRS = 4_000_000
_ROUNDING = 1e-9


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
        """Join the numbers whose keys are equal; None stands for no key."""
        first: dict[object, int] = {}
        for number, key in enumerate(keys):
            if key is not None:
                self.join(first.setdefault(key, number), number)


def near_duplicates(
    asked: Sequence[Asked], *, threshold: float = THRESHOLD, on_progress: Advance = ignore
) -> Iterator[tuple[int, int]]:
    """Pairs of places in `asked` that hold the same question: equal, or with a similarity from `threshold` on.

    Only as many pairs are given as it takes to join all questions of a group.
    """
    first: dict[tuple[str, tuple[str, ...]], int] = {}
    for number, one in enumerate(asked):
        earlier = first.setdefault((one.question, one.options), number)
        if earlier != number:
            yield earlier, number
    places = list(first.values())
    distinct = [asked[place] for place in places]
    search = _Search(ngrams.index([one.parts for one in distinct], ()))
    labels = np.arange(len(distinct))  # equal for those that are joined
    batch = max(1, _BATCH_PAIRS // max(1, len(distinct)))
    for start in range(0, len(distinct), batch):
        for number, holders in search.candidates(start, start + batch):
            holders = holders[labels[holders] != labels[number]]
            if not len(holders):
                continue
            sought = similarity.prepare(distinct[number], search.index)
            for holder in holders[search.most(sought, holders) >= threshold - _ROUNDING]:
                joined = labels[holder] == labels[number]
                if not joined and similarity.similarity(sought, distinct[holder]) >= threshold:
                    labels[labels == labels[holder]] = labels[number]
                    yield places[number], places[holder]
        on_progress(min(start + batch, len(distinct)), len(distinct))


class _Search:
    """What of the texts of an index may be near duplicates, and how near at most."""

    def __init__(self, index: ngrams.Index):
        self.index = index
        self._present = sparse.csr_array((index.weighted != 0).astype(np.float64).T)  # (n-grams, texts)
        self._column = np.full(len(index.found), -1)  # of the n-grams of one text, between two calls all -1

    def candidates(self, start: int, stop: int) -> Iterator[tuple[int, Numbers]]:
        """For each text from `start` to `stop` of which others have the least share: its number and theirs."""
        held = sparse.csr_array(self.index.weighted[start:stop] @ self._present)
        for number in range(start, start + held.shape[0]):
            row = slice(*held.indptr[number - start : number - start + 2])
            holders = held.indices[row][held.data[row] >= _LEAST_SHARE * self.index.totals[number]]
            holders = np.sort(holders[holders != number])
            if len(holders):
                yield number, holders

    def most(self, sought: similarity.Sought, holders: Numbers) -> Floats:
        """(holders,): an upper bound of the similarity to each, namely the share of letters that it has anywhere."""
        grams = np.concatenate([part.grams for part in sought.parts])
        own, columns = np.unique(np.searchsorted(self.index.found, grams), return_inverse=True)
        rows = self.index.weighted[holders]
        self._column[own] = np.arange(len(own))
        held_columns = self._column[rows.indices]
        self._column[own] = -1
        known = held_columns >= 0
        held = np.zeros((len(holders), len(own)), bool)
        held[np.repeat(np.arange(len(holders)), np.diff(rows.indptr))[known], held_columns[known]] = True
        found, total, start = np.zeros(len(holders)), 0.0, 0
        for part in sought.parts:
            letters = ngrams.spread(held[:, columns[start : start + len(part.grams)]])
            found += letters[:, part.weights > 0] @ part.weights[part.weights > 0]
            total += float(part.weights.sum())
            start += len(part.grams)
        return found / total if total else found
