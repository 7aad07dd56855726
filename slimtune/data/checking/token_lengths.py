"""How long a file's examples are for a model, and which of them its length would cut."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from slimtune.data.chat import ChatTokenizer
from slimtune.data.checking.findings import Finding
from slimtune.data.types import Conversation
from slimtune.errors import SlimtuneError
from slimtune.plan import lengths

_PERCENTILES = (5, 50, 95)
_BARS = 24


@dataclass(slots=True)
class TokenLengths:
    """Tokens of each example of a file, whole and supervised. tokenizer: None estimates them from characters."""

    tokenizer: ChatTokenizer | None
    max_seq_length: int
    tokens: array[int] = field(default_factory=lambda: array("l"))
    supervised: array[int] = field(default_factory=lambda: array("l"))

    def add(self, conversations: Sequence[Conversation]) -> list[Finding]:
        """Counts them; returns a finding for each that is too long, or that the chat template does not render."""
        if self.tokenizer is None:
            estimated = lengths.estimate(conversations)
            whose = [conversation.where for conversation in conversations]
            return self._note(whose, estimated.tokens, estimated.supervised)
        try:
            examples = list(self.tokenizer.examples_of(conversations))
        except SlimtuneError as error:
            if len(conversations) > 1:  # each by itself, so that all that are refused are named
                return [finding for one in conversations for finding in self.add([one])]
            problem = error.problems[0]
            where = problem.where or conversations[0].where
            return [Finding("error", "not-rendered", problem.what, where, problem.fix)]
        counted = [(example.where, len(example.input_ids), example.supervised_tokens) for example in examples]
        return self._note(*map(list, zip(*counted, strict=True))) if counted else []

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

    def _note(self, whose: Sequence[str], tokens: Sequence[int], supervised: Sequence[int]) -> list[Finding]:
        self.tokens.extend(tokens)
        self.supervised.extend(supervised)
        about = "" if self.tokenizer else "about "
        return [
            Finding(
                "warning",
                "too-long",
                f"{about}{length:,} tokens, {length - self.max_seq_length:,} more than max_seq_length",
                where,
                "shorten them, or raise max_seq_length; a run leaves out or refuses what is longer",
            )
            for where, length in zip(whose, tokens, strict=True)
            if length > self.max_seq_length
        ]
