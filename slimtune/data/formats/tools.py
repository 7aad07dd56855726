"""Functions that the assistant may call, and its calls of them, as OpenAI's API writes both."""

import json
from collections.abc import Collection
from typing import Any

from slimtune.core import inputs
from slimtune.data.formats.keys import Complain, is_empty
from slimtune.data.json_rows import StrictDecoder, type_name
from slimtune.data.records import ToolCall
from slimtune.data.text import faults, normalised, unwritable

_TOOL = '{"type": "function", "function": {"name": …, "description": …, "parameters": {…}}}'
_CALL = '{"type": "function", "function": {"name": …, "arguments": {…}}}'
# What other services call "parameters".
_FOREIGN = ("input_schema", "inputSchema")


def definitions(value: Any, field: str, report: Complain) -> tuple[str, frozenset[str]]:
    """The functions as a JSON array for `Conversation.tools`, and their names; ("", none) for none or for faulty ones.

    value: a list, or its JSON text; each function in OpenAI's wrapper or bare.
    """
    value = _parsed(value, field, report)
    if is_empty(value):
        return "", frozenset()
    listed = value if isinstance(value, list) else [value]
    tools: list[dict[str, Any]] = []
    names: list[str] = []
    for index, tool in enumerate(listed):
        place = f"{field}[{index}]"
        function = _function(tool, place, _TOOL, report)
        if function is None:
            continue
        name = _name(function, place, _TOOL, report)
        if name is None:
            continue
        if name in names:
            report(f"'{place}' defines the function '{name}' again", "keep one definition")
        if foreign := next((key for key in _FOREIGN if key in function), None):
            report(f"'{place}.{foreign}' is not a key of OpenAI's layout", "rename it to 'parameters'")
        parameters = function.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            report(f"'{place}.parameters' is {type_name(parameters)}, not an object", f"write {_TOOL}")
        names.append(name)
        wrapped = tool if isinstance(tool.get("function"), dict) else {"function": tool}
        tools.append({"type": "function", **wrapped})
    text = _checked_json(tools, field, report)
    return text, frozenset(names)


def calls(value: Any, field: str, report: Complain) -> tuple[tuple[ToolCall, ...], tuple[str, ...]]:
    """The calls of a turn and their ids ("" where a call has none).

    value: a list, or its JSON text, or one call; each in OpenAI's wrapper or bare, its arguments an object or JSON text.
    """
    value = _parsed(value, field, report)
    if is_empty(value):
        return (), ()
    listed = value if isinstance(value, list) else [value]
    made: list[ToolCall] = []
    ids: list[str] = []
    for index, call in enumerate(listed):
        place = f"{field}[{index}]" if isinstance(value, list) else field
        function = _function(call, place, _CALL, report)
        if function is None:
            continue
        name = _name(function, place, _CALL, report)
        if name is None:
            continue
        for key in function:
            if key not in ("name", "arguments", "id", "type", "index", "call_id") and not is_empty(function[key]):
                report(f"'{place}.{key}' is not a key of a call", f"write {_CALL}")
        arguments = _parsed(function.get("arguments"), f"{place}.arguments", report)
        if arguments is None and "arguments" in function and is_empty(function["arguments"]):
            arguments = {}
        if arguments is None and "arguments" not in function:
            report(f"'{place}.arguments' is missing", f"write {_CALL}, with {{}} where the function takes none")
            continue
        if not isinstance(arguments, dict):
            if arguments is not None:
                report(f"'{place}.arguments' is {type_name(arguments)}, not an object", f"write {_CALL}")
            continue
        made.append(ToolCall(name, _checked_json(arguments, f"{place}.arguments", report)))
        id = call.get("id") or call.get("call_id")
        ids.append(id if isinstance(id, str) else "")
    return tuple(made), tuple(ids)


def check_names(called: Collection[ToolCall], defined: Collection[str], field: str, report: Complain) -> None:
    """Complain each call of a function that the row's `tools` do not define."""
    for name in dict.fromkeys(call.name for call in called):
        if name not in defined:
            what = f"'{field}' calls '{name}', which 'tools' does not define"
            report(what, f"defined are {', '.join(sorted(defined))}: correct the name, or add its definition")


def _function(value: Any, place: str, shape: str, report: Complain) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        report(f"'{place}' is {type_name(value)}, not an object", f"write {shape}")
        return None
    kind = value.get("type")
    if kind not in (None, "function"):
        report(f"'{place}' has the type {kind!r}, and only functions are supported", f"write {shape}")
        return None
    function = value.get("function", value)
    if not isinstance(function, dict):
        report(f"'{place}.function' is {type_name(function)}, not an object", f"write {shape}")
        return None
    return function


def _name(function: dict[str, Any], place: str, shape: str, report: Complain) -> str | None:
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        report(f"'{place}' has no name", f"write {shape}")
        return None
    for what, fix in faults(name, "tool"):
        report(f"the name in '{place}' {what}", fix)
    return normalised(name)


def _parsed(value: Any, field: str, report: Complain) -> Any:
    """The value, or what its JSON text says; None where that is broken, which has been reported, or blank."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    decoder = StrictDecoder()
    try:
        parsed = decoder.decode(value)
    except inputs.FAULTS as error:
        report(f"'{field}' is not JSON: {inputs.reason(error)}", "write it as JSON, or as JSON text")
        return None
    for complaint in dict.fromkeys(decoder.complaints):
        report(f"in '{field}' {complaint}", "correct the JSON text")
    return parsed


def _checked_json(value: Any, field: str, report: Complain) -> str:
    """The value as normalised JSON text; what no text may hold has been reported."""
    text = normalised(json.dumps(value, ensure_ascii=False))
    for what, fix in dict.fromkeys([*unwritable(value), *faults(text, "tool")]):
        report(f"'{field}' {what}", fix)
    return text
