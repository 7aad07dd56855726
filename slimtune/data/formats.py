"""The four layouts of a training row, and the one `Conversation` that each becomes.

    input_output  {"input": "…", "output": "…"}
    messages      {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
    alpaca        {"instruction": "…", "input": "… (optional)", "output": "…"}
    sharegpt      {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}

All may have `meta` (an object, kept as it is) and, except `messages`, their own `system` prompt.
"""

import difflib
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast, get_args

from slimtune.core.errors import Problem
from slimtune.data.json_rows import Row, type_name
from slimtune.data.preference_keys import marks, refusal
from slimtune.data.records import Conversation, Message, Role
from slimtune.data.text import faults, normalised, unwritable
from slimtune.recipe.names import FormatName

FORMATS = ("auto", *get_args(FormatName))
FIRST_ROWS = 20

# The keys that a row must have, and those that it may have. The more specific formats come first.
_KEYS: dict[FormatName, tuple[set[str], set[str]]] = {
    "messages": ({"messages"}, {"meta"}),
    "sharegpt": ({"conversations"}, {"system", "meta"}),
    "alpaca": ({"instruction", "output"}, {"input", "system", "meta"}),
    "input_output": ({"input", "output"}, {"system", "meta"}),
}
_MESSAGE_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_SHAREGPT_ROLES: dict[str, Role] = _MESSAGE_ROLES | {"human": "user", "gpt": "assistant"}
# Keys that carry a part of the conversation: leaving them out would train on something else than the file says.
_UNSUPPORTED = (
    *("tools", "tool_calls", "tool_call_id", "function_call", "reasoning_content", "history"),
    *("images", "videos", "audios"),
)

_Report = Callable[[str, str], None]


class _Turn(NamedTuple):
    """text: normalised. changed: whether that changed it. field: its place in the row ("messages[2].content")."""

    role: Role
    text: str
    changed: bool
    field: str


@dataclass(frozen=True, slots=True)
class Converted:
    """nfc_changed: whether normalisation changed any of its texts. ignored: the row's keys that the format lacks."""

    row: Row
    conversation: Conversation
    nfc_changed: bool
    ignored: tuple[str, ...]

    @property
    def record(self) -> Conversation:
        return self.conversation


def detect(value: Mapping[str, Any]) -> FormatName | None:
    """The first format whose required keys the row has; None for no format."""
    return next((name for name, (required, _) in _KEYS.items() if required <= value.keys()), None)


def choose(
    rows: Sequence[Row], format: str, path: str, problems: list[Problem], *, setting: tuple[str, str] | None = None
) -> FormatName | None:
    """The format of a file: the one that was asked for, or for "auto" that of most of its first `FIRST_ROWS` rows.

    setting: where the format was asked for, and by what name, for the message; by default ("data.format", format).
    None, with the reason in `problems`, if no format fits, or if these rows show another one than was asked for.
    """
    shown = Counter(name for row in rows[:FIRST_ROWS] if (name := detect(row.value)))
    detected = shown.most_common(1)[0][0] if shown else None
    where = f"{path}:{rows[0].line}"
    keys = ", ".join(map(repr, rows[0].value)) or "(none)"
    if format == "auto":
        if detected is None and (mark := marks(rows[0].value)):
            problems.append(refusal(mark, path, rows[0].line, f"the rows are {mark.what}"))
        elif detected is None:
            fix = 'rename the keys: {"input", "output"}, {"messages"}, {"instruction", "output"} or {"conversations"}'
            problems.append(Problem(f"no known format: the first row has the keys {keys}", where, fix))
        return detected
    name = cast(FormatName, format)
    if detected and not any(_KEYS[name][0] <= row.value.keys() for row in rows[:FIRST_ROWS]):
        option, value = setting or ("data.format", format)
        what = f"{option} is {value}, but the rows have the format {detected} (keys {keys})"
        problems.append(Problem(what, where, f"set {option} to {detected} or auto"))
        return None
    return name


def convert_rows(
    rows: Sequence[Row], name: FormatName, format: str, *, path: str, system: str | None, problems: list[Problem]
) -> list[Converted]:
    """The sound rows of a file, or of a part of it, whose format is `name`. format: what was asked for, or "auto"."""
    converted: list[Converted] = []
    for row in rows:
        other = detect(row.value)
        if format == "auto" and other not in (None, name):
            what = f"a row of format {other} in a file of format {name}"
            problems.append(Problem(what, f"{path}:{row.line}", "use one format per file"))
        elif one := convert(row, name, path=path, system=system, problems=problems):
            converted.append(one)
    return converted


def convert(
    row: Row, name: FormatName, *, path: str, system: str | None = None, problems: list[Problem]
) -> Converted | None:
    """The row with `system` in front if it has no system prompt; None if something is added to `problems`."""
    known = len(problems)

    def report(what: str, fix: str) -> None:
        problems.append(Problem(what, f"{path}:{row.line}", fix))

    if mark := marks(row.value):
        problems.append(refusal(mark, path, row.line, f"the row is one of {mark.what}"))
        return None
    turns = _turns(row.value, name, report)
    _refuse_unsupported(row.value, "", report)
    meta = row.value.get("meta", {})
    if not isinstance(meta, dict):
        report(f"'meta' is {type_name(meta)}, not an object", 'write "meta": {…}, or leave it out')
    for what, fix in unwritable(meta):
        report(f"'meta' {what}", fix)
    ignored = tuple(key for key in row.value if not any(key in keys for keys in _KEYS[name]))
    for key in ignored:
        for what, fix in unwritable({key: row.value[key]}):
            report(f"{key!r} {what}", fix)
    if len(problems) == known:
        _check_order(turns, report)
    if len(problems) > known:
        return None
    messages = [Message(turn.role, turn.text) for turn in turns]
    if system and messages[0].role != "system":
        messages.insert(0, Message("system", normalised(system)))
    changed = any(turn.changed for turn in turns)
    return Converted(row, Conversation(tuple(messages), meta, path, row.line), changed, ignored)


def _turns(value: Mapping[str, Any], name: FormatName, report: _Report) -> list[_Turn]:
    """The row's turns that can be read at all (strings, known roles); every fault has been reported."""
    if name == "messages":
        return _listed(value, "messages", ("role", "content"), _MESSAGE_ROLES, report)
    turns: list[_Turn] = []
    if value.get("system") not in (None, ""):
        turns += _text_turn(value, "system", "system", report)
    if name == "sharegpt":
        return turns + _listed(value, "conversations", ("from", "value"), _SHAREGPT_ROLES, report)
    keys = ["input"]
    if name == "alpaca":
        # Alpaca's own files write "" where an instruction needs no input.
        keys = ["instruction", "input"] if value.get("input") not in (None, "") else ["instruction"]
    asked = [turn for key in keys for turn in _text_turn(value, key, "user", report)]
    text = "\n\n".join(turn.text for turn in asked)
    turns.append(_Turn("user", text, any(turn.changed for turn in asked), keys[0]))
    return turns + _text_turn(value, "output", "assistant", report)


def _text_turn(value: Mapping[str, Any], key: str, role: Role, report: _Report) -> list[_Turn]:
    text = _string(value, key, key, report)
    return [] if text is None else [_checked(role, text, key, report)]


def _checked(role: Role, raw: str, field: str, report: _Report) -> _Turn:
    text = normalised(raw)
    for what, fix in faults(text, role):
        report(f"'{field}' ({role}) {what}", fix)
    return _Turn(role, text, text != raw, field)


def _listed(
    value: Mapping[str, Any], key: str, names: tuple[str, str], roles: Mapping[str, Role], report: _Report
) -> list[_Turn]:
    role_key, text_key = names
    shape = f'{{"{role_key}": …, "{text_key}": …}}'
    listed = value.get(key)
    if not isinstance(listed, list) or not listed:
        state = f"is {type_name(listed)}, not a list of {shape}" if not isinstance(listed, list) else "is empty"
        report(f"'{key}' {state}" if key in value else f"'{key}' is missing", f"write a list of {shape}")
        return []
    turns: list[_Turn] = []
    for index, entry in enumerate(listed):
        place = f"{key}[{index}]"
        if not isinstance(entry, dict):
            report(f"'{place}' is {type_name(entry)}, not an object", f"write {shape}")
            continue
        _refuse_unsupported(entry, f"{place}.", report)
        role = _string(entry, role_key, f"{place}.{role_key}", report)
        text = _string(entry, text_key, f"{place}.{text_key}", report)
        if role is not None and role not in roles:
            report(f"'{place}' has the unknown role {role!r}", f"known roles: {', '.join(roles)}")
        elif role is not None and text is not None:
            turns.append(_checked(roles[role], text, f"{place}.{text_key}", report))
    return turns


def _refuse_unsupported(value: Mapping[str, Any], place: str, report: _Report) -> None:
    for key in _UNSUPPORTED:
        if value.get(key):
            report(f"'{place}{key}' is not supported", "leave it out, or write it as text of a turn")


def _string(value: Mapping[str, Any], key: str, field: str, report: _Report) -> str | None:
    if key not in value:
        near = difflib.get_close_matches(key, list(value), n=1)
        keys = ", ".join(map(repr, value)) or "(none)"
        report(f"'{field}' is missing", f"did you mean {near[0]!r}?" if near else f"the keys here are {keys}")
        return None
    content = value[key]
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        kinds = [part.get("type", "?") if isinstance(part, dict) else type_name(part) for part in content]
        what = f"'{field}' is a list of content parts ({', '.join(dict.fromkeys(map(repr, kinds)))}), not a string"
        report(what, "only text is supported: write it as one string")
    else:
        report(f"'{field}' is {type_name(content)}, not a string", "write it as a string")
    return None


def _check_order(turns: Sequence[_Turn], report: _Report) -> None:
    """Report the first turn that stands in the wrong place."""
    fix = "a conversation is: system (optional), then user and assistant in turn, ending with the assistant"
    spoken = turns[turns[0].role == "system" :]
    for turn, expected in zip(spoken, itertools.cycle(("user", "assistant")), strict=False):
        if turn.role != expected:
            report(f"'{turn.field}' is a turn of {turn.role}, not of {expected}", fix)
            return
    if turns[-1].role != "assistant":
        report(f"the conversation ends with {turns[-1].role}, not with the assistant", fix)
