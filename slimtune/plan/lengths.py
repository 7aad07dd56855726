"""Lengths of examples in tokens, counted or estimated, and the packed rows that they fill. No torch."""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slimtune.data.chat_template import Example
from slimtune.data.records import Conversation, Message

_TOKENS_PER_WIDE_CHARACTER = 0.85
_TOKENS_PER_NARROW_CHARACTER = 0.3
_TOKENS_PER_TURN = 6


@dataclass(frozen=True)
class Lengths:
    """Token counts in the data's order, of whole examples and of their responses.
    exact: False where no tokenizer was at hand and the counts were estimated from characters."""

    tokens: tuple[int, ...]
    supervised: tuple[int, ...]
    exact: bool

    @property
    def prompts(self) -> tuple[int, ...]:
        return tuple(whole - response for whole, response in zip(self.tokens, self.supervised, strict=True))

    @property
    def total(self) -> int:
        return sum(self.tokens)

    @property
    def longest(self) -> int:
        return max(self.tokens)


def of(examples: Iterable[Example]) -> Lengths:
    """The lengths of encoded examples."""
    counts = [(len(example.input_ids), example.supervised_tokens) for example in examples]
    return Lengths(tuple(whole for whole, _ in counts), tuple(response for _, response in counts), exact=True)


def estimate(conversations: Sequence[Conversation]) -> Lengths:
    """Estimate lengths from characters, a little higher than Qwen's tokenizer counts statutes and English prose, so that
    a plan errs on the safe side. The run itself counts tokens."""
    tokens, supervised = [], []
    for conversation in conversations:
        counts = [_estimate_text(_written(message)) + _TOKENS_PER_TURN for message in conversation.messages]
        tokens.append(sum(counts) + (_estimate_text(conversation.tools) if conversation.tools else 0))
        answers = zip(conversation.messages, counts, strict=True)
        learned = [count - 4 for message, count in answers if message.role == "assistant" and not message.excluded]
        supervised.append(sum(learned))
    return Lengths(tuple(tokens), tuple(supervised), exact=False)


def _written(message: Message) -> str:
    return message.content + "".join(f"{call.name}{call.arguments}" for call in message.tool_calls)


def _estimate_text(text: str) -> int:
    wide = sum(ord(character) > 0x2E7F for character in text)
    return round(wide * _TOKENS_PER_WIDE_CHARACTER + (len(text) - wide) * _TOKENS_PER_NARROW_CHARACTER) + 1


def packed_rows(tokens: Sequence[int], row_length: int) -> int:
    """Rows that TRL's "bfd" strategy (best-fit decreasing, trl.data_utils.pack_dataset) needs. Every example fits a row."""
    space: list[int] = []  # free tokens of the open rows, sorted
    rows = 0
    for length in sorted(tokens, reverse=True):
        fitting = bisect.bisect_left(space, length)
        if fitting < len(space):
            left = space.pop(fitting) - length
        else:
            rows += 1
            left = row_length - length
        if left:
            bisect.insort(space, left)
    return rows
