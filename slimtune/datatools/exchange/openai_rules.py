"""What OpenAI's supervised fine-tuning asks of a chat file, and what training on it would be billed for.

Roles, their order, non-empty texts and a closing turn of the assistant are what every `Conversation` has already,
so only the limits are left to check, as OpenAI's documentation gives them:
https://platform.openai.com/docs/guides/supervised-fine-tuning, "Formatting your data" (10 lines at least),
https://platform.openai.com/docs/api-reference/files/create (512 MB a file),
https://platform.openai.com/docs/guides/fine-tuning-best-practices, "Token limits" (65,536 tokens an example for the
models gpt-4.1 and gpt-4o; what is longer loses its end, and so its answer), and
https://cookbook.openai.com/examples/chat_finetuning_data_prep (tokens billed = tokens × epochs).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.core.errors import Problem
from slimtune.data.records import Conversation
from slimtune.plan.lengths import Lengths

FEWEST_EXAMPLES = 10
LARGEST_FILE = 512_000_000
"""Bytes; 512 MB read as the smaller of its two meanings."""
LONGEST_EXAMPLE = 65_536
"""Tokens in one training example; the models gpt-3.5-turbo took 16,385."""
_MOST_SHOWN = 20


def broken_rules(
    conversations: Sequence[Conversation],
    rows: Sequence[Mapping[str, Any]],
    lengths: Lengths,
    longest: int = LONGEST_EXAMPLE,
) -> list[Problem]:
    """Everything for which the service would refuse the file or cut an example. `rows`: as they will be written."""
    problems: list[Problem] = []
    if len(conversations) < FEWEST_EXAMPLES:
        what = f"the service wants at least {FEWEST_EXAMPLES} examples, and there are {len(conversations)}"
        problems.append(Problem(what, "--to openai", "add examples"))
    size = sum(len(json.dumps(row, ensure_ascii=False).encode()) + 1 for row in rows)
    if size > LARGEST_FILE:
        what = f"the file would have {size / 1e6:,.0f} MB, and the service takes {LARGEST_FILE / 1e6:,.0f} MB"
        problems.append(Problem(what, "--to openai", "export fewer rows"))
    too_long = [
        (conversation, tokens)
        for conversation, tokens in zip(conversations, lengths.tokens, strict=True)
        if tokens > longest
    ]
    for conversation, tokens in too_long[:_MOST_SHOWN]:
        what = f"about {tokens:,} tokens (estimated), and the service cuts off what follows the first {longest:,}"
        fix = "shorten it, or set --max-example-tokens to what your model takes"
        problems.append(Problem(what, conversation.where, fix))
    if len(too_long) > _MOST_SHOWN:
        problems.append(Problem(f"{len(too_long) - _MOST_SHOWN:,} more rows are too long", "--to openai"))
    return problems


def cost(tokens: int, epochs: int, price_per_million: float) -> float:
    """Of training, in the price's currency: every token is billed once an epoch."""
    return tokens * epochs * price_per_million / 1e6
