"""The settings of a recipe that its data decide: how to judge, how long, how fast, for how much memory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation, Mode
from slimtune.data.text import split_thought
from slimtune.datatools.new.examples import Understood
from slimtune.datatools.new.recognise import Goal
from slimtune.datatools.split.split_questions import MOST_LABELS
from slimtune.models.shapes import ModelShape
from slimtune.plan import lengths
from slimtune.plan.explain import suggestions
from slimtune.recipe.names import GgufType, KindName
from slimtune.recipe.schema import ModelSection

TEXT_MODELS = (
    *("unsloth/Qwen3-14B-bnb-4bit", "unsloth/Qwen3-8B-bnb-4bit", "unsloth/Qwen3-4B-bnb-4bit"),
    *("unsloth/Qwen3-1.7B-bnb-4bit", "unsloth/Qwen3-0.6B-bnb-4bit"),
)
"""For texts in more than a hundred languages, the largest first."""
CODE_MODELS = (
    *("unsloth/Qwen2.5-Coder-14B-Instruct-bnb-4bit", "unsloth/Qwen2.5-Coder-7B-Instruct-bnb-4bit"),
    *("unsloth/Qwen2.5-Coder-3B-Instruct-bnb-4bit", "unsloth/Qwen2.5-Coder-1.5B-Instruct-bnb-4bit"),
    "unsloth/Qwen2.5-Coder-0.5B-Instruct-bnb-4bit",
)

MOST_TOKENS = 8192
"""Of a row: a longer one would decide how much memory the run takes, and so which model fits."""
_STEP = 64  # lengths are rounded up to a multiple of it
_LEAST_REPLY, _MOST_REPLY = 64, 1024
_LABEL_REPLY = 32
# Lengths without the model's tokenizer are estimates.
_ESTIMATE_MARGIN = 1.5
_SMALL_MODEL = 50_000_000  # parameters, far below those that the published ranges are for
_SMALL_RATE, _LETTER_RATE, _TEXT_RATE = 5e-3, 1e-4, 2e-4
_Q8_BYTES, _Q8_SHARE = 1.07, 0.85  # of a parameter, and of the card


@dataclass(frozen=True, slots=True)
class RecipeSettings:
    """What a recipe says besides names and paths. vram_gb: None for a model that needs no card.

    max_new_tokens: None where no reply is generated. smaller: the next smaller model, "" for none.
    """

    base: str
    max_seq_length: int
    thinking: bool
    epochs: int
    learning_rate: float
    batch: int
    small: bool
    vram_gb: float | None
    kind: KindName
    mode: Mode
    max_new_tokens: int | None
    gguf: GgufType
    smaller: str


def candidates(understood: Understood) -> tuple[str, ...]:
    """The models to try, the largest first."""
    answers = [one.conversation.messages[-1].content for one in understood.examples]
    with_code = sum("```" in answer for answer in answers)
    return CODE_MODELS if 2 * with_code > len(answers) else TEXT_MODELS


def choose(
    understood: Understood,
    parts: Mapping[str, Sequence[Conversation]],
    *,
    base: str,
    shape: ModelShape,
    tokenizer: ChatTokenizer | None,
    vram_gb: float | None,
    goal: Goal | None,
) -> RecipeSettings:
    """The settings for these examples and this model. parts: the conversations of each split.

    goal: without one, answers that are few and repeated are labels; with "answer", "chat" or "style" they are texts.
    """
    every = [one for own in parts.values() for one in own]
    of = lengths.of(tokenizer.examples_of(every)) if tokenizer else lengths.estimate(every)
    margin = 1.0 if of.exact else _ESTIMATE_MARGIN
    longest = math.ceil(margin * of.longest)
    answers = [one.messages[-1].content for one in every]
    different = len(set(answers))
    labels = goal in (None, "classify") and different <= min(MOST_LABELS, len(answers) / 2)
    kind: KindName = "multiple_choice" if understood.kind == "multiple-choice questions" else "generation"
    mode: Mode = "cot" if kind == "multiple_choice" and every[0].meta.get("mode") == "cot" else "direct"
    if goal == "style" and kind == "generation":
        kind = "perplexity"
    reply = None
    if kind == "generation" or mode == "cot":
        longest_reply = math.ceil(margin * max(of.supervised))
        reply = _LABEL_REPLY if labels or goal == "classify" else _LEAST_REPLY
        reply = min(_MOST_REPLY, max(reply, _rounded(1.25 * longest_reply)))
        prompt = math.ceil(margin * max(of.prompts))
        if prompt + reply > shape.max_position_embeddings:
            reply = max(1, shape.max_position_embeddings - prompt)
        longest = max(longest, prompt + reply)
    default = int(ModelSection.model_fields["max_seq_length"].default)
    small = shape.total_parameters < _SMALL_MODEL
    direct = kind == "multiple_choice" or labels or goal == "classify"
    rows = len(parts["train"])
    models = candidates(understood)
    later = models[models.index(base) + 1 :] if base in models else ()
    fits = vram_gb is not None and _Q8_BYTES * shape.total_parameters <= _Q8_SHARE * vram_gb * 2**30
    return RecipeSettings(
        base=base,
        max_seq_length=min(max(_rounded(longest), default), shape.max_position_embeddings),
        thinking=any(split_thought(answer) for answer in answers),
        epochs=3 if rows < 2000 else 2 if rows < 20_000 else 1,
        learning_rate=_SMALL_RATE if small else _LETTER_RATE if direct else _TEXT_RATE,
        batch=4 if rows < 100 else 8 if rows < 1000 else 16,
        small=small,
        vram_gb=None if small else vram_gb,
        kind=kind,
        mode=mode,
        max_new_tokens=reply,
        gguf="q8_0" if small or fits else "q4_k_m",
        smaller=later[0] if later else "",
    )


def _rounded(length: float) -> int:
    return _STEP * math.ceil(length / _STEP)


def number(value: float) -> str:
    """A number as recipes write it: 2e-4."""
    return suggestions.number(value)
