"""One turn of a row: who speaks, the text, the reasoning before it, the calls in it, and whether it carries loss."""

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

from slimtune.data.formats import keys, tools
from slimtune.data.formats.keys import Complain
from slimtune.data.json_rows import TURNS_OR_TEXT, turns_as_text, type_name
from slimtune.data.records import Role, ToolCall
from slimtune.data.text import faults, normalised, split_thought, with_thought

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "chatbot": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "tool_response": "tool",
}
# Turns of the assistant whose text is a call, or a list of calls, in JSON (LLaMA-Factory, ms-swift).
_CALLS = ("function_call", "tool_call")
_TEXT_PARTS = ("text", "input_text", "output_text")
_REASONING_PARTS = ("thinking", "reasoning")
_PART_TEXTS = ("text", "value", "content", "thinking", "reasoning")
# Values by which some data sets say whether, or how much, the model is to reason.
_SWITCHES = ("on", "off", "true", "false", "yes", "no", "none", "low", "medium", "high", "enabled", "disabled")
_JUDGE = "write 1 (or true) to learn the turn, 0 (or false) to exclude it; the weight of a file is in the recipe"


class Turn(NamedTuple):
    """text: normalised. changed: whether that changed it. field: its place in the row ("messages[2].content").

    call_ids: of the calls, "" for one without. answers: the id of the call that a tool's turn answers, and the name of
    its function; "" where the row does not say.
    """

    role: Role
    text: str
    changed: bool
    field: str
    excluded: bool = False
    calls: tuple[ToolCall, ...] = ()
    call_ids: tuple[str, ...] = ()
    answers: tuple[str, str] = ("", "")


def checked(role: Role, raw: str, field: str, report: Complain) -> Turn:
    """A turn that has a text alone."""
    text = normalised(raw)
    for what, fix in faults(text, role):
        report(f"'{field}' ({role}) {what}", fix)
    return Turn(role, text, text != raw, field)


def reasoned(raw: str, reasoning: str, field: str, report: Complain, *, calls: bool = False) -> Turn:
    """The assistant's turn with its reasoning, "" for none, in front. calls: it calls functions and may say nothing."""
    if reasoning.strip() and split_thought(raw.lstrip()):
        report(f"'{field}' begins with a block of reasoning, and the turn has reasoning of its own", "keep one of them")
        return Turn("assistant", raw, False, field)
    whole = with_thought(reasoning, raw) if reasoning.strip() else raw
    text = normalised(whole)
    for what, fix in faults(text, "assistant", calls=calls):
        report(f"'{field}' (assistant) {what}", fix)
    return Turn("assistant", text, text != whole, field)


def listed(value: Any, key: str, names: tuple[str, str], report: Complain) -> tuple[list[Turn], list[str]]:
    """The turns of a list that can be read at all, every fault reported, and the keys of turns that are left out.

    names: the usual keys for who speaks and for the text; the other spelling is read too.
    """
    shape = f'{{"{names[0]}": …, "{names[1]}": …}}'
    if not isinstance(value, list) or not value:
        state = f"is {type_name(value)}, not a list of {shape}" if not isinstance(value, list) else "is empty"
        report(f"'{key}' {state}", f"write a list of {shape}")
        return [], []
    turns: list[Turn] = []
    ignored: list[str] = []
    for index, entry in enumerate(value):
        place = f"{key}[{index}]"
        if not isinstance(entry, dict):
            report(f"'{place}' is {type_name(entry)}, not an object", f"write {shape}")
            continue
        turn = _turn(entry, place, names, report, ignored)
        if turn is None:
            continue
        if turn.calls and turns and _continues(turns[-1], entry, turn):
            turn = _joined(turns.pop(), turn)
        turns.append(turn)
    return turns, [f"{key}[].{name}" for name in dict.fromkeys(ignored)]


def _turn(
    entry: Mapping[str, Any], place: str, names: tuple[str, str], report: Complain, ignored: list[str]
) -> Turn | None:
    role_key = _spelling(entry, names[0], "role", "from")
    text_key = _spelling(entry, names[1], "content", "value")
    field = f"{place}.{text_key}"
    named = string(entry, role_key, f"{place}.{role_key}", report)
    said = "" if named is None else named.strip().lower()
    if named is not None and said not in _ROLES and said not in _CALLS:
        report(f"'{place}' has the unknown role {named!r}", f"known roles: {', '.join([*_ROLES, *_CALLS])}")
        return None
    role: Role = _ROLES.get(said, "assistant")
    if len(entry) == 2 and said in _ROLES and text_key in entry:  # Nothing else is said about most turns.
        return _said(role, entry, text_key, field, report)
    used = {role_key, text_key}
    excluded = _excluded(entry, role, place, used, report)
    reasoning = reasoning_of(entry, f"{place}.", used, report)
    called, ids = _called(entry, said, text_key, place, used, report)
    answers = _answers(entry, role, place, used, report)
    ignored += keys.check_turn(entry, used, place, report)
    if reasoning and role != "assistant":
        report(f"'{place}' is a turn of {role} with reasoning", "reasoning belongs to turns of the assistant")
    if named is None:
        string(entry, text_key, field, report)
        return None
    if role != "assistant":
        turn = _said(role, entry, text_key, field, report)
        return turn and turn._replace(answers=answers)
    text = "" if said in _CALLS or (called and keys.is_empty(entry.get(text_key))) else None
    if text is None:
        parts = content(entry, text_key, field, report)
        if parts is None:
            return None
        text, thought = parts
        if thought and reasoning and thought != reasoning:
            report(f"'{place}' has reasoning in two places", "keep one of them")
        reasoning = reasoning or thought
    turn = reasoned(text, reasoning, field, report, calls=bool(called))
    return turn._replace(excluded=excluded, calls=called, call_ids=ids)


def _spelling(entry: Mapping[str, Any], usual: str, *others: str) -> str:
    """The key that the turn has of these; the usual one where it has none."""
    return usual if usual in entry else next((key for key in others if key in entry), usual)


def _said(role: Role, entry: Mapping[str, Any], text_key: str, field: str, report: Complain) -> Turn | None:
    raw = entry.get(text_key)
    if not isinstance(raw, str):
        if role == "system" and text_key in entry and raw is None:
            return Turn("system", "", False, field)
        parts = content(entry, text_key, field, report)
        if parts is None:
            return None
        raw, thought = parts
        if thought:
            if role == "assistant":
                return reasoned(raw, thought, field, report)
            report(f"'{field}' ({role}) has reasoning", "reasoning belongs to turns of the assistant")
    if role == "system" and not raw.strip():
        return Turn("system", "", False, field)
    return checked(role, raw, field, report)


def content(value: Mapping[str, Any], key: str, field: str, report: Complain) -> tuple[str, str] | None:
    """The text of a key and the reasoning in it; None, with the reason reported, where it has no text.

    A list of text parts is read as chat templates render it: one part right after the other.
    """
    parts = value.get(key)
    if isinstance(parts, str) or not isinstance(parts, list) or not parts:
        text = string(value, key, field, report)
        if text is not None and field in TURNS_OR_TEXT and turns_as_text(text):
            fix = "write it as a list, without quotes; if it is a text to read, put a word before it"
            report(f"'{field}' is a list of turns that was written as a text", fix)
            return None
        return None if text is None else (text, "")
    kinds = [part.get("type", "text") if isinstance(part, dict) else type_name(part) for part in parts]
    if not all(isinstance(part, dict) for part in parts) or not {*map(str, kinds)} <= {*_TEXT_PARTS, *_REASONING_PARTS}:
        what = f"'{field}' is a list of content parts ({', '.join(dict.fromkeys(map(repr, kinds)))}), not a string"
        report(what, "only text is learned: write it as one string, and leave out rows with pictures or sound")
        return None
    texts: dict[bool, list[str]] = {True: [], False: []}
    for index, (part, kind) in enumerate(zip(parts, kinds, strict=True)):
        place = f"{field}[{index}]"
        text_key = next((one for one in _PART_TEXTS if isinstance(part.get(one), str)), None)
        if text_key is None:
            report(f"'{place}' has no text", 'write {"type": "text", "text": …}')
            return None
        for one in part:
            if keys.plain(one) in keys.LEARNED and part[one] not in (None, 1):
                report(
                    f"'{place}.{one}' excludes a part of a turn", "only whole turns of the assistant can be excluded"
                )
        texts[kind in _REASONING_PARTS].append(part[text_key])
    return "".join(texts[False]), "\n".join(texts[True])


def string(value: Mapping[str, Any], key: str, field: str, report: Complain) -> str | None:
    """The string of a key; None, with the reason reported, where there is none."""
    if key not in value:
        near = difflib.get_close_matches(key, list(value), n=1)
        there = ", ".join(map(repr, value)) or "(none)"
        report(f"'{field}' is missing", f"did you mean {near[0]!r}?" if near else f"the keys here are {there}")
        return None
    if isinstance(value[key], str):
        return value[key]
    report(f"'{field}' is {type_name(value[key])}, not a string", "write it as a string")
    return None


def reasoning_of(value: Mapping[str, Any], place: str, used: set[str], report: Complain) -> str:
    """The reasoning that keys of a turn or a row hold, "" for none. place: in front of a key, for messages."""
    found: dict[str, str] = {}
    for key in value:
        if keys.plain(key) not in keys.REASONING:
            continue
        used.add(key)
        text = value[key]
        if keys.is_empty(text):
            continue
        if not isinstance(text, str):
            report(f"'{place}{key}' is {type_name(text)}, not a string", "write the reasoning as a string")
            continue
        if text.strip().lower() in _SWITCHES:
            report(f"'{place}{key}' is {text!r}, which is no reasoning but switches it", "remove the key")
            continue
        found[key] = text.strip("\n")
    if len(set(found.values())) > 1:
        report(f"{keys.together(f'{place}{key}' for key in found)} differ", "keep the one to learn")
    return next(iter(found.values()), "")


def _excluded(entry: Mapping[str, Any], role: Role, place: str, used: set[str], report: Complain) -> bool:
    """Whether the row's author excluded the turn from the loss."""
    told: dict[str, bool] = {}
    for key, wish in entry.items():
        name = keys.plain(key)
        if name in keys.DETAIL:
            used.add(key)
            if not keys.is_empty(wish) and (whole := _detail(entry, wish, f"{place}.{key}", role, report)) is not None:
                told[key] = whole
        elif name in keys.LEARNED:
            used.add(key)
            if wish is None:
                continue
            if isinstance(wish, bool | int | float) and wish in (0, 1):
                told[key] = bool(wish)
            else:
                shown = str(wish)[:12] if isinstance(wish, int | float) else type_name(wish)
                report(f"'{place}.{key}' is {shown}, and only 0 and 1 are supported", _JUDGE)
    if len(set(told.values())) > 1:
        report(f"{keys.together(f'{place}.{key}' for key in told)} contradict each other", "keep one of them")
    elif role != "assistant" and any(told.values()):
        key = next(iter(told))
        what = f"'{place}.{key}' asks to learn a turn of {role}, and only the assistant's turns are learned"
        report(what, "write 0 (or false), or remove the key")
    return bool(told) and not any(told.values())


def _detail(entry: Mapping[str, Any], spans: Any, field: str, role: Role, report: Complain) -> bool | None:
    """Whether Axolotl's spans (first and last character each) learn the whole text; None where that is no question."""
    text = next((entry[key] for key in ("content", "value") if isinstance(entry.get(key), str)), None)
    shape = '[{"begin_offset": 0, "end_offset": 8, "train": false}, …]'
    covered, wishes = 0, set()
    for span in sorted(spans, key=_begin) if isinstance(spans, list) else [None]:
        if not isinstance(span, dict) or not isinstance(span.get("train"), bool) or _begin(span) < 0:
            report(f"'{field}' is not a list of spans", f"write {shape}")
            return None
        end = span.get("end_offset")
        if not isinstance(end, int) or end < _begin(span):
            report(f"'{field}' has a span that ends before it begins", f"write {shape}")
            return None
        wishes.add(span["train"] if _begin(span) <= covered else None)
        covered = max(covered, end + 1)
    if text is not None and len(wishes) == 1 and None not in wishes and covered >= len(text):
        return wishes == {True}
    if role == "assistant" or True in wishes:
        what = f"'{field}' learns a part of the turn, and only whole turns can be learned or excluded"
        report(what, 'exclude the whole turn ("train": false), or split it into two rows')
    return None


def _begin(span: Any) -> int:
    begin = span.get("begin_offset") if isinstance(span, dict) else None
    return begin if isinstance(begin, int) else -1


def _called(
    entry: Mapping[str, Any], said: str, text_key: str, place: str, used: set[str], report: Complain
) -> tuple[tuple[ToolCall, ...], tuple[str, ...]]:
    """The functions that a turn calls, and the calls' ids."""
    found: list[tuple[str, Any]] = [(text_key, entry.get(text_key))] if said in _CALLS else []
    for key in ("tool_calls", "function_call"):
        if key in entry:
            used.add(key)
            if not keys.is_empty(entry[key]):
                found.append((key, entry[key]))
    if not found:
        return (), ()
    if said not in _CALLS and _ROLES.get(said) not in ("assistant", None):
        report(f"'{place}.{found[0][0]}' is in a turn of {said}", "only the assistant calls functions")
        return (), ()
    if len(found) > 1:
        report(f"'{place}' has calls in {keys.together(key for key, _ in found)}", "keep one of them")
    key, value = found[0]
    known: list[str] = []

    def told(what: str, fix: str) -> None:
        known.append(what)
        report(what, fix)

    made, ids = tools.calls(value, f"{place}.{key}", told)
    if not made and not known:
        report(f"'{place}.{key}' calls no function", 'write {"name": …, "arguments": {…}}')
    return made, ids


def _answers(entry: Mapping[str, Any], role: Role, place: str, used: set[str], report: Complain) -> tuple[str, str]:
    """The id of the call that a turn answers, and its function's name."""
    if role != "tool":
        return "", ""
    found = []
    for key in ("tool_call_id", "name"):
        used.add(key)
        value = entry.get(key)
        if value is not None and not isinstance(value, str):
            report(f"'{place}.{key}' is {type_name(value)}, not a string", "write it as a string")
        found.append(value if isinstance(value, str) else "")
    return found[0], found[1]


def _continues(before: Turn, entry: Mapping[str, Any], turn: Turn) -> bool:
    """Whether calls belong to the turn before: ms-swift lists each of several calls as a turn of its own."""
    is_call = any(str(entry.get(key, "")).strip().lower() in _CALLS for key in ("role", "from"))
    return is_call and before.role == "assistant" and before.excluded == turn.excluded


def _joined(before: Turn, turn: Turn) -> Turn:
    calls, ids = (*before.calls, *turn.calls), (*before.call_ids, *turn.call_ids)
    return before._replace(calls=calls, call_ids=ids, changed=before.changed or turn.changed)
