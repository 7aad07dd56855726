"""What an evaluation may ask of a model, whatever runs it: Transformers, llama.cpp or a server. No torch."""

import unicodedata
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from slimtune.data.records import Message


@dataclass(frozen=True, slots=True)
class Prompt:
    """messages: rendered by the target's own chat template, with the generation prompt. labels: the possible answers."""

    messages: tuple[Message, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Letters:
    """What a model gives the labels as its first token.

    logprobs: natural log of the probability of each label, summed over the tokens that spell it (see `spells`).
    bounded: labels without a token in the server's list; their value is an upper bound, the smallest value in the list.
    greedy_text: the likeliest token of all, as text; greedy_token: its id where known.
    prompt_sha256: of the prompt's token ids where they are known.
    """

    logprobs: dict[str, float]
    greedy_text: str
    greedy_token: int | None = None
    bounded: tuple[str, ...] = ()
    prompt_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How replies are generated. replies: per prompt. temperature: 0 is greedy.

    stop_at_answer: a reply may end at its answer line ("回答: c" and a line break), where the target can do that.
    options: for `stream` from llama.cpp only: its other sampling parameters under its own names, e.g. top_k and stop.
    """

    max_new_tokens: int
    replies: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop_at_answer: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """text: without the end-of-turn token. tokens: generated. truncated: cut off by max_new_tokens.

    error: why there is no reply, e.g. what a server answered; then the text is empty.
    """

    text: str
    tokens: int = 0
    truncated: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a reply. thought: of the reasoning. cut: the reply ends here as no more tokens were allowed."""

    text: str = ""
    thought: bool = False
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Likelihood:
    """nll: negative natural log-likelihood of the reference after its prompt, summed over its `tokens` tokens."""

    nll: float
    tokens: int


Ability = Literal["score", "generate", "likelihood"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a result must say of the model that it came from: `values` goes into the record as it is."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)


class Target(Protocol):
    """A model that can be asked. Each call is one batch; results come in the order of the prompts.

    batch_size: how many prompts it wants at once. abilities: what it can do; the other calls raise SlimtuneError that
    says why and which target can.
    """

    batch_size: int
    abilities: frozenset[Ability]

    def facts(self) -> Facts: ...

    def expecting(self, prompts: Sequence[Prompt]) -> AbstractContextManager[None]:
        """Within it, batches of these prompts will be scored: what all of them share may be computed beforehand."""
        ...

    def score(self, prompts: Sequence[Prompt]) -> list[Letters]: ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Reply]]: ...

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[Piece, None, None]:
        """One reply, piece by piece as it is made; all at once where the target cannot do better.

        `sampling.replies` must be 1. Closing the generator stops the reply. Raises SlimtuneError where none comes.
        """
        ...

    def room(self, messages: Sequence[Message]) -> int | None:
        """Tokens left for a reply to these messages, below 1 for none; None where the target does not know."""
        ...

    def likelihood(self, prompts: Sequence[Prompt], references: Sequence[str]) -> list[Likelihood]: ...

    def close(self) -> None: ...


def spells(token: str, label: str) -> bool:
    """Whether a token's text is a label: in either case, half or full width, with a leading space or line break.

    `a`, ` a`, `A` and `ａ` are different tokens in Qwen's vocabulary, and all of them are the answer a.
    """
    return unicodedata.normalize("NFKC", token).strip().casefold() == label.casefold()


def spellings(label: str) -> list[str]:
    """The texts that `spells` accepts and that may be a single token, for who has a vocabulary to look them up in."""
    wide = "".join(chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character for character in label)
    forms = {form for text in (label, wide) for form in (text.lower(), text.upper())}
    return [prefix + form for form in sorted(forms) for prefix in ("", " ")]
