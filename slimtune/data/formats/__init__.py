"""The layouts of a training row, and the one `Conversation` that each becomes.

    messages              {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
    sharegpt              {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}
    alpaca                {"instruction": "…", "input": "… (optional)", "output": "…"}
    input_output          {"input": "…", "output": "…"}
    instruction_response  {"instruction": "…", "context": "… (optional)", "response": "…"}, Dolly's
    prompt_completion     {"prompt": "…", "completion": "…"}, TRL's: texts, or lists of turns; or "response"
    question_answer       {"question": "…", "answer": "…"}, with "context" in front of the question; or "response"
    query_response        {"query": "…", "response": "…"}, ms-swift's

All may have `meta` (an object, kept as it is), a system prompt (`system`, `system_prompt`) and `tools`. The table
`_SINGLE` says what else a row of one question may have. `keys.py` says what becomes of other keys, `turns.py` how turns
say that they are excluded, reason or call functions.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast, get_args

from slimtune.core.errors import Problem
from slimtune.data.formats import keys, order, tools, turns
from slimtune.data.formats.keys import Complain
from slimtune.data.formats.turns import Turn
from slimtune.data.json_rows import Row, type_name
from slimtune.data.preference_keys import marks, refusal
from slimtune.data.records import Conversation, Message
from slimtune.data.text import normalised, unwritable
from slimtune.recipe.names import FormatName

FORMATS = ("auto", *get_args(FormatName))
FIRST_ROWS = 20


class _Single(NamedTuple):
    """A layout of one question. asked: keys whose texts, joined by empty lines, are the user's; the ones in `optional`
    may be missing or empty. answer: the first of these keys that a row has. history: it may have earlier turns."""

    asked: tuple[str, ...]
    optional: frozenset[str]
    answer: tuple[str, ...]
    history: bool = False


_SINGLE: dict[FormatName, _Single] = {
    "alpaca": _Single(("instruction", "input"), frozenset({"input"}), ("output",), history=True),
    "input_output": _Single(("input",), frozenset(), ("output",)),
    "instruction_response": _Single(
        ("instruction", "input", "context"), frozenset({"input", "context"}), ("response",), history=True
    ),
    "prompt_completion": _Single(("prompt",), frozenset(), ("completion", "response")),
    "question_answer": _Single(("context", "question"), frozenset({"context"}), ("answer", "response")),
    "query_response": _Single(("query",), frozenset(), ("response",), history=True),
}
# For layouts that list turns: the key of the list, and the usual keys of a turn.
_LISTED: dict[FormatName, tuple[str, tuple[str, str]]] = {
    "messages": ("messages", ("role", "content")),
    "sharegpt": ("conversations", ("from", "value")),
}
# The keys that a row must have, all of one of the sets. The more specific formats come first.
_REQUIRED: dict[FormatName, tuple[frozenset[str], ...]] = {
    **{name: (frozenset({key}),) for name, (key, _) in _LISTED.items()},
    **{name: tuple(frozenset({*one.asked, key} - one.optional) for key in one.answer) for name, one in _SINGLE.items()},
}
_IN_ORDER = [(name, required) for name, sets in _REQUIRED.items() for required in sets]
# The keys of a row that need no look at anything else in it.
_PLAIN = {name: frozenset().union(*sets, {"meta"}) for name, sets in _REQUIRED.items()}
_PLAIN["alpaca"] |= {"input"}


@dataclass(frozen=True, slots=True)
class Converted:
    """nfc_changed: whether normalisation changed any of its texts. ignored: keys that are left out, "messages[].name"
    for one of turns. excluded: turns of the assistant without loss. empty_system: whether an empty system prompt was
    left out."""

    row: Row
    conversation: Conversation
    nfc_changed: bool
    ignored: tuple[str, ...]
    excluded: int = 0
    empty_system: bool = False

    @property
    def record(self) -> Conversation:
        return self.conversation

    @property
    def question(self) -> Conversation:
        """By which repeated and contradicting rows are found."""
        return self.conversation


@dataclass(slots=True)
class _Reading:
    """What is read of a row. used: its keys that mattered. ignored: keys of turns that did not. names: of `tools`."""

    report: Complain
    turns: list[Turn] = field(default_factory=list)
    used: set[str] = field(default_factory=lambda: {"meta"})
    ignored: list[str] = field(default_factory=list)
    tools: str = ""
    names: Collection[str] = ()


def detect(value: Mapping[str, Any]) -> FormatName | None:
    """The first format whose required keys the row has; None for no format."""
    there = value.keys()
    for name, required in _IN_ORDER:
        if required <= there:
            return name
    return None


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
    there = ", ".join(map(repr, rows[0].value)) or "(none)"
    if format == "auto":
        if detected is None and (mark := marks(rows[0].value)):
            problems.append(refusal(mark, path, rows[0].line, f"the rows are {mark.what}"))
        elif detected is None:
            what = f"no known format: the first row has the keys {there}"
            problems.append(Problem(what, where, _unknown_fix(rows[0])))
        return detected
    name = cast(FormatName, format)
    if detected and not any(_has(row.value, name) for row in rows[:FIRST_ROWS]):
        option, value = setting or ("data.format", format)
        what = f"{option} is {value}, but the rows have the format {detected} (keys {there})"
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
    value = row.value

    def report(what: str, fix: str) -> None:
        problems.append(Problem(what, f"{path}:{row.line}", fix))

    if mark := marks(value):
        problems.append(refusal(mark, path, row.line, f"the row is one of {mark.what}"))
        return None
    read = _Reading(report)
    plain = value.keys() <= _PLAIN[name]
    if name in _LISTED:
        _read_list(value, name, read)
    else:
        _read_single(value, _SINGLE[name], read, plain=plain)
    ignored: tuple[str, ...] = ()
    if not plain and not value.keys() <= read.used:
        texts = [turn.text for turn in read.turns if turn.role in ("user", "assistant")]
        ignored = keys.check_row(value, read.used, name, texts, report, listed=name in _LISTED)
    meta = value.get("meta", {})
    if not isinstance(meta, dict):
        report(f"'meta' is {type_name(meta)}, not an object", 'write "meta": {…}, or leave it out')
    for what, fix in unwritable(meta):
        report(f"'meta' {what}", fix)
    for key in ignored:
        for what, fix in unwritable({key: value[key]}):
            report(f"{key!r} {what}", fix)
    spoken = [turn for turn in read.turns if turn.text or turn.role != "system"]
    if len(problems) == known:
        _check_whole(spoken, read)
    if len(problems) > known:
        return None
    messages = [Message(turn.role, turn.text, turn.excluded, turn.calls) for turn in spoken]
    if system and messages[0].role != "system":
        messages.insert(0, Message("system", normalised(system)))
    return Converted(
        row,
        Conversation(tuple(messages), meta, path, row.line, read.tools),
        any(turn.changed for turn in spoken),
        (*ignored, *read.ignored),
        excluded=sum(turn.excluded for turn in spoken),
        empty_system=len(spoken) < len(read.turns),
    )


def _has(value: Mapping[str, Any], name: FormatName) -> bool:
    return any(required <= value.keys() for required in _REQUIRED[name])


def _unknown_fix(row: Row) -> str:
    """What to do about a row of no known format."""
    value = row.value
    if isinstance(value.get("text"), str):
        return "plain text has no questions to answer; write it as questions and answers"
    if {"question", "choices"} <= value.keys():
        return "slimtune data build makes training rows of multiple-choice questions"
    return (
        'rename the keys: {"input", "output"}, {"messages"}, {"instruction", "output"}, {"conversations"}, '
        '{"prompt", "completion"} or {"question", "answer"}'
    )


def _read_list(value: Mapping[str, Any], name: FormatName, read: _Reading) -> None:
    key, names = _LISTED[name]
    read.used.add(key)
    if key not in value:
        shape = f'{{"{names[0]}": …, "{names[1]}": …}}'
        read.report(f"'{key}' is missing", f"write a list of {shape}")
        return
    found, read.ignored = turns.listed(value[key], key, names, read.report)
    if len(value) > 1:
        own = _system(value, read)
        if own and found and found[0].role == "system" and found[0].text:
            if own.text.strip() != found[0].text.strip():
                read.report(f"'{own.field}' differs from the system prompt in '{key}'", "keep one of them")
        elif own:
            found = [own, *(turn for turn in found if turn.role != "system" or turn.text)]
        _read_tools(value, read)
        found = _with_masked_history(value, found, read)
    read.turns = found


def _read_single(value: Mapping[str, Any], layout: _Single, read: _Reading, *, plain: bool) -> None:
    """plain: the row has nothing but its question and its answer."""
    report, before = read.report, list[Turn]()
    reasoning = ""
    if not plain:
        if own := _system(value, read):
            before.append(own)
        _read_tools(value, read)
        if layout.history:
            read.used.add("history")
            before += _with_masked_history(value, _history(value.get("history"), report), read, all_of_them=True)
        reasoning = turns.reasoning_of(value, "", read.used, report)
    asked = [key for key in layout.asked if key not in layout.optional or not keys.is_nothing(value.get(key))]
    answer = next((key for key in layout.answer if key in value), layout.answer[0])
    read.used.update(layout.asked, (answer,))
    if layout.asked == ("prompt",) and isinstance(value.get("prompt"), list):
        listed, ignored = turns.listed(value["prompt"], "prompt", ("role", "content"), report)
        read.ignored += ignored
        # What TRL learns of such a row is the completion alone.
        before += [turn._replace(excluded=turn.role == "assistant") for turn in listed]
    else:
        before += _asked(value, asked, report)
    if layout.asked == ("prompt",) and isinstance(value.get(answer), list):
        listed, ignored = turns.listed(value[answer], answer, ("role", "content"), report)
        read.ignored += ignored
        if spoken := next((turn for turn in listed if turn.role in ("user", "system")), None):
            report(
                f"'{spoken.field}' is a turn of {spoken.role}", f"'{answer}' holds what is learned: move it to 'prompt'"
            )
        if reasoning:
            report(f"'{answer}' is a list of turns, and reasoning stands beside it", "write it into its turn")
        read.turns = [*before, *listed]
        return
    text = turns.content(value, answer, answer, report)
    read.turns = before
    if text is not None:
        if text[1] and reasoning:
            report(f"'{answer}' has reasoning of its own", "keep one of them")
        read.turns = [*before, turns.reasoned(text[0], reasoning or text[1], answer, report)]


def _asked(value: Mapping[str, Any], asked: Sequence[str], report: Complain) -> list[Turn]:
    """The user's turn, from one or several keys."""
    made: list[Turn] = []
    for key in asked:
        text = turns.content(value, key, key, report)
        if text is not None:
            made.append(turns.checked("user", text[0], key, report))
    if len(made) < 2:
        return made
    return [Turn("user", "\n\n".join(turn.text for turn in made), any(turn.changed for turn in made), made[0].field)]


def _system(value: Mapping[str, Any], read: _Reading) -> Turn | None:
    """The row's own system prompt, whichever of its names it has."""
    found: list[Turn] = []
    for key in keys.SYSTEM:
        read.used.add(key)
        if key in value and not keys.is_empty(value[key]):
            text = turns.content(value, key, key, read.report)
            if text is not None:
                found.append(turns.checked("system", text[0], key, read.report))
    if len({turn.text for turn in found}) > 1:
        read.report(f"{keys.together(turn.field for turn in found)} differ", "keep one of them")
    return found[0] if found else None


def _read_tools(value: Mapping[str, Any], read: _Reading) -> None:
    for key in keys.TOOLS:
        read.used.add(key)
        if key not in value or keys.is_empty(value[key]):
            continue
        text, names = tools.definitions(value[key], key, read.report)
        if read.tools and text != read.tools:
            read.report("'tools' and 'functions' differ", "keep one of them")
        read.tools, read.names = text, names


def _history(value: Any, report: Complain) -> list[Turn]:
    """Earlier turns, as LLaMA-Factory and ms-swift write them: [["question", "answer"], …]."""
    if keys.is_empty(value):
        return []
    made: list[Turn] = []
    for index, pair in enumerate(value if isinstance(value, list) else [value]):
        place = f"history[{index}]"
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            report(f"'{place}' is not a pair of texts", 'write "history": [["question", "answer"], …]')
            continue
        made += [turns.checked("user", pair[0], f"{place}[0]", report)]
        made += [turns.reasoned(pair[1], "", f"{place}[1]", report)]
    return made


def _with_masked_history(
    value: Mapping[str, Any], found: list[Turn], read: _Reading, *, all_of_them: bool = False
) -> list[Turn]:
    """The turns, the assistant's excluded where the row says so: all of them, or all but the last."""
    read.used.add(keys.MASK_HISTORY)
    wish = value.get(keys.MASK_HISTORY)
    if wish is not None and not (isinstance(wish, bool | int | float) and wish in (0, 1)):
        read.report(f"'{keys.MASK_HISTORY}' is {type_name(wish)}, not true or false", "write true or false")
    if not wish:
        return found
    last = (
        len(found) if all_of_them else max((at for at, turn in enumerate(found) if turn.role == "assistant"), default=0)
    )
    return [
        turn._replace(excluded=True) if turn.role == "assistant" and at < last else turn
        for at, turn in enumerate(found)
    ]


def _check_whole(spoken: Sequence[Turn], read: _Reading) -> None:
    """Complain what is wrong with a conversation whose turns are sound."""
    order.check(spoken, read.report)
    if read.names:
        for turn in spoken:
            if turn.calls:
                tools.check_names(turn.calls, read.names, turn.field, read.report)
    answers = [turn for turn in spoken if turn.role == "assistant"]
    if answers and all(turn.excluded for turn in answers):
        what = "every turn of the assistant is excluded, so the row teaches nothing"
        read.report(what, "remove the row, or include the turn that is to be learned")
