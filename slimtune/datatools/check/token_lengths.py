"""How long a file's examples are for a model, and which of them its length would cut."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from slimtune.core.errors import SlimtuneError
from slimtune.core.findings import Finding
from slimtune.data.chat_template import IGNORE_INDEX, ChatTokenizer
from slimtune.data.records import Conversation
from slimtune.plan import lengths

_PERCENTILES = (5, 50, 95)
_BARS = 24


@dataclass(slots=True)
class TokenLengths:
    """Tokens of each example of a file, whole and supervised. tokenizer: None estimates them from characters.

    cut_tokens: supervised ones behind max_seq_length. lost_examples: those of which no supervised token stands before it.
    """

    tokenizer: ChatTokenizer | None
    max_seq_length: int
    tokens: array[int] = field(default_factory=lambda: array("l"))
    supervised: array[int] = field(default_factory=lambda: array("l"))
    cut_tokens: int = 0
    lost_examples: int = 0

    def add(self, conversations: Sequence[Conversation]) -> list[Finding]:
        """Counts them; returns a finding for each that is too long, or that the chat template does not render."""
        try:
            counted = list(self._count(conversations))
        except SlimtuneError as error:
            if len(conversations) > 1:  # halved until each that is refused stands alone
                half = len(conversations) // 2
                return self.add(conversations[:half]) + self.add(conversations[half:])
            problem = error.problems[0]
            return [
                Finding("error", problem.what, problem.fix, problem.where or conversations[0].where, "not-rendered")
            ]
        return [finding for one in counted if (finding := self._note(*one))]

    def cut(self) -> tuple[int, float]:
        """How many examples are longer than max_seq_length, and their share."""
        count = sum(length > self.max_seq_length for length in self.tokens)
        return count, count / max(len(self.tokens), 1)

    def percentiles(self) -> dict[str, int]:
        """shortest, p5, p50, p95 and longest, in tokens; empty without examples."""
        ordered = sorted(self.tokens)
        if not ordered:
            return {}
        named = {f"p{share}": ordered[(len(ordered) - 1) * share // 100] for share in _PERCENTILES}
        return {"shortest": ordered[0], **named, "longest": ordered[-1]}

    def histogram(self) -> list[tuple[int, int]]:
        """(first length, examples) of at most `_BARS` bars of equal width, the width a round number of tokens."""
        if not self.tokens:
            return []
        width = 1
        while max(self.tokens) // width >= _BARS:
            width = width * 2 if str(width)[0] != "2" else width // 2 * 5
        counts = [0] * (max(self.tokens) // width + 1)
        for length in self.tokens:
            counts[length // width] += 1
        return [(bar * width, count) for bar, count in enumerate(counts)]

    def _count(self, conversations: Sequence[Conversation]) -> Iterator[tuple[str, int, int, int]]:
        """Place, tokens, supervised tokens, and supervised tokens behind max_seq_length of each example."""
        if self.tokenizer is None:
            estimated = lengths.estimate(conversations)
            for one, tokens, supervised in zip(conversations, estimated.tokens, estimated.supervised, strict=True):
                yield one.where, tokens, supervised, min(supervised, tokens - self.max_seq_length)
            return
        for example in self.tokenizer.examples_of(conversations):
            behind = example.labels[self.max_seq_length :]
            beyond = len(behind) - behind.count(IGNORE_INDEX)
            yield example.where, len(example.input_ids), example.supervised_tokens, beyond

    def _note(self, where: str, tokens: int, supervised: int, beyond: int) -> Finding | None:
        self.tokens.append(tokens)
        self.supervised.append(supervised)
        if tokens <= self.max_seq_length:
            return None
        self.cut_tokens += beyond
        self.lost_examples += beyond == supervised
        about = "" if self.tokenizer else "about "
        response = "the whole response" if beyond == supervised else f"{beyond:,} tokens of the response"
        more = f"{tokens - self.max_seq_length:,} more than max_seq_length"
        fix = (
            "shorten it, or raise max_seq_length: a run never cuts examples, it refuses longer ones or leaves them out"
        )
        return Finding("warning", f"{about}{tokens:,} tokens, {more}, {response} among them", fix, where, "too-long")
