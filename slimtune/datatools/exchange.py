"""Training files to and from the layouts of other tools, with everything that is lost counted.

The layout openai is messages without `meta`, which that service does not take.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError, bad_data
from slimtune.core.progress import Advance, ignore
from slimtune.core.units import plural
from slimtune.data.formats import Converted
from slimtune.data.reading import DataFile, distinct
from slimtune.data.records import Conversation, Message
from slimtune.data.text import system_problems
from slimtune.datatools.writing import as_line
from slimtune.plan.lengths import Lengths
from slimtune.recipe.names import Layout

_SINGLE_TURN_ONLY = ("alpaca", "input_output")
_SHAREGPT_NAMES = {"user": "human", "assistant": "gpt", "tool": "observation"}
# OpenAI's limits for supervised fine-tuning:
# https://platform.openai.com/docs/guides/supervised-fine-tuning, "Formatting your data": 10 lines at least.
# https://platform.openai.com/docs/api-reference/files/create: 512 MB a file, read as the smaller of its two meanings.
# https://platform.openai.com/docs/guides/fine-tuning-best-practices, "Token limits": tokens of an example for gpt-4.1
# and gpt-4o. A longer example loses its end, and so its answer. The models gpt-3.5-turbo took 16,385.
_FEWEST_EXAMPLES, _LARGEST_FILE, LONGEST_EXAMPLE = 10, 512_000_000, 65_536
_MOST_SHOWN = 20


def read_files(
    paths: Sequence[str],
    *,
    format: str = "auto",
    setting: tuple[str, str] | None = None,
    system: str | None = None,
    on_progress: Advance = ignore,
) -> tuple[list[Conversation], list[str]]:
    """The conversations of all files or hub ids, one layout per file; and sentences on what they lack, with counts.

    format: one of `formats.FORMATS`. setting: the option behind it and its value ("--from", "openai"), for messages.
    system: the prompt of rows without one. Raises SlimtuneError with every problem of every file.
    """
    if wrong := system_problems(system, "--system"):
        raise SlimtuneError(wrong)
    hashes, listed_again = distinct(paths)
    problems: dict[str, list[Problem]] = {path: [one for one in listed_again if one.where == path] for path in paths}
    conversations: list[Conversation] = []
    lost: Counter[str] = Counter()
    for path in hashes:
        file = DataFile(path, format, system, setting, problems=problems[path])
        for converted in file.records():
            conversations += [one.conversation for one in converted]
            for one in converted:
                lost.update(_losses(one, file.layout))
            on_progress(file.done, file.total)
    if any(problems.values()):
        raise bad_data(problems)
    return conversations, [f"{plural(count, 'row')}: {what}" for what, count in lost.items()]


def _losses(one: Converted, layout: str) -> list[str]:
    """What the conversation lacks or has otherwise than its row."""
    row = one.row.value
    lost = [f"the key '{key}' is dropped, since the layout {layout} does not have it" for key in one.ignored]
    if one.nfc_changed:
        lost.append("the text is put into Unicode normalisation form C")
    if layout == "alpaca" and row.get("input"):
        lost.append("'instruction' and 'input' are joined by an empty line")
    return lost


def is_single_turn(conversation: Conversation) -> bool:
    """One question and its answer, with or without a system prompt, and no call of a function."""
    return (
        _turns(conversation) == 1
        and sum(message.role != "system" for message in conversation.messages) == 2
        and (not conversation.messages[-1].tool_calls)
    )


def own_layout(conversations: Sequence[Conversation]) -> Layout:
    """The project's own form for a file of these: a file has one layout, so one long conversation decides for all."""
    return "input_output" if all(map(is_single_turn, conversations)) else "messages"


def to_rows(conversations: Sequence[Conversation], layout: Layout) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each conversation; and sentences on what the layout cannot hold, with counts.

    Raises SlimtuneError with every conversation of several turns if the layout holds one.
    """
    problems: dict[str, list[Problem]] = {}
    for conversation in conversations:
        what = ""
        if layout in _SINGLE_TURN_ONLY and not is_single_turn(conversation):
            what = f"the conversation has {plural(_turns(conversation), 'turn')}, and {layout} holds one"
            if any(message.tool_calls for message in conversation.messages):
                what = f"the assistant calls functions, and {layout} holds one question and its answer"
        elif layout == "sharegpt" and any(message.tool_calls and message.content for message in conversation.messages):
            what = "the assistant says something and calls functions in one turn, and sharegpt holds one of them"
        if what:
            fix = "write it with --to messages, or leave it out"
            problems.setdefault(conversation.path, []).append(Problem(what, conversation.where, fix))
    if problems:
        raise bad_data(problems)
    dropped = sum(bool(conversation.meta) for conversation in conversations) if layout == "openai" else 0
    losses = [f"{plural(dropped, 'row')}: 'meta' is dropped, since openai has none"] if dropped else []
    return [_render(conversation, layout) for conversation in conversations], losses


def broken_rules(
    conversations: Sequence[Conversation],
    rows: Sequence[Mapping[str, Any]],
    lengths: Lengths,
    longest: int = LONGEST_EXAMPLE,
) -> list[Problem]:
    """Everything for which OpenAI would refuse the file or cut an example. rows: as they will be written.

    Only the limits are checked: every `Conversation` has the roles, their order and the texts that the service wants.
    """
    problems: list[Problem] = []
    if len(conversations) < _FEWEST_EXAMPLES:
        what = f"the service wants at least {_FEWEST_EXAMPLES} examples, and there are {len(conversations)}"
        problems.append(Problem(what, "--to openai", "add examples"))
    size = sum(len(as_line(row)) for row in rows)
    if size > _LARGEST_FILE:
        what = f"the file would have {size / 1e6:,.0f} MB, and the service takes {_LARGEST_FILE / 1e6:,.0f} MB"
        problems.append(Problem(what, "--to openai", "export fewer rows"))
    too_long = [(one, tokens) for one, tokens in zip(conversations, lengths.tokens, strict=True) if tokens > longest]
    for conversation, tokens in too_long[:_MOST_SHOWN]:
        what = f"about {tokens:,} tokens (estimated), and the service cuts off what follows the first {longest:,}"
        fix = "shorten it, or set --max-example-tokens to what your model takes"
        problems.append(Problem(what, conversation.where, fix))
    if len(too_long) > _MOST_SHOWN:
        problems.append(Problem(f"{len(too_long) - _MOST_SHOWN:,} more rows are too long", "--to openai"))
    return problems


def cost(tokens: int, epochs: int, price_per_million: float) -> float:
    """Price of training at OpenAI, in the price's currency: every token is billed once an epoch.

    Formula: https://cookbook.openai.com/examples/chat_finetuning_data_prep
    """
    return tokens * epochs * price_per_million / 1e6


def _turns(conversation: Conversation) -> int:
    return sum(message.role == "user" for message in conversation.messages)


def _render(conversation: Conversation, layout: Layout) -> dict[str, Any]:
    turns = [message for message in conversation.messages if message.role != "system"]
    first = conversation.messages[0]
    prompt = {"system": first.content} if first.role == "system" else {}
    meta = {"meta": conversation.meta} if conversation.meta else {}
    tools = {"tools": json.loads(conversation.tools)} if conversation.tools else {}
    if layout == "openai":
        return {"messages": _openai(conversation.messages)} | tools
    if layout == "messages":
        return {"messages": [_with_weight(turn, turn.as_dict()) for turn in conversation.messages]} | tools | meta
    if layout == "sharegpt":
        # LLaMA-Factory, whose layout this is, has the functions as text.
        described = {"tools": conversation.tools} if conversation.tools else {}
        return prompt | {"conversations": list(map(_sharegpt, turns))} | described | meta
    user, assistant = turns
    if layout == "alpaca":
        row = {"instruction": user.content, "input": "", "output": assistant.content}
    else:
        row = {"input": user.content, "output": assistant.content}
    return prompt | row | tools | meta


def _with_weight(turn: Message, written: dict[str, Any]) -> dict[str, Any]:
    return written | {"weight": 0} if turn.excluded else written


def _sharegpt(turn: Message) -> dict[str, Any]:
    if turn.tool_calls:
        listed = [{"name": call.name, "arguments": json.loads(call.arguments)} for call in turn.tool_calls]
        called = listed[0] if len(listed) == 1 else listed
        return _with_weight(turn, {"from": "function_call", "value": json.dumps(called, ensure_ascii=False)})
    return _with_weight(turn, {"from": _SHAREGPT_NAMES[turn.role], "value": turn.content})


def _openai(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """As OpenAI's service takes them: each call has an id, which its answer names, and its arguments are text."""
    written: list[dict[str, Any]] = []
    waiting: list[str] = []
    calls = 0
    for turn in messages:
        row: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.tool_calls:
            waiting = [f"call_{calls + number}" for number in range(1, len(turn.tool_calls) + 1)]
            calls += len(waiting)
            row["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for id, call in zip(waiting, turn.tool_calls, strict=True)
            ]
        elif turn.role == "tool":
            row["tool_call_id"] = waiting.pop(0)
        written.append(_with_weight(turn, row))
    return written
