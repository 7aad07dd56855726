"""A table to the rows of a training set: what was understood, row by row, and nothing left out without a word."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Literal

from slimtune.core.errors import Problem, SlimtuneError, bad_data, fail
from slimtune.core.units import plural
from slimtune.data import formats
from slimtune.data.json_rows import Row, type_name
from slimtune.data.languages import language, spoken
from slimtune.data.questions import asked_faults
from slimtune.data.records import Conversation
from slimtune.datatools.build import columns as question_columns
from slimtune.datatools.build import prompts
from slimtune.datatools.new import chat_logs, mapping, names, recognise
from slimtune.datatools.new.grid import Table
from slimtune.datatools.new.names import Field
from slimtune.datatools.new.recognise import Goal, text_of
from slimtune.recipe.names import FormatName

TableKind = Literal["questions with answers", "conversations", "multiple-choice questions"]

# The fields of a question in a table, as columns.py of `data build` calls them.
_SIDES: Mapping[Field, str] = {"question": "question", "answer": "correct", "context": "context"}
# The prompts of `data build` are about statutes.
_TASK = "次の問題に答えてください。"
_SHOWN_LINES = 10
# A context that more of the rows share says nothing about which of them belong together.
_MOST_OF_A_CONTEXT = 0.5
_SAMPLE_ROWS = 200
_JAPANESE = "Japanese"


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row to be written, and the conversation that it holds."""

    value: dict[str, Any]
    conversation: Conversation


@dataclass(slots=True)
class Understood:
    """kind: what the rows are. columns: which column is which field; empty where the rows name their parts themselves.

    system: the system prompt of every row, taken out of the rows; None where they have none or several.
    language: as `languages.spoken` names it, None for no clear one. notes: what should be known, a sentence each.
    """

    kind: TableKind
    examples: list[NewRow]
    columns: Mapping[str, str] = field(default_factory=dict)
    system: str | None = None
    language: str | None = None
    notes: list[str] = field(default_factory=list)


def understand(table: Table, mapped: mapping.Mapped, goal: Goal | None = None) -> Understood:
    """What a table holds, as rows that can be trained on: complete ones, each question once.

    mapped: as `mapping.parse` gives it. Raises SlimtuneError with every row that has a fault, and for what cannot be
    learned from.
    """
    mapped = mapping.on(table, mapped)
    if not mapped:
        recognise.refuse_preferences(table)
    understood = (
        (None if mapped and "choices" not in mapped else _multiple_choice(table, mapped))
        or (None if mapped else _conversations(table) or _chat_log(table))
        or _questions(table, mapped, goal)
    )
    understood.notes[:0] = table.notes
    if table.empty:
        understood.notes.append(f"left out: {plural(len(table.empty), 'empty row')} ({lines_text(table.empty)})")
    _leave_out_repeated(understood)
    if not understood.examples:
        raise fail("no row is left to learn from", where=table.path, fix="write at least one question with its answer")
    _take_out_system(understood)
    understood.language = _language(understood.examples)
    return understood


def _conversations(table: Table) -> Understood | None:
    """Rows in a layout that training reads as it stands: chats above all."""
    first = table.rows[: formats.FIRST_ROWS]
    known = any(formats.detect(row.value) for row in first)
    if not recognise.is_structured(first) and not (known and recognise.meant(table, table.columns)):
        return None
    sides = [
        names.certain(side, table.columns) + names.possible(side, table.columns) for side in ("question", "answer")
    ]
    if all(sides) and not known:
        return None
    problems: list[Problem] = []
    layout = formats.choose(table.rows, "auto", table.path, problems)
    rows = [Row(row.line, _plain(row.value)) for row in table.rows]
    converted = (
        formats.convert_rows(rows, layout, "auto", path=table.path, system=None, problems=problems) if layout else []
    )
    if problems:
        raise bad_data({table.path: problems})
    ignored = dict.fromkeys(key for one in converted for key in one.ignored)
    notes = [f"not used: {', '.join(ignored)}"] if ignored else []
    if excluded := sum(one.excluded for one in converted):
        notes.append(f"{plural(excluded, 'turn')} of the assistant excluded from the loss, as the file says")
    found = [NewRow(one.row.value, one.conversation) for one in converted]
    sound = all(not asked_faults(one.conversation.meta) for one in found)
    return Understood("multiple-choice questions" if sound else "conversations", found, notes=notes)


def _chat_log(table: Table) -> Understood | None:
    """Conversations whose turns are rows."""
    log = chat_logs.read(table)
    if log is None:
        return None
    problems: list[Problem] = []
    found = [one for row in log.rows for one in _converted(row, table.path, problems, "messages")]
    if problems:
        raise bad_data({table.path: problems})
    notes = [*log.notes, *_unused(table, list(log.columns.values()))]
    return Understood("conversations", found, log.columns, notes=notes)


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON has it: a date of a Parquet file becomes its text."""
    return {
        name: cell if isinstance(cell, str | int | float | bool | list | dict) else str(cell)
        for name, cell in value.items()
    }


def _multiple_choice(table: Table, mapped: mapping.Mapped) -> Understood | None:
    """Questions with their choices in columns; None for any other table."""
    wanted = {{"answer": "correct", "category": "source"}.get(name, name): own for name, own in mapped.items()}
    if not mapped:
        choices = names.choices(table.columns)
        rest = [name for name in table.columns if name not in choices]
        wanted = {"choices": tuple(choices)} if choices else {}
        for name, target in _SIDES.items():
            if usual := names.certain(name, rest) + names.possible(name, rest):
                wanted[target] = (usual[0],)
    usable = {name: own for name, own in wanted.items() if name in question_columns.FIELDS}
    try:
        found = question_columns.find_columns(table.columns, usable, table.path)
    except SlimtuneError:
        if mapped:
            raise
        return None
    used = [name for own in found.values() for name in own]
    if len(set(used)) < len(used):
        return None
    rows, notes = _complete(table, (found["question"][0], found["correct"][0]))
    problems: list[Problem] = []
    numbers = "write the label of the right choice, or its text, instead of a number"
    try:
        asked = question_columns.from_rows(rows, found, table.path, problems)
    except SlimtuneError as error:
        raise error.mapped(lambda one: Problem(one.what, one.where, numbers)) from error
    if problems:
        raise bad_data({table.path: problems})
    ids = [one.id for one in asked]
    if len(set(ids)) < len(ids):
        found = {name: own for name, own in found.items() if name != "id"}
        asked = question_columns.from_rows(rows, found, table.path, problems)
        notes.append("the ids repeat, so the rows are known by their lines")
    texts = [one.question for one in asked]
    japanese = _most([language(text) for text in texts[:_SAMPLE_ROWS]]) in (_JAPANESE, None) and _has_wide(texts)
    in_context = all(one.context for one in asked)
    words = replace(prompts.JAPANESE, task=_TASK) if japanese else prompts.ENGLISH
    examples = []
    for question in asked:
        passages = [question.context] if in_context else []
        value = prompts.row(question, "direct", words, passages=passages)
        examples += _converted(Row(question.line, value), table.path, problems)
    if problems:
        raise bad_data({table.path: problems})
    # A direct answer is the letter alone.
    found = {name: own for name, own in found.items() if name != "reasoning"}
    shown = {name: ", ".join(own) for name, own in found.items()}
    notes += _unused(table, [name for own in found.values() for name in own])
    return Understood("multiple-choice questions", examples, shown, notes=notes)


def _questions(table: Table, mapped: mapping.Mapped, goal: Goal | None) -> Understood:
    columns = recognise.columns_of(table, mapped, goal)
    of = columns.of
    rows, notes = _complete(table, (of["question"], of["answer"]))
    problems = _unreadable(table, list(of.values()))
    if not mapped:
        left = recognise.meant(table, [name for name in table.columns if name not in of.values()])
        fix = "remove the column, or say which columns to use, and all others are left out:  "
        fix += f"--map question='{of['question']}',answer='{of['answer']}'"
        problems += [
            Problem(f"the column '{name}' could change what is learned, and is not used", table.path, fix)
            for name in left
        ]
    counts = Counter(text_of(row.value.get(of.get("id", ""))) for row in rows)
    examples: list[NewRow] = []
    contexts = Counter(text_of(row.value.get(of.get("context", ""))) for row in rows)
    few_contexts = bool(rows) and max(contexts.values()) > _MOST_OF_A_CONTEXT * len(rows)
    for row in rows:
        texts = {name: text_of(row.value.get(column)) for name, column in of.items()}
        asked = [texts.get("context", ""), texts["question"], texts.get("input", "")]
        if names.plain(of["question"]) == "instruction":  # as the layouts of `data/formats` have it
            asked = [*asked[1:], asked[0]]
        id = texts.get("id", "") or f"{PurePath(table.path).stem}-{row.line}"
        meta: dict[str, Any] = {"id": id}
        if counts[id] > 1:
            # Rows of one id belong together, and yet each needs a name of its own.
            meta = {"id": f"{id}-{row.line}", "origin": id}
        if texts.get("context") and not few_contexts:
            meta["context"] = texts["context"]
        if texts.get("category"):
            meta["source"] = texts["category"]
        value = {"input": "\n\n".join(filter(None, asked)), "output": texts["answer"], "meta": meta}
        if texts.get("system"):
            value = {"system": texts["system"], **value}
        examples += _converted(Row(row.line, value), table.path, problems)
    if problems:
        raise bad_data({table.path: problems})
    notes = [*columns.notes, *notes, *_unused(table, list(of.values()))]
    return Understood("questions with answers", examples, {name: of[name] for name in of}, notes=notes)


def _converted(row: Row, path: str, problems: list[Problem], layout: FormatName = "input_output") -> list[NewRow]:
    found = formats.convert(row, layout, path=path, problems=problems)
    return [NewRow(row.value, found.conversation)] if found else []


def _complete(table: Table, needed: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows that have all these cells, and a sentence on those that lack one."""
    rows: list[Row] = []
    empty: list[int] = []
    missing: dict[str, list[int]] = {}
    for row in table.rows:
        lacks = [name for name in needed if row.value.get(name) in (None, "") or row.value[name] == []]
        lacks += [name for name in needed if isinstance(row.value.get(name), str) and not row.value[name].strip()]
        if not lacks:
            rows.append(row)
        elif len(set(lacks)) == len(needed):
            empty.append(row.line)
        else:
            missing.setdefault(lacks[0], []).append(row.line)
    notes = [
        f"left out: {plural(len(lines), 'row')} without '{name}' ({lines_text(lines)})"
        for name, lines in missing.items()
    ]
    if empty:
        told = " and ".join(map(repr, needed))
        notes.append(f"left out: {plural(len(empty), 'row')} without {told} ({lines_text(empty)})")
    return rows, notes


def _unreadable(table: Table, columns: Sequence[str]) -> list[Problem]:
    """A problem for each cell that is neither a text nor a number."""
    return [
        Problem(f"'{name}' is {type_name(row.value[name])}, not text", f"{table.path}:{row.line}", "write it as text")
        for row in table.rows
        for name in columns
        if not isinstance(row.value.get(name), str | int | float | None)
    ]


def _unused(table: Table, used: Sequence[str]) -> list[str]:
    unused = [name for name in table.columns if name not in used]
    return [f"not used: {', '.join(unused)}"] if unused else []


def _leave_out_repeated(understood: Understood) -> None:
    """Keep the first row of each question: training refuses one that stands there twice, or with two answers."""
    kept: list[NewRow] = []
    answers: dict[tuple[Any, ...], str] = {}
    same: list[int] = []
    other: list[int] = []
    for example in understood.examples:
        conversation = example.conversation
        *prompt, last = conversation.messages
        key = (str(conversation.meta.get("mode")), *((message.role, message.content) for message in prompt))
        if key not in answers:
            answers[key] = last.content
            kept.append(example)
        elif answers[key] == last.content:
            same.append(conversation.line)
        else:
            other.append(conversation.line)
    understood.examples = kept
    if same:
        understood.notes.append(f"left out: {plural(len(same), 'row')} that repeat an earlier one ({lines_text(same)})")
    if other:
        what = f"{plural(len(other), 'row')} with another answer to an earlier question ({lines_text(other)})"
        understood.notes.append(f"left out: {what}; the first answer is kept")


def _take_out_system(understood: Understood) -> None:
    """A system prompt that all rows share belongs in the recipe, from which the exported model gets it too."""
    systems = {one.conversation.messages[0].content for one in understood.examples if "system" in one.value}
    if len(systems) != 1 or not all("system" in one.value for one in understood.examples):
        return
    understood.system = systems.pop()
    understood.examples = [
        NewRow({name: part for name, part in one.value.items() if name != "system"}, one.conversation)
        for one in understood.examples
    ]


def _language(examples: Sequence[NewRow]) -> str | None:
    texts = [" ".join(message.content for message in one.conversation.messages) for one in examples[:_SAMPLE_ROWS]]
    return _most([spoken(text) for text in texts])


def _most(found: Sequence[str | None]) -> str | None:
    clear = [one for one in found if one]
    return max(set(clear), key=clear.count) if clear else None


def _has_wide(texts: Sequence[str]) -> bool:
    """Whether there are kana or Chinese characters."""
    return any("\u3040" <= character <= "\u9fff" for text in texts[:_SAMPLE_ROWS] for character in text)


def lines_text(numbers: Sequence[int]) -> str:
    """ "line 3", "lines 3, 5, 8, …"."""
    shown = ", ".join(map(str, numbers[:_SHOWN_LINES])) + (", …" if len(numbers) > _SHOWN_LINES else "")
    return f"line {shown}" if len(numbers) == 1 else f"lines {shown}"
