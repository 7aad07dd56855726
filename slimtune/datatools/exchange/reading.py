"""Files of any layout to conversations, with everything that did not come along counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.wording import plural
from slimtune.data import formats
from slimtune.data.json_rows import Row
from slimtune.data.problems import bad_data
from slimtune.data.records import Conversation
from slimtune.data.sources import read_rows
from slimtune.data.text import faults, normalised

_TURN_KEYS = {"messages": ("role", "content"), "sharegpt": ("from", "value")}
_UNHEEDED = {"weight": ": every turn of the assistant is trained on"}
_LISTS = {"messages": "messages", "sharegpt": "conversations"}


@dataclass(frozen=True, slots=True)
class Read:
    """conversations: of all files, in order. losses: sentences, each with a count, on what differs from the files."""

    conversations: tuple[Conversation, ...]
    losses: tuple[str, ...]


def read_files(
    paths: Sequence[str],
    *,
    format: str = "auto",
    setting: tuple[str, str] | None = None,
    system: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Read:
    """The conversations of all files (or hub ids), each file of one layout.

    format: one of `formats.FORMATS`. setting: the option that names it and its value ("--from", "openai"), for messages.
    system: the prompt of rows without one. on_progress: rows read, of how many of the file.
    Raises SlimtuneError with every problem of every file.
    """
    if system is not None:
        wrong = [Problem(f"the system prompt {what}", "--system", fix) for what, fix in faults(system, "system")]
        if wrong:
            raise SlimtuneError(wrong)
        system = normalised(system)
    problems: dict[str, list[Problem]] = {}
    conversations: list[Conversation] = []
    lost: Counter[str] = Counter()
    for path in paths:
        if path in problems:
            problems[path].append(Problem("the file is named twice", path, "name it once"))
            continue
        found = problems.setdefault(path, [])
        rows = read_rows(path, found)
        if rows:
            name, sound = formats.convert_file(
                rows, format, path=path, system=system, problems=found, setting=setting, on_progress=on_progress
            )
            conversations += [one.conversation for one in sound]
            lost += _losses(rows, name or "", sound)
    if any(problems.values()):
        raise bad_data(problems)
    return Read(tuple(conversations), tuple(f"{plural(count, 'row')}: {what}" for what, count in lost.items()))


def _losses(rows: Sequence[Row], name: str, sound: Sequence[formats.Converted]) -> Counter[str]:
    """What the conversations lack or have otherwise than their rows, each with the number of rows."""
    lost: Counter[str] = Counter()
    for one in sound:
        lost.update(f"the key '{key}' is dropped, since the layout {name} does not have it" for key in one.ignored)
        lost["the text is put into Unicode normalisation form C"] += one.nfc_changed
    for row in rows:
        if name == "alpaca" and row.value.get("input"):
            lost["'instruction' and 'input' are joined by an empty line"] += 1
        lost.update(f"'{key}' of turns is dropped{_UNHEEDED.get(key, '')}" for key in _foreign_keys(row.value, name))
    return +lost


def _foreign_keys(value: dict[str, Any], name: str) -> set[str]:
    """Keys of turns that no conversation has, such as the service's `weight` and `name`."""
    turns = value.get(_LISTS.get(name, ""), [])
    if not isinstance(turns, list):
        return set()
    return {key for turn in turns if isinstance(turn, dict) for key in turn if key not in _TURN_KEYS[name]}
