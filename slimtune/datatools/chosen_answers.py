"""Preferences and rated answers to conversations: the good answers alone, one to each prompt."""

from collections import Counter
from collections.abc import Sequence

from slimtune.core.errors import Problem, SlimtuneError, bad_data, fail
from slimtune.core.progress import Advance, ignore
from slimtune.core.units import plural
from slimtune.data.preferences import PreferenceFile
from slimtune.data.reading import distinct
from slimtune.data.records import Conversation, Preference, Unpaired
from slimtune.data.text import system_problems


def read_files(
    paths: Sequence[str], *, system: str | None = None, on_progress: Advance = ignore
) -> tuple[list[Conversation], list[str]]:
    """A conversation for each prompt, with its first chosen or good answer; and sentences on what is left out.

    An answer that any row rejects is never taken. system: the prompt of rows without one. Raises SlimtuneError with every
    problem of every file, and where no answer is left.
    """
    if wrong := system_problems(system, "--system"):
        raise SlimtuneError(wrong)
    hashes, listed_again = distinct(paths)
    problems: dict[str, list[Problem]] = {path: [one for one in listed_again if one.where == path] for path in paths}
    records: list[Preference | Unpaired] = []
    ignored: Counter[str] = Counter()
    for path in hashes:
        file = PreferenceFile(path, system=system, problems=problems[path])
        for converted in file.records():
            records += [one.record for one in converted]
            on_progress(file.done, file.total)
        ignored.update(file.ignored)
    if any(problems.values()):
        raise bad_data(problems)
    bad = {(record.prompt, answer) for record in records if (answer := _rejected(record))}
    kept: dict[object, Conversation] = {}
    lost = Counter({f"the key '{key}' is dropped": count for key, count in ignored.items()})
    for record in records:
        answer = record.chosen if isinstance(record, Preference) else record.answer
        if isinstance(record, Unpaired) and not record.good:
            lost["the answer is rated as bad and left out"] += 1
        elif (record.prompt, answer) in bad:
            lost["the answer is left out, since another row rejects it"] += 1
        elif (record.prompt, record.tools) in kept:
            lost["the answer is left out, since its prompt has one already"] += 1
        else:
            kept[record.prompt, record.tools] = record.conversation()
    if not kept:
        what = "no answer is left: each of them is rated as bad, or rejected by another row"
        raise fail(what, where=paths[0], fix="add rows whose answer is good")
    return list(kept.values()), [f"{plural(count, 'row')}: {what}" for what, count in lost.items()]


def _rejected(record: Preference | Unpaired) -> object:
    """The answer that the record speaks against; None for none."""
    if isinstance(record, Preference):
        return record.rejected
    return None if record.good else record.answer
