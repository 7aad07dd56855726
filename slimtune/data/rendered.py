"""What a chat template makes of a conversation must hold all of it: texts, reasoning, tools and their calls.

Templates leave out without a word what they do not know: a role, the tools, a call, the reasoning of an answer.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.data import text
from slimtune.data.records import Message

_OWN = "use the base's own chat template, unchanged"
_NO_TOOLS = "use a model whose chat template has tools, or leave these rows out"


@contextlib.contextmanager
def of(where: str) -> Iterator[None]:
    """Name the row in what is raised without a place."""
    try:
        yield
    except SlimtuneError as error:
        raise SlimtuneError([Problem(one.what, one.where or where, one.fix) for one in error.problems]) from error


def opens_thought(prompt: str) -> bool:
    """Whether a generation prompt ends within a thought."""
    return any(prompt.rstrip().endswith(opens) for opens, _ in text.thoughts())


def require_thinking(message: Message, thinking: bool, *, thinks: Callable[[], bool]) -> None:
    """Raise SlimtuneError for an answer with reasoning where the model does not think.

    thinking: the setting. thinks: whether the template thinks with it; asked where it matters.
    """
    thought = text.split_thought(message.content) if message.role == "assistant" else None
    if thought is None or not thought[0].strip() or thinks():
        return
    what = f"the answer begins with reasoning ({thought[2][0]}), but "
    what += "this model's chat template has no thinking" if thinking else "model.thinking is false"
    raise fail(
        what,
        fix="use a model that thinks, with model.thinking: true; or write the reasoning as part of the answer, without "
        "the tags (mode cot); or remove it",
    )


def require_tools(tools: Sequence[Any], with_them: str, without: str) -> None:
    """Raise SlimtuneError where a prompt does not name all tools. without: the same prompt without them."""
    if with_them == without:
        raise fail("the row has tools, and this model's chat template leaves them out", fix=_NO_TOOLS)
    for name in (tool.get("function", tool).get("name", "") for tool in tools):
        if not _stands(name, with_them):
            raise fail(f"the chat template leaves out the tool {name!r}", fix=_NO_TOOLS)


def require_history(messages: Sequence[Message], prompt: str) -> None:
    """Raise SlimtuneError where a prompt lacks the text of a message, but for earlier answers, which may be shortened."""
    for message in messages:
        if message.role != "assistant" and not _stands(message.content, prompt):
            what = {"system": "the system prompt", "user": "the user's text", "tool": "a tool's answer"}[message.role]
            raise fail(f"the chat template changes or drops {what}", fix=_NO_TOOLS if message.role == "tool" else _OWN)


def require_response(message: Message, response: str) -> None:
    """Raise SlimtuneError where an answer's response lacks its text, its reasoning, or a part of its calls."""
    thought = text.split_thought(message.content)
    reasoning, answer = thought[:2] if thought else ("", message.content)
    if answer.strip() not in response:
        raise fail("the chat template changes or drops the assistant's text", fix=_OWN)
    if reasoning.strip() not in response:
        raise fail("the chat template changes or drops the assistant's reasoning", fix=_OWN)
    for call in message.tool_calls:
        for value in (call.name, *_leaves(json.loads(call.arguments))):
            if not _stands(value, response):
                what = f"the chat template changes or drops {value[:50]!r} of the call of {call.name!r}"
                raise fail(what, fix=_NO_TOOLS)


def _stands(value: str, rendered: str) -> bool:
    """Whether a text stands in another as it is, without white space around it, or as JSON writes it."""
    return value.strip() in rendered or any(
        json.dumps(value, ensure_ascii=ascii_only)[1:-1] in rendered for ascii_only in (False, True)
    )


def _leaves(value: Any) -> Iterator[str]:
    """The names and texts in a JSON value, and its numbers as JSON writes them."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from _leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    elif isinstance(value, str):
        yield value
    elif value is not None and not isinstance(value, bool):
        yield json.dumps(value)
