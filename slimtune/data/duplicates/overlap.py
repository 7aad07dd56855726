"""Which training rows may hold a test item: one pass over the training data, beside an index of the test's n-grams.

No training row is compared with every test item, and of the training data only what was found is kept.
"""

import bisect
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from slimtune.core.progress import Advance, ignore
from slimtune.data.duplicates import ngrams, question_text
from slimtune.data.duplicates.question_text import Asked
from slimtune.data.duplicates.similarity import PASSAGE_LETTERS
from slimtune.data.records import Conversation, Message
from slimtune.data.splitting import context_key

# A text that more than about 9 % of the rows have (weight 0.5) does not count as a passage.
_PASSAGE_WEIGHT = 0.5
# Training rows that are sampled to see which n-grams are common.
_SAMPLE = 5000
_BATCH_CHARACTERS = 400_000
# The training rows that have most of an item are kept, if they have at least this share of its n-grams' weight.
MOST_CANDIDATES, _LEAST_SHARE = 8, 0.3
# Questions with equal choices that end alike are compared: one of them may have passages before it. Where many end
# alike, as yes-or-no questions may, the ending says nothing.
_ENDING, _MOST_ALIKE = 12, 20


@dataclass(frozen=True, slots=True)
class TrainRow:
    """A question of a training row; number: counts the questions."""

    number: int
    asked: Asked
    where: str


@dataclass(slots=True)
class TestItem:
    """A test item, and what was found of it.

    turns: messages that its question consists of. context: the key of its context, or "". passage: see `_passage`.
    exact, normalised: the first row that asks the same. candidates: the rows with most of the question, as ascending
    (-share, number, row). neighbours: the first rows with its context or a passage of it.
    """

    id: str
    where: str
    asked: Asked
    turns: int
    context: str
    passage: tuple[str, ...]
    exact: TrainRow | None = None
    normalised: TrainRow | None = None
    candidates: list[tuple[float, int, TrainRow]] = field(default_factory=list)
    neighbours: dict[int, TrainRow] = field(default_factory=dict)

    @property
    def floor(self) -> float:
        """The share that a further candidate has to exceed."""
        return -self.candidates[-1][0] if len(self.candidates) == MOST_CANDIDATES else _LEAST_SHARE

    def add_neighbour(self, row: TrainRow) -> None:
        if len(self.neighbours) < MOST_CANDIDATES:
            self.neighbours.setdefault(row.number, row)


def read_items(test: Sequence[Conversation]) -> list[TestItem]:
    """The test items, none of them looked for yet.

    A prompt that several rows share without choices ("Summarise.") does not tell them apart; then the answer does.
    """
    items = [_item(conversation) for conversation in test]
    answers = [question_text.letters(conversation.messages[-1].content) for conversation in test]
    told: defaultdict[str, set[str]] = defaultdict(set)
    for item, answer in zip(items, answers, strict=True):
        told[item.asked.question].add(answer)
    for item, answer in zip(items, answers, strict=True):
        if not item.asked.choices and len(told[item.asked.question]) > 1:
            item.asked = replace(item.asked, answer=answer)
    return items


def search(train: Sequence[Conversation], items: Sequence[TestItem], *, on_progress: Advance = ignore) -> ngrams.Index:
    """Fill in what the items have in common with the training rows; returns the index of the items' questions."""
    turns, answers = {1, *(item.turns for item in items)}, any(item.asked.answer for item in items)
    questions, passages = _indices(train, items, turns, answers)
    by_key = _by_key(items)
    numbers, done = itertools.count(), 0
    for batch in _batches(train):
        rows: list[TrainRow] = []
        last_rows: list[TrainRow] = []
        for conversation in batch:
            asked = _asked(conversation, turns, answers)
            rows += [TrainRow(next(numbers), one, conversation.where) for one in asked]
            last_rows.append(rows[-1])
        for row in rows:
            _note_equal(row, by_key)
        _note_candidates(rows, items, questions)
        for conversation, row in zip(batch, last_rows, strict=True):
            _note_context(context_key(_context(conversation)), row, by_key)
        shared = passages.shares([_passage(conversation) for conversation in batch])
        for place, column in zip(shared.row, shared.col, strict=True):
            items[column].add_neighbour(last_rows[place])
        done += len(batch)
        on_progress(done, len(train))
    return questions


def _indices(
    train: Sequence[Conversation], items: Sequence[TestItem], turns: set[int], answers: bool
) -> tuple[ngrams.Index, ngrams.Index]:
    """Of the items' questions, and of the passages of PASSAGE_LETTERS in them."""
    sample = random.Random(0).sample(train, min(len(train), _SAMPLE))
    questions = ngrams.index(
        [item.asked.parts for item in items],
        ([asked.parts for one in batch for asked in _asked(one, turns, answers)] for batch in _batches(sample)),
    )
    passages = ngrams.index(
        [item.passage for item in items],
        ([_passage(one) for one in batch] for batch in _batches(sample)),
        n=PASSAGE_LETTERS,
        least_weight=_PASSAGE_WEIGHT,
    )
    return questions, passages


def _batches(conversations: Sequence[Conversation]) -> Iterator[list[Conversation]]:
    """All rows in order, in batches of about _BATCH_CHARACTERS: what the n-grams of a batch take is bounded."""
    batch: list[Conversation] = []
    characters = 0
    for conversation in conversations:
        batch.append(conversation)
        characters += sum(len(message.content) for message in conversation.messages)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


_Keys = dict[tuple[object, ...], list[TestItem]]


def _by_key(items: Sequence[TestItem]) -> _Keys:
    """The items by everything of which an equal one may be in a training row."""
    by_key: defaultdict[tuple[object, ...], list[TestItem]] = defaultdict(list)
    for item in items:
        asked = item.asked
        by_key["text", asked.text, asked.answer].append(item)
        by_key["question", asked.question, asked.options, asked.answer].append(item)
        if asked.choices:
            by_key["ending", asked.question[-_ENDING:], asked.options].append(item)
        if item.context:
            by_key["context", item.context].append(item)
    return {key: alike for key, alike in by_key.items() if key[0] != "ending" or len(alike) <= _MOST_ALIKE}


def _note_equal(row: TrainRow, by_key: _Keys) -> None:
    asked = row.asked
    for answer in {"", asked.answer}:
        for item in by_key.get(("text", asked.text, answer), ()):
            item.exact = item.exact or row
        for item in by_key.get(("question", asked.question, asked.options, answer), ()):
            item.normalised = item.normalised or row
    if asked.choices:
        for item in by_key.get(("ending", asked.question[-_ENDING:], asked.options), ()):
            short, long = sorted((item.asked.question, asked.question), key=len)
            if long.endswith(short):
                item.normalised = item.normalised or row


def _note_context(context: str, row: TrainRow, by_key: _Keys) -> None:
    key = ("context", context)
    alike = by_key.get(key, [])
    for item in alike:
        item.add_neighbour(row)
    if all(len(item.neighbours) == MOST_CANDIDATES for item in alike):
        by_key.pop(key, None)  # one statute for all rows must not cost rows times items


def _note_candidates(rows: Sequence[TrainRow], items: Sequence[TestItem], questions: ngrams.Index) -> None:
    shares = questions.shares([row.asked.parts for row in rows])
    floors = np.array([item.floor for item in items])
    better = np.flatnonzero(shares.data > floors[shares.col])
    for place in better[np.argsort(-shares.data[better], kind="stable")]:
        item, share = items[shares.col[place]], float(shares.data[place])
        if share > item.floor:
            row = rows[shares.row[place]]
            bisect.insort(item.candidates, (-share, row.number, row))
            del item.candidates[MOST_CANDIDATES:]


def _item(conversation: Conversation) -> TestItem:
    prompt = [message.content for message in conversation.messages[:-1] if message.role != "system"]
    answer, choices = conversation.messages[-1].content, conversation.meta.get("choices")
    asked, turns = question_text.read(prompt[-1], answer, choices), 1
    if not asked.choices and len(prompt) > 1:
        # "And why?" is no question without what was said before; a question with its choices is.
        asked, turns = question_text.read("\n\n".join(prompt)), len(prompt)
    return TestItem(
        id=str(conversation.meta.get("id") or conversation.where),
        where=conversation.where,
        asked=asked,
        turns=turns,
        context=context_key(_context(conversation)),
        passage=_passage(conversation),
    )


def _asked(conversation: Conversation, turns: set[int], answers: bool) -> list[Asked]:
    """What a training row asks: each of its user's turns, alone or with as many turns before it as test items have."""
    spoken = _spoken(conversation)
    found = []
    for end in range(1, len(spoken), 2):
        choices = conversation.meta.get("choices") if end == len(spoken) - 1 else None
        answer = spoken[end].content
        for count in (count for count in turns if count <= end):
            if count == 1:
                asked = question_text.read(spoken[end - 1].content, answer, choices)
            else:
                asked = question_text.read("\n\n".join(message.content for message in spoken[end - count : end]))
            found.append(replace(asked, answer=question_text.letters(answer)) if answers else asked)
    return found


def _spoken(conversation: Conversation) -> list[Message]:
    """User and assistant in turn: of what the assistant does before it answers, calling tools, the last turn alone."""
    spoken: list[Message] = []
    for message in conversation.messages:
        if message.role == "assistant" and spoken[-1].role == "assistant":
            spoken[-1] = message
        elif message.role in ("user", "assistant"):
            spoken.append(message)
    return spoken


def _context(conversation: Conversation) -> str:
    context = conversation.meta.get("context")
    return context if isinstance(context, str) else ""


def _passage(conversation: Conversation) -> tuple[str, ...]:
    """The letters of its context, or else of its prompt; () where they are too few for a passage."""
    prompt = "\n".join(message.content for message in conversation.messages[:-1])
    letters = question_text.letters(_context(conversation) or prompt)
    return (letters,) if len(letters) >= PASSAGE_LETTERS else ()
