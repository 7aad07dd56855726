"""Files of any layout to conversations, with everything that did not come along counted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.progress import Advance, ignore
from slimtune.core.units import plural
from slimtune.data import formats
from slimtune.data.problems import bad_data
from slimtune.data.reading import DataFile, distinct
from slimtune.data.records import Conversation
from slimtune.data.text import system_problems

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
    on_progress: Advance = ignore,
) -> Read:
    """The conversations of all files or hub ids, one layout per file.

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
            lost += _losses(converted, file.layout)
            on_progress(file.done, file.total)
    if any(problems.values()):
        raise bad_data(problems)
    return Read(tuple(conversations), tuple(f"{plural(count, 'row')}: {what}" for what, count in lost.items()))


def _losses(converted: Sequence[formats.Converted], name: str) -> Counter[str]:
    """What the conversations lack or have otherwise than their rows, each with the number of rows."""
    lost: Counter[str] = Counter()
    for one in converted:
        lost.update(f"the key '{key}' is dropped, since the layout {name} does not have it" for key in one.ignored)
        lost["the text is put into Unicode normalisation form C"] += one.nfc_changed
        row = one.row.value
        if name == "alpaca" and row.get("input"):
            lost["'instruction' and 'input' are joined by an empty line"] += 1
        lost.update(f"'{key}' of turns is dropped{_UNHEEDED.get(key, '')}" for key in _foreign_keys(row, name))
    return +lost


def _foreign_keys(value: dict[str, Any], name: str) -> set[str]:
    """Keys of turns that no conversation has, such as the service's `weight` and `name`."""
    turns = value.get(_LISTS.get(name, ""), [])
    if not isinstance(turns, list):
        return set()
    return {key for turn in turns if isinstance(turn, dict) for key in turn if key not in _TURN_KEYS[name]}
