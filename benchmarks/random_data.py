"""Training examples and four-choice questions of random words, of exactly the lengths that are asked for.

What a step costs depends on how long the examples are and on how many of their tokens carry loss, not on what they say.
"""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation, Message
from slimtune.plan.lengths import packed_rows

# A statute question with its answer in a few sentences: the middle of such data, and how far it spreads.
MEDIAN_TOKENS, SPREAD = 450, 0.6
SHORTEST = 128  # Qwen2.5's template alone has about 60 tokens in the built-in vocabulary
LABELLED_SHARE = 0.3  # between one-letter answers (1 %) and worked reasoning (50 %)

_FEWEST_WORDS = 8  # of a question: enough for as many different ones as any benchmark needs
_WORDS = (
    "the",
    "answer",
    "question",
    "of",
    "a",
    "b",
    "to",
    "in",
    "is",
    "and",
    "user",
    "name",
    "first",
    "last",
    "order",
)


def lengths_for_rows(rows: int, row_length: int, *, seed: int = 0) -> list[int]:
    """Example lengths that fill `rows` packed rows of `row_length` tokens: log-normal, and one as long as a row.

    That one makes at least one micro-batch exactly as large as the plan expects of the largest.
    """
    draw = random.Random(seed)
    lengths = [row_length]
    while True:
        length = round(draw.lognormvariate(math.log(min(MEDIAN_TOKENS, row_length / 3)), SPREAD))
        length = min(max(length, SHORTEST), row_length)
        if packed_rows([*lengths, length], row_length) > rows:
            return lengths
        lengths.append(length)


def write_examples(path: Path, lengths: Sequence[int], tokenizer: ChatTokenizer, *, seed: int = 0) -> Path:
    """JSONL of examples that have exactly these many tokens, rendered with the tokenizer's own template.

    About `LABELLED_SHARE` of an example is its answer; no question comes twice.
    Raises ValueError for a length that leaves no room for words beside the template.
    """
    draw = random.Random(seed)
    words = _Words(tokenizer, draw)
    least = _tokens(tokenizer, "a", "a") - 2
    rows: dict[str, str] = {}
    for length in lengths:
        answer = round(LABELLED_SHARE * length)
        question = length - least - answer
        if question < _FEWEST_WORDS:
            raise ValueError(f"an example of {length} tokens: the template alone has {least}")
        text = words.of(question)
        while text in rows:
            text = words.of(question)
        rows[text] = words.of(answer)
    return _write(path, [{"input": question, "output": answer} for question, answer in rows.items()])


def write_questions(path: Path, count: int, tokens: int, tokenizer: ChatTokenizer, *, seed: int = 0) -> Path:
    """JSONL of four-choice questions of about `tokens` tokens each."""
    draw = random.Random(seed)
    words = _Words(tokenizer, draw)
    rows = []
    for number in range(count):
        different: dict[str, None] = {}
        while len(different) < len("abcd"):
            different.setdefault(words.of(4))
        choices = dict(zip("abcd", different, strict=True))
        text = "\n".join([words.of(max(1, tokens - 50)), *(f"{letter} {choice}" for letter, choice in choices.items())])
        correct = "abcd"[number % 4]
        meta = {"id": f"q{number}", "mode": "direct", "choices": choices, "correct": correct}
        rows.append({"input": text, "output": correct, "meta": meta})
    return _write(path, rows)


class _Words:
    """Draws text of an exact number of tokens: Qwen's tokenizer splits before every space, so words' tokens add up."""

    def __init__(self, tokenizer: ChatTokenizer, draw: random.Random):
        self.draw = draw
        self.sizes = {word: len(tokenizer.encode(f" {word}")) for word in _WORDS}
        self.single = [word for word, size in self.sizes.items() if size == 1]

    def of(self, tokens: int) -> str:
        chosen = [self.draw.choice("ab")]  # without a space before it: one token in every Qwen vocabulary
        left = tokens - 1
        while left:
            word = self.draw.choice(_WORDS)
            word = word if self.sizes[word] <= left else self.draw.choice(self.single)
            chosen.append(word)
            left -= self.sizes[word]
        return " ".join(chosen)


def _tokens(tokenizer: ChatTokenizer, question: str, answer: str) -> int:
    example = tokenizer.examples(Conversation((Message("user", question), Message("assistant", answer))))[0]
    return len(example.input_ids)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
