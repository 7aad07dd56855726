"""Which column is asked, which is answered, and what the others are: by their names, then by what they hold."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.data import formats
from slimtune.data.formats import keys
from slimtune.data.json_rows import Row
from slimtune.data.preference_keys import marks, refusal
from slimtune.data.text import normalised
from slimtune.datatools.new import names
from slimtune.datatools.new.grid import Table
from slimtune.datatools.new.names import Field
from slimtune.datatools.split.split_questions import MOST_LABELS

Goal = Literal["answer", "chat", "classify", "style"]

_QUESTION_END = re.compile(r"[?？]\s*$|か[。.]?\s*$")
_DATE = re.compile(r"\d{4}[-/.年]\d{1,2}([-/.月]\d{1,2}日?)?([ T]\d{1,2}:\d{2}(:\d{2})?)?|\d{1,2}:\d{2}(:\d{2})?")
_NUMBER = re.compile(r"[-+]?[\d,.]+%?")
_FLAG = re.compile(r"true|false|0|1|yes|no|good|bad|[-+]1", re.IGNORECASE)
_MEANT = frozenset(
    (*keys.REASONING, *keys.TOOLS, *keys.LEARNED, *keys.DETAIL, keys.MASK_HISTORY, "history", "tool_calls")
)
_SHOWN_SAMPLE = 40
# A column repeats its values when it has half as many different ones as rows, or fewer.
_FEW_SHARE = 0.5
_CLEAR_DIFFERENCE = 0.2
# Characters of a text that is no word or name, and how much longer than the other column it must be.
_LONG, _TIMES_AS_LONG = 20, 1.2


@dataclass(frozen=True, slots=True)
class FieldColumns:
    """The column of each field, and a sentence on each that was not plain from its name."""

    of: Mapping[Field, str]
    notes: tuple[str, ...]


def text_of(value: Any) -> str:
    """A cell as text; "" for an empty one, and for what is no text or number."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return ""


def refuse_preferences(table: Table) -> None:
    """Raise SlimtuneError for tables that compare or judge answers: their rejected answers must not be learned."""
    first = table.rows[: formats.FIRST_ROWS]
    marked = [(row, mark) for row in first if (mark := marks(row.value))]
    if 2 * len(marked) > len(first):
        row, mark = marked[0]
        told = "preferences" if mark.kind == "preference" else "rated answers"
        what = f"these are {told}, which supervised fine-tuning (train.method: sft) cannot use"
        raise SlimtuneError(refusal(mark, table.path, row.line, what))
    judged = [name for name in table.columns if names.plain(name) in names.JUDGED and _flags(table, name)]
    answered = names.certain("answer", table.columns)
    if judged and answered and names.certain("question", table.columns):
        what = f"the column '{judged[0]}' says which answers of '{answered[0]}' are good, and supervised fine-tuning "
        what += "(train.method: sft) would learn the others too"
        fix = "keep the rows with good answers alone, and leave the column out"
        raise fail(what, where=table.path, fix=fix)


def _flags(table: Table, column: str) -> bool:
    values = [text for row in table.rows if (text := text_of(row.value.get(column)))]
    return bool(values) and all(_FLAG.fullmatch(text) for text in values)


def columns_of(table: Table, mapped: Mapping[str, tuple[str, ...]], goal: Goal | None = None) -> FieldColumns:
    """Which column of a table is which field of questions with answers.

    mapped: what a person said, as `mapping.on` gives it. Raises SlimtuneError, with a sample of every column and the
    option to write, where several columns may be the question or the answer.
    """
    found: dict[Field, str] = {field: mapped[field][0] for field in names.FIELDS if field in mapped}
    if "question" in found and "answer" in found:
        return FieldColumns(found, ())
    notes: list[str] = []
    free = [name for name in table.columns if name not in found.values() and _texts(table, name)]
    sides: tuple[Field, ...] = ("question", "answer")
    for field in sides:
        certain = [name for name in names.certain(field, free) if field not in found]
        if len(certain) > 1:
            raise _ambiguous(table, free, f"several columns may be the {field}: {', '.join(map(repr, certain))}")
        if certain:
            found[field] = certain[0]
            free.remove(certain[0])
    if "question" in found and names.plain(found["question"]) in ("instruction", "指示"):
        for name in (name for name in free if names.plain(name) in ("input", "入力")):
            found["input"] = name
    others: tuple[Field, ...] = ("context", "system", "id", "category", "input")
    for field in others:
        for name in names.certain(field, free)[:1]:
            if field not in found and not (field in ("context", "category") and _is_needed(table, name, found, free)):
                found[field] = name
    free = [name for name in free if name not in found.values()]
    for field in ("answer", "question"):
        possible = names.possible(field, free)
        # "text" and "body" may be either: they ask where another column is known to answer.
        if field not in found and possible and (field == "answer" or "answer" in found):
            found[field] = possible[0]
            free.remove(possible[0])
    _by_contents(table, found, free, goal, notes)
    for field in ("context", "category"):
        for name in names.possible(field, [name for name in free if name not in found.values()])[:1]:
            found.setdefault(field, name)
    return FieldColumns({field: found[field] for field in names.FIELDS if field in found}, tuple(notes))


def _is_needed(table: Table, name: str, found: Mapping[Field, str], free: Sequence[str]) -> bool:
    """Whether the column must be the question or the answer, since nothing else can be."""
    missing = 2 - len(found.keys() & {"question", "answer"})
    rest = [one for one in free if one not in found.values() and one != name and _is_text(table, one)]
    return len(rest) < missing and _is_text(table, name)


def _by_contents(table: Table, found: dict[Field, str], free: list[str], goal: Goal | None, notes: list[str]) -> None:
    """Fill in the question and the answer by what the columns hold."""
    if "question" in found and "answer" in found:
        return
    missing: Field | None = "answer" if "question" in found else "question" if "answer" in found else None
    candidates = [name for name in free if _is_text(table, name)]
    if len(candidates) < (1 if missing else 2):
        # A table of words and numbers, say: the numbers are answers.
        candidates += [name for name in free if name not in candidates and not names.certain("id", [name])]
    if missing is None and len(candidates) > 2:
        few = [name for name in candidates if _is_few(table, name)]
        rest = [name for name in candidates if name not in few]
        if len(rest) == 2 and goal != "classify":
            candidates = rest
        elif len(rest) == 1 and len(few) == 1:
            candidates = [*rest, *few]
        elif goal == "classify" and len(rest) == 1 and few:
            candidates = [rest[0], few[-1]]
    if missing is not None:
        if not candidates:
            raise _one_sided(table, missing, found)
        if len(candidates) > 1:
            told = ", ".join(map(repr, candidates))
            raise _ambiguous(
                table, table.columns, f"several columns may be the {missing}: {told}", found, candidates[0]
            )
        found[missing] = candidates[0]
        notes.append(f"'{candidates[0]}' is read as the {missing}, as the only other column with text")
        return
    if len(candidates) < 2:
        raise _one_sided(table, "answer", found)
    if len(candidates) > 2:
        raise _ambiguous(table, table.columns, f"the file has {len(candidates)} columns of text and no usual names")
    question, answer, reason = _sides(table, candidates[0], candidates[1])
    found["question"], found["answer"] = question, answer
    notes.append(f"'{question}' is read as the question and '{answer}' as the answer: {reason}")


def _sides(table: Table, left: str, right: str) -> tuple[str, str, str]:
    """Which of two columns asks, which answers, and why."""
    if _is_text(table, left) != _is_text(table, right):
        question, answer = (left, right) if _is_text(table, left) else (right, left)
        return question, answer, f"'{answer}' holds numbers"
    asks = {name: _share(table, name, _QUESTION_END) for name in (left, right)}
    if abs(asks[left] - asks[right]) >= _CLEAR_DIFFERENCE:
        question = max(asks, key=lambda name: asks[name])
        return question, right if question == left else left, "its rows end as questions do"
    few = [name for name in (left, right) if _is_few(table, name)]
    if len(few) == 1:
        return right if few[0] == left else left, few[0], f"'{few[0]}' has few different values"
    length = {name: fmean(map(len, _texts(table, name))) for name in (left, right)}
    if not table.headless and length[left] > max(_LONG, _TIMES_AS_LONG * length[right]):
        return right, left, "answers are longer than questions"
    return left, right, "the first column comes first" if table.headless else "they stand in this order"


def _texts(table: Table, name: str) -> list[str]:
    return [text for row in table.rows if (text := text_of(row.value.get(name)))]


def _share(table: Table, name: str, pattern: re.Pattern[str]) -> float:
    texts = _texts(table, name)
    return sum(bool(pattern.search(text)) for text in texts) / len(texts) if texts else 0.0


def _is_text(table: Table, name: str) -> bool:
    """Whether a column holds more than numbers and dates."""
    texts = _texts(table, name)
    plain = sum(bool(_DATE.fullmatch(one) or _NUMBER.fullmatch(one)) for one in map(_width, texts))
    return plain < len(texts)


def _width(text: str) -> str:
    return normalised(text, "NFKC").strip()


def _is_few(table: Table, name: str) -> bool:
    """Whether a column repeats a few values, as labels do."""
    texts = _texts(table, name)
    return len(set(texts)) <= min(MOST_LABELS, _FEW_SHARE * len(texts))


def _one_sided(table: Table, missing: Field, found: Mapping[Field, str]) -> SlimtuneError:
    from slimtune.datatools.new.reading import plain_text

    if not table.rows:
        return fail("there are no rows below the heading", where=table.path, fix="write at least one example into it")
    if not found.keys() & {"question", "answer"} or sum(_is_text(table, name) for name in table.columns) < 2:
        return plain_text(table.path, "plain text in one column" if table.columns else "a file without columns")
    shown = ", ".join(table.columns)
    fix = f"add a column with it, or name it with  --map {missing}=COLUMN  (the columns are {shown})"
    return fail(f"no column holds the {missing}", where=table.path, fix=fix)


def _ambiguous(
    table: Table, columns: Sequence[str], what: str, found: Mapping[Field, str] | None = None, other: str = ""
) -> SlimtuneError:
    """found: the side that is known. other: a column that may be the other one."""
    shown = []
    for name in columns:
        texts = _texts(table, name)
        sample = " ".join((texts or [""])[0].split())
        shown.append(f"'{name}': {sample[:_SHOWN_SAMPLE]}{'…' if len(sample) > _SHOWN_SAMPLE else ''}")
    named = [name for name in columns if _is_text(table, name)] or list(columns)
    left, right = (named * 2)[:2]
    if found:
        left, right = found.get("question", other), found.get("answer", other)
    command = f"slimtune new {shlex.quote(table.path)} --map {shlex.quote(f'question={left},answer={right}')}"
    listed = "\n".join(f"      {line}" for line in shown)
    return SlimtuneError(
        Problem(what, table.path, f"say which is which, for example\n      {command}\n    The columns:\n{listed}")
    )


def meant(table: Table, columns: Sequence[str]) -> list[str]:
    """The columns that say what is learned in a trainer's format: earlier turns, reasoning, tools, where the loss counts."""
    return [
        name for name in columns if keys.plain(name) in _MEANT and not all(_is_blank(row, name) for row in table.rows)
    ]


def _is_blank(row: Row, name: str) -> bool:
    return keys.is_empty(row.value.get(name))


def is_structured(rows: Sequence[Row]) -> bool:
    """Whether rows hold lists or objects besides `meta`, as chats do."""
    return any(isinstance(value, list | dict) for row in rows for name, value in row.value.items() if name != "meta")
