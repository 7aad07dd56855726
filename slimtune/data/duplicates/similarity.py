"""How much of a test question stands in a training row, letter by letter. No torch.

A letter stands there if one of the five-letter runs around it does. So a changed letter costs one letter, not five.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from slimtune.data.duplicates import ngrams
from slimtune.data.duplicates.ngrams import Floats, Hashes
from slimtune.data.duplicates.question_text import Asked

# So many letters in a row that a question and a training row have in common are a passage.
PASSAGE_LETTERS = 200
# A question may stand anywhere in a longer text, but in one stretch of it, at most so many times as long as itself.
_STRETCH = 2
# Beside the choices a stem counts like two of them, if it has so many letters of its own: 次のうち正しいものはどれか has none.
_STEM_COUNTS, _STEM_LETTERS = 2, 16
# With fewer letters than this around the passage that it has in common with a row, a question is the passage.
_OWN_LETTERS = 5


@dataclass(frozen=True, slots=True)
class _Part:
    """The n-grams of a stem or a choice, and what each of its letters counts.

    telling: 1, or 0 for the beginning and the end that all choices share: of 第5条第1号 and 第5条第2号 only a number
    tells them apart. weights: the same, less for letters that many questions have.
    """

    grams: Hashes
    telling: Floats
    weights: Floats

    def found(self, places: Sequence[Hashes]) -> Floats:
        """1 for each letter that stands in the place that has most of them, else 0."""
        return max((ngrams.covered(self.grams, place) for place in places), key=lambda one: float(one @ self.telling))


@dataclass(frozen=True, slots=True)
class Sought:
    """A test question, ready to be looked for. stem: what it asks, and its answer if that counts."""

    asked: Asked
    stem: tuple[_Part, ...]
    choices: tuple[_Part, ...]

    @property
    def parts(self) -> tuple[_Part, ...]:
        return (*self.stem, *self.choices)


def prepare(asked: Asked, questions: ngrams.Index) -> Sought:
    """`questions` is an index that holds this question."""

    def parts(texts: Sequence[str], telling: Sequence[Floats]) -> tuple[_Part, ...]:
        return tuple(
            _Part(grams, own, own * ngrams.specific(questions.weights[np.searchsorted(questions.found, grams)]))
            for grams, own in zip(ngrams.split(texts), telling, strict=True)
        )

    return Sought(
        asked,
        parts(asked.stem, [np.ones(max(len(text), ngrams.N)) for text in asked.stem]),
        parts(asked.choices, _telling(asked.choices)),
    )


def similarity(sought: Sought, row: Asked) -> float:
    """The share of a test question's letters, by weight, that a training row contains: 0 to 1, and at most

    - the mean share of its choices and stem: the same stem with other choices is another question. Each choice
      is looked for in the row's choices, and the stem in the row's stem;
    - the share of the stem if the row has no choices: a statute that contains the choices asks nothing;
    - the share outside a passage that both contain: two questions about one passage are two.
    """
    stem, choices = sought.stem, sought.choices
    if choices and row.choices:
        places = [[_stretch(row.stem, stem)]] * len(stem) + [ngrams.split(row.choices)] * len(choices)
    else:
        places = [[_stretch(row.parts, sought.parts)]] * len(sought.parts)
    found = [part.found(place) for part, place in zip(sought.parts, places, strict=True)]
    in_stem = found[: len(stem)]
    shares = [_share([part.weights for part in sought.parts], found)]
    if choices:
        own = [_share([part.telling], [letters]) for part, letters in zip(choices, found[len(stem) :], strict=True)]
        if sum(part.weights.sum() for part in stem) >= _STEM_LETTERS:
            own += [_share([part.weights for part in stem], in_stem)] * _STEM_COUNTS
        shares.append(fmean(own))
        if stem and not row.choices:
            shares.append(_share([part.telling for part in stem], in_stem))
    if sought.asked.question:
        shares.append(_share_outside_passage(stem[0], sought.asked.question, row.question))
    return min(shares)


def _share(weights: Sequence[Floats], found: Sequence[Floats]) -> float:
    """Of all letters' weight the share of those that were found; 0 where nothing has weight."""
    total = sum(float(one.sum()) for one in weights)
    return sum(float(one @ letters) for one, letters in zip(weights, found, strict=True)) / total if total else 0.0


def _stretch(texts: Sequence[str], parts: Sequence[_Part]) -> Hashes:
    """The stretch of a row's texts that has most of the parts."""
    if not texts or not parts:
        return np.empty(0, np.uint64)
    wanted = np.concatenate([part.grams for part in parts])
    return ngrams.likeliest_stretch(ngrams.hashes([texts])[0], wanted, _STRETCH * len(wanted))


def _share_outside_passage(question: _Part, text: str, row: str) -> float:
    """The share of the text before and after a common passage that the row has there; 1 without such a passage."""
    if len(text) < PASSAGE_LETTERS:
        return 1.0
    runs, row_runs = (ngrams.hashes([[one]], PASSAGE_LETTERS)[0] for one in (text, row))
    inside, row_inside = np.flatnonzero(np.isin(runs, row_runs)), np.flatnonzero(np.isin(row_runs, runs))
    weights = question.weights.copy()
    if not len(inside):
        return 1.0
    weights[inside[0] : inside[-1] + PASSAGE_LETTERS] = 0
    if weights.sum() < _OWN_LETTERS:
        return 1.0
    overlap = ngrams.N - 1  # runs of letters that reach into the passage
    before, behind = row[: row_inside[0] + overlap], row[row_inside[-1] + PASSAGE_LETTERS - overlap :]
    return _share([weights], [question.found([ngrams.hashes([[before, behind]])[0]])])


def _telling(choices: Sequence[str]) -> list[Floats]:
    before = _shared_start(choices)
    after = _shared_start([choice[before:][::-1] for choice in choices])
    telling = []
    for choice in choices:
        letters = np.zeros(max(len(choice), ngrams.N))
        letters[before : len(choice) - after] = 1
        # Of できる beside できるものとする nothing is its own.
        telling.append(letters if letters.any() else np.ones_like(letters))
    return telling


def _shared_start(texts: Sequence[str]) -> int:
    """How many characters all texts begin with."""
    return len(os.path.commonprefix(texts))  # noqa: RUF071  these are no paths
