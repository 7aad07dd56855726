"""Character n-grams: hashed, weighted by how few texts have them, and what one text holds of another. No torch.

A text here is a sequence of parts (a question, its choices), and no n-gram reaches from one part into the next.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

N = 5
# A weight falls with the logarithm of the share of texts that have the n-gram: 1 at 0 %, 0.85 at 1 %, 0.5 at 10 %.
# Below the least weight (from 62 % on) it is 0, so that a stem that all texts have costs no time either.
RARE_SHARE, LEAST_WEIGHT = 0.01, 0.1
# A share of a handful of texts says little: so many more texts without the n-gram are assumed.
ASSUMED_TEXTS = 5

_SEPARATOR, _FILLER = "\x01", "\x00"
_BASE, _SPREAD = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93


def hashes(texts: Sequence[Sequence[str]], n: int = N) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """The n-grams of all texts in their order, as hashes, and for each the index of its text.

    A part that is shorter than n is one n-gram, which only a part with the same characters has.
    """
    filled = [_SEPARATOR.join(part.ljust(n, _FILLER) for part in parts) for parts in texts]
    joined = _SEPARATOR.join(filled)
    codes = np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32)
    if len(codes) < n:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    owners = np.repeat(np.arange(len(texts)), [len(text) + 1 for text in filled])[: len(codes)]
    ends = np.cumsum(codes == ord(_SEPARATOR))
    first, last = np.arange(len(codes) - n + 1), np.arange(n - 1, len(codes))
    whole = (ends[first] == ends[last]) & (codes[first] != ord(_SEPARATOR))
    return _window_hashes(codes, n)[whole], owners[first[whole]]


def split(texts: Sequence[str]) -> list[Hashes]:
    """The n-grams of each text."""
    grams, owners = hashes([[text] for text in texts])
    return np.split(grams, np.searchsorted(owners, np.arange(1, len(texts)))) if texts else []


def _window_hashes(codes: npt.NDArray[np.uint32], n: int) -> Hashes:
    """The polynomial hash, modulo 2⁶⁴, of each window of n codes; put together from windows of powers of two."""
    power = codes.astype(np.uint64) * np.uint64(_SPREAD)
    power ^= power >> np.uint64(29)
    power *= np.uint64(_BASE)
    size, done = 1, 0
    total = np.zeros(len(codes) - n + 1, np.uint64)
    while True:
        if n & size:
            total = total * np.uint64(pow(_BASE, size, 2**64)) + power[done : done + len(total)]
            done += size
        if done == n:
            return total
        power = power[:-size] * np.uint64(pow(_BASE, size, 2**64)) + power[size:]
        size *= 2


@dataclass(frozen=True, slots=True)
class Index:
    """The n-grams of the texts that are looked for.

    n: their length. found, weights: (n-grams,), in ascending order of the hash. weighted: (texts, n-grams), the weight
    of each n-gram of each text. totals: (texts,), its sums.
    """

    n: int
    found: Hashes
    weights: Floats
    weighted: sparse.csr_array
    totals: Floats

    def shares(self, texts: Sequence[Sequence[str]]) -> sparse.coo_array:
        """(texts, indexed texts): the share of an indexed text's weight that a text has, where it is not 0."""
        held = _incidence(texts, self.n, self.found) @ self.weighted.T
        inverse = np.divide(1.0, self.totals, out=np.zeros_like(self.totals), where=self.totals > 0)
        return sparse.coo_array(held @ sparse.diags_array(inverse))


def index(
    texts: Sequence[Sequence[str]],
    others: Iterable[Sequence[Sequence[str]]],
    *,
    n: int = N,
    least_weight: float = LEAST_WEIGHT,
) -> Index:
    """texts: what is looked for. others: batches of further texts; all texts together show which n-grams are common.

    An n-gram in a share s of all texts weighs log(s + RARE_SHARE) / log(RARE_SHARE), an inverse document frequency: 1
    for a unique n-gram. Two texts are subtracted first, so that a text and its duplicate do not make it common.
    """
    found = np.unique(hashes(texts, n)[0])
    own = _incidence(texts, n, found)
    counts, size = own.sum(axis=0), len(texts)
    for batch in others:
        counts = counts + _incidence(batch, n, found).sum(axis=0)
        size += len(batch)
    shares = np.maximum(counts - 2, 0) / (size + ASSUMED_TEXTS)
    weights = np.log(np.minimum(shares + RARE_SHARE, 1)) / np.log(RARE_SHARE)
    weights[weights < least_weight] = 0
    weighted = sparse.csr_array(own @ sparse.diags_array(weights))
    weighted.eliminate_zeros()
    return Index(n, found, weights, weighted, weighted.sum(axis=1))


def _incidence(texts: Sequence[Sequence[str]], n: int, found: Hashes) -> sparse.csr_array:
    """(texts, found): 1 where a text has an n-gram of `found`, which is sorted."""
    grams, owners = hashes(texts, n)
    places, known = _places(found, grams)
    ones = np.ones(int(known.sum()))
    matrix = sparse.csr_array((ones, (owners[known], places[known])), shape=(len(texts), len(found)))
    matrix.data[:] = 1  # not how often
    return matrix


def _places(found: Hashes, grams: Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """For each n-gram its place in the sorted `found`, and whether `found` has it."""
    if not len(found):
        return np.zeros(len(grams), np.int64), np.zeros(len(grams), bool)
    places = np.minimum(np.searchsorted(found, grams), len(found) - 1)
    return places, np.equal(found[places], grams)


def covered(part: Hashes, within: Hashes) -> Floats:
    """For each character of a part, by its n-grams, 1 if one of the n-grams around it is in `within`, else 0."""
    return spread(_places(np.sort(within), part)[1]).astype(np.float64)


def spread(held: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(…, n-grams of a part) to (…, its characters): whether one of the n-grams around a character is held."""
    grams = held.shape[-1]
    around = np.zeros((*held.shape[:-1], grams + N - 1), bool)
    for shift in range(N):
        around[..., shift : shift + grams] |= held
    return around


def specific(weights: Floats) -> Floats:
    """For each character of a part, the least weight of the n-grams around it.

    In a sentence whose only own part is a number, only the number has weight.
    """
    around = np.full(len(weights) + N - 1, np.inf)
    for shift in range(N):
        own = around[shift : shift + len(weights)]
        np.minimum(own, weights, out=own)
    return around


def likeliest_stretch(grams: Hashes, sought: Hashes, length: int) -> Hashes:
    """The `length` n-grams in a row of which most are among those sought."""
    if len(grams) <= length:
        return grams
    hits = np.concatenate(([0], np.cumsum(np.isin(grams, sought))))
    start = int(np.argmax(hits[length:] - hits[:-length]))
    return grams[start : start + length]
