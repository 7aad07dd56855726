"""How long a file's examples are for a model, and which of them its length would cut."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
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
        if self.tokenizer is None:
            estimated = lengths.estimate(conversations)
            counts = zip(conversations, estimated.tokens, estimated.supervised, strict=True)
            return [
                finding
                for one, tokens, supervised in counts
                for finding in self._note(one.where, tokens, supervised, min(supervised, tokens - self.max_seq_length))
            ]
        try:
            examples = list(self.tokenizer.examples_of(conversations))
        except SlimtuneError as error:
            if len(conversations) > 1:  # halved until each that is refused stands alone
                half = len(conversations) // 2
                return self.add(conversations[:half]) + self.add(conversations[half:])
            problem = error.problems[0]
            where = problem.where or conversations[0].where
            return [Finding("error", problem.what, problem.fix, where, "not-rendered")]
        return [
            finding
            for example in examples
            for finding in self._note(
                example.where,
                len(example.input_ids),
                example.supervised_tokens,
                sum(label != IGNORE_INDEX for label in example.labels[self.max_seq_length :]),
            )
        ]

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

    def _note(self, where: str, tokens: int, supervised: int, beyond: int) -> list[Finding]:
        """beyond: supervised tokens behind max_seq_length, where there are any."""
        self.tokens.append(tokens)
        self.supervised.append(supervised)
        if tokens <= self.max_seq_length:
            return []
        self.cut_tokens += beyond
        self.lost_examples += beyond == supervised
        about = "" if self.tokenizer else "about "
        response = "the whole response" if beyond == supervised else f"{beyond:,} tokens of the response"
        more = f"{tokens - self.max_seq_length:,} more than max_seq_length"
        what = f"{about}{tokens:,} tokens, {more}, {response} among them"
        fix = (
            "shorten it, or raise max_seq_length: a run never cuts examples, it refuses longer ones or leaves them out"
        )
        return [Finding("warning", what, fix, where, "too-long")]
