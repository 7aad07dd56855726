"""A Modelfile's TEMPLATE, rendered as Ollama renders it, where it is written in the small part of Go's text/template below.

Understood: text, trim markers, comments, if / else if / else, range, variables, fields, string and whole-number constants,
and the functions eq, ne, and, or, not, len and slice. Anything else raises NotUnderstood, which names it: nothing is guessed.

A template that names .Messages is rendered once; an older one, with .Prompt and .Response, once for each exchange, the last
time without what follows .Response (template/template.go of github.com/ollama/ollama).
"""

from __future__ import annotations

import json
import re
from collections import ChainMap, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import inf
from typing import Any

_ACTION = re.compile(
    r"\{\{(?P<left>-(?=\s))?(?P<body>\s*/\*.*?\*/\s*|(?:\"(?:\\.|[^\"\\\n])*\"|`[^`]*`|[^\"`])*?)(?P<right>(?<=\s)-)?\}\}",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"\s*(?:(?P<string>\"(?:\\.|[^\"\\\n])*\"|`[^`]*`)|(?P<number>-?[0-9]{1,18})(?![\w.])"
    r"|(?P<path>\$[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*|\$(?:\.[A-Za-z_]\w*)*|(?:\.[A-Za-z_]\w*)+|\.)"
    r"|(?P<word>[A-Za-z_]\w*)|(?P<mark>:=|[(),=]))"
)
_SPACE = " \t\r\n"
# The functions, with the fewest and the most arguments that each takes.
_FUNCTIONS: dict[str, tuple[int, float]] = {
    "eq": (2, inf), "ne": (2, inf), "and": (1, inf), "or": (1, inf), "not": (1, 1), "len": (1, 1), "slice": (1, inf),
}  # fmt: skip
# What a message has besides role and content; in a conversation without tools, pictures and thoughts it is empty.
_EMPTY_OF_A_MESSAGE = {"Thinking": "", "Images": (), "ToolCalls": (), "ToolName": "", "ToolCallID": ""}
# What Go and Ollama know besides, and is not interpreted here (template/template.go of github.com/ollama/ollama).
_OTHER_WORDS = frozenset(
    [
        "break",
        "continue",
        "define",
        "template",
        "block",
        "with",
        "nil",
        "index",
        "print",
        "printf",
        "println",
        "html",
        "js",
        "urlquery",
        "call",
        "lt",
        "le",
        "gt",
        "ge",
        "json",
        "currentDate",
        "yesterday",
        "toTypeScriptType",
    ]
)
_MAX_DEPTH, _MOST_STEPS, _MOST_CHARACTERS, _MOST_OF_AN_ACTION = 50, 10_000, 2**24, 10_000


class NotUnderstood(Exception):
    """The template uses what is not interpreted here; the text says what, to follow "because it uses"."""


class Invalid(NotUnderstood):
    """What Go's own parser refuses, and with it `ollama create`."""


@dataclass(slots=True)
class _Node:
    """kind: text, print, set, if or range. expression: tokens. body, other: for if and range, the branches."""

    kind: str
    text: str = ""
    expression: list[tuple[str, str]] = field(default_factory=list)
    names: tuple[str, ...] = ()
    declares: bool = False
    body: list[_Node] = field(default_factory=list)
    other: list[_Node] = field(default_factory=list)


def render(template: str, messages: Sequence[Mapping[str, str]], system: str = "") -> str:
    """The prompt for a conversation of {"role", "content"} that ends with the user's turn, without tools or a wish to think.

    system: the Modelfile's SYSTEM, put in front of a conversation that brings none. Raises NotUnderstood.
    """
    nodes = _parse(template)
    if system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    # Messages of one role that follow each other are one.
    turns = [
        {"role": role, "content": "\n\n".join(one["content"] for one in said)}
        for role, said in groupby(messages, key=lambda one: one["role"])
    ]
    names = set(_names(nodes))
    for name in ("Think", "IsThinkSet", "ThinkLevel", "Suffix", "Query", "Document", "Instruction"):
        if name in names:
            raise NotUnderstood(f".{name}")
    if "Messages" in names:
        said = "\n\n".join(turn["content"] for turn in messages if turn["role"] == "system")
        return _run(nodes, {"System": said, "Messages": turns, "Tools": (), "Response": ""})
    return _exchanges(nodes, turns, names)


def _exchanges(nodes: list[_Node], turns: Sequence[Mapping[str, str]], names: set[str]) -> str:
    """The older way: a rendering for each exchange."""
    if "Response" not in names:
        nodes = [*nodes, _Node("print", expression=[("path", ".Response")])]
    slots = {"system": "System", "user": "Prompt", "assistant": "Response"}
    values, written = dict.fromkeys(slots.values(), ""), []
    for turn in turns:
        role = turn["role"]
        if (role == "system" and (values["Prompt"] or values["Response"])) or (role == "user" and values["Response"]):
            written.append(_run(nodes, values))
            values = dict.fromkeys(slots.values(), "")
        if role in slots:
            values[slots[role]] = turn["content"]
    return "".join([*written, _run(_up_to_response(nodes, [False]), values)])


def _up_to_response(nodes: Sequence[_Node], seen: list[bool]) -> list[_Node]:
    """The nodes without those after the first that prints .Response; `seen` is one flag, shared by all levels."""
    kept = []
    for node in nodes:
        if seen[0]:
            break
        if node.kind in ("print", "set"):
            seen[0] = any(text.split(".")[1:2] == ["Response"] and text.startswith(".") for _, text in node.expression)
        body = _up_to_response(node.body, seen)
        kept.append(replace(node, body=body, other=_up_to_response(node.other, seen)))
    return kept


def _names(nodes: Sequence[_Node]) -> Iterator[str]:
    for node in nodes:
        for kind, text in node.expression:
            if kind == "path":
                yield from text.split(".")[1:]
        yield from _names(node.body)
        yield from _names(node.other)


# ---- reading --------------------------------------------------------------------------------------------------------


def _parse(template: str) -> list[_Node]:
    top: list[_Node] = []
    # Of each open block its node, and the list that goes on after it.
    current, stack = top, list[tuple[_Node, list[_Node]]]()
    for kind, value in _pieces(template):
        if kind == "text":
            current.append(_Node("text", text=value))
            continue
        tokens = list(_tokens(value))
        word = tokens[0][1] if tokens[0][0] == "word" else ""
        if word in ("if", "range"):
            if len(tokens) == 1:
                raise Invalid(f"{word} without a value")
            node = _range(tokens[1:]) if word == "range" else _Node("if", expression=tokens[1:])
            current.append(node)
            stack.append((node, current))
            current = node.body
            if len(stack) > _MAX_DEPTH:
                raise NotUnderstood("blocks within blocks beyond reason")
        elif word == "else" and stack:
            node = stack[-1][0]
            if current is not node.body:
                raise Invalid("a second else")
            current = node.other
            if len(tokens) > 1:
                if tokens[1] != ("word", "if"):
                    raise NotUnderstood(f"else {tokens[1][1]}")
                following = _Node("if", expression=tokens[2:])
                current.append(following)
                # One `end` closes the whole chain: the new `if` takes its place, and goes on where the chain began.
                stack[-1] = (following, stack[-1][1])
                current = following.body
        elif word == "end" and stack and len(tokens) == 1:
            current = stack.pop()[1]
        elif word in ("else", "end"):
            raise Invalid(f"{{{{ {value[:20]} }}}} without a block that it belongs to")
        elif word and word not in (*_FUNCTIONS, "true", "false"):
            raise NotUnderstood(f"'{word}'") if word in _OTHER_WORDS else Invalid(f"the unknown function '{word[:40]}'")
        else:
            current.append(_action(tokens))
    if stack:
        raise Invalid("a block that is not ended")
    return top


def _pieces(template: str) -> Iterator[tuple[str, str]]:
    """("text", …) and ("action", what stands between the braces), with the trim markers done and comments left out."""
    position, trim = 0, False
    while position < len(template):
        begins = template.find("{{", position)
        found = _ACTION.match(template, begins) if begins >= 0 else None
        if begins >= 0 and found is None:
            raise Invalid("braces that are not closed")
        text = template[position : found.start() if found else len(template)]
        text = text.lstrip(_SPACE) if trim else text
        if found and found["left"]:
            text = text.rstrip(_SPACE)
        if text:
            yield "text", text
        if not found:
            return
        body = found["body"].strip(_SPACE)
        if not body:
            raise Invalid("empty braces")
        if len(body) > _MOST_OF_AN_ACTION:
            raise NotUnderstood(f"more than {_MOST_OF_AN_ACTION:,} characters within braces")
        if not body.startswith("/*"):
            yield "action", body
        position, trim = found.end(), bool(found["right"])


def _tokens(body: str) -> Iterator[tuple[str, str]]:
    position = 0
    while body[position:].strip(_SPACE):
        found = _TOKEN.match(body, position)
        if found is None:
            raise NotUnderstood(f"{body[position:].strip()[:20]!r}")
        position = found.end()
        kind = str(found.lastgroup)
        yield kind, found[kind]


def _range(tokens: list[tuple[str, str]]) -> _Node:
    """`range LIST`, or with one or two variables: `range $i, $one := LIST`."""
    marks = [text for _, text in tokens]
    if ":=" not in marks:
        return _Node("range", expression=tokens)
    place = marks.index(":=")
    names = tuple(mark for mark in marks[:place] if mark != ",")
    if not names or len(names) > 2 or not all(re.fullmatch(r"\$\w+", name) for name in names):
        raise NotUnderstood("range with other variables than two")
    return _Node("range", expression=tokens[place + 1 :], names=names)


def _action(tokens: list[tuple[str, str]]) -> _Node:
    if len(tokens) > 2 and tokens[1] in (("mark", ":="), ("mark", "=")) and re.fullmatch(r"\$\w+", tokens[0][1]):
        return _Node("set", names=(tokens[0][1],), declares=tokens[1][1] == ":=", expression=tokens[2:])
    return _Node("print", expression=tokens)


# ---- running --------------------------------------------------------------------------------------------------------


def _run(nodes: Sequence[_Node], values: Mapping[str, Any]) -> str:
    written, size = list[str](), 0
    for text in _executed(nodes, values, ChainMap({"$": values})):
        size += len(text)
        written.append(text)
        if len(written) > _MOST_STEPS or size > _MOST_CHARACTERS:
            raise NotUnderstood("loops beyond reason")
    return "".join(written)


def require_valid(template: str) -> None:
    """Raise Invalid where Go's parser would refuse the template. What is not understood here passes."""
    try:
        _parse(template)
    except NotUnderstood as reason:
        if isinstance(reason, Invalid):
            raise


def _executed(nodes: Sequence[_Node], dot: Any, scopes: ChainMap[str, Any]) -> Iterator[str]:
    for node in nodes:
        if node.kind == "text":
            yield node.text
            continue
        yield ""  # a step, for whoever counts them
        value = _evaluated(node.expression, dot, scopes)
        if node.kind == "print":
            yield _printed(value)
        elif node.kind == "set":
            name = node.names[0]
            holder = scopes.maps[0] if node.declares else next((one for one in scopes.maps if name in one), None)
            if holder is None:
                raise NotUnderstood(f"{name} before it is declared")
            holder[name] = value
        elif node.kind == "range" and not isinstance(value, list | tuple | None):
            raise NotUnderstood("range over something else than a list")
        elif not value:
            yield from _executed(node.other, dot, scopes.new_child())
        elif node.kind == "if":
            yield from _executed(node.body, dot, scopes.new_child())
        else:
            for index, one in enumerate(value):
                held = dict(zip(node.names, (index, one)[-len(node.names) :], strict=False))
                yield from _executed(node.body, one, scopes.new_child(held))


def _printed(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise NotUnderstood("the output of something that is no text")


def _evaluated(expression: Sequence[tuple[str, str]], dot: Any, scopes: Mapping[str, Any]) -> Any:
    tokens = deque(expression)
    if tokens.count(("mark", "(")) > _MAX_DEPTH:
        raise NotUnderstood("parentheses beyond reason")
    value = _command(tokens, dot, scopes)
    if tokens:
        raise NotUnderstood(f"{tokens[0][1]!r} there")
    return value


def _command(tokens: deque[tuple[str, str]], dot: Any, scopes: Mapping[str, Any]) -> Any:
    """Take a function with its arguments, or a single term, from the left of `tokens`, and work it out."""
    if not tokens:
        raise NotUnderstood("an expression without an end")
    kind, name = tokens[0]
    if kind != "word" or name not in _FUNCTIONS:
        return _term(tokens, dot, scopes)
    tokens.popleft()
    arguments = []
    while tokens and tokens[0] != ("mark", ")"):
        arguments.append(_term(tokens, dot, scopes))
    return _call(name, arguments)


def _term(tokens: deque[tuple[str, str]], dot: Any, scopes: Mapping[str, Any]) -> Any:
    kind, text = tokens.popleft()
    if kind == "string":
        return text[1:-1] if text[0] == "`" else _go_string(text)
    if kind == "number":
        return int(text)
    if kind == "path":
        first, *rest = text.split(".")
        if first and first not in scopes:
            raise NotUnderstood(f"{first} before it is declared")
        value = scopes[first] if first else dot
        for name in filter(None, rest):
            value = _field(value, name)
        return value
    if text in ("true", "false"):
        return text == "true"
    if (kind, text) == ("mark", "("):
        value = _command(tokens, dot, scopes)
        if not tokens or tokens.popleft() != ("mark", ")"):
            raise NotUnderstood("an expression without an end")
        return value
    raise NotUnderstood(f"'{text}'")


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        raise NotUnderstood(f".{name} of something that has no fields")
    if "role" not in value:  # the template's own values: what is not among them is nil
        return value.get(name)
    fields = {"Role": value["role"], "Content": value["content"], **_EMPTY_OF_A_MESSAGE}
    if name not in fields:
        raise NotUnderstood(f".{name} of a message")
    return fields[name]


def _call(name: str, arguments: Sequence[Any]) -> Any:
    fewest, most = _FUNCTIONS[name]
    if not fewest <= len(arguments) <= most:
        raise NotUnderstood(f"{name} with {len(arguments)} arguments")
    if name in ("and", "or"):  # the first that decides, else the last
        return next((one for one in arguments if bool(one) == (name == "or")), arguments[-1])
    if name == "not":
        return not arguments[0]
    if name in ("eq", "ne"):
        first, *others = arguments
        if any(type(one) is not type(first) for one in others) or not isinstance(first, str | int):
            raise NotUnderstood(f"{name} between different things")
        return (first in others) if name == "eq" else first != others[0]
    if not isinstance(arguments[0], list | tuple | str):
        raise NotUnderstood(f"{name} of something without a length")
    if name == "len":
        value = arguments[0]
        return len(value.encode()) if isinstance(value, str) else len(value)
    start, *stop = arguments[1:] or (0,)
    if isinstance(arguments[0], str) or len(stop) > 1 or not all(isinstance(one, int) for one in (start, *stop)):
        raise NotUnderstood("slice of something else than a list")
    end = stop[0] if stop else len(arguments[0])
    if not 0 <= start <= end <= len(arguments[0]):
        raise NotUnderstood("slice beyond the list, at which Ollama stops")
    return arguments[0][start:end]


def _go_string(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except json.JSONDecodeError as error:
        raise NotUnderstood(f"the constant {text[:20]}") from error
