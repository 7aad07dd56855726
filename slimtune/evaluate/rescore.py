"""Stored replies of any tool read again: each row gets the answer, the rule that found it and the status. No torch."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from slimtune.core import outputs
from slimtune.core.errors import Problem, SlimtuneError, bad_data, fail
from slimtune.core.run_folder import as_dict
from slimtune.core.units import plural
from slimtune.data import encoding
from slimtune.data.json_rows import Row, read_lines, type_name
from slimtune.data.records import Mode
from slimtune.evaluate import kinds, reply_rows
from slimtune.evaluate.judge.text import percent
from slimtune.evaluate.kinds import choice_asking
from slimtune.evaluate.replies.demand import Demand, demand
from slimtune.evaluate.replies.extract import Extraction, extract, label_names, label_position
from slimtune.evaluate.reply_rows import Replies

_TEXT_KEYS = ("text", "response")
_GOLD_KEYS = ("gold", "expected", "correct")
_WRITTEN = ("answer", "rule", "status")
_MODES: tuple[str, ...] = get_args(Mode)
# No UTF-8, and what some readers take for the end of a line.
_ESCAPED = re.compile("[\ud800-\udfff\x85\u2028\u2029]")


@dataclass(frozen=True)
class Summary:
    """What became of a file of replies.

    path, rows: as written. statuses, rules: how many rows have each, the commonest first. answers: in the order of the labels.
    changed: rows whose values changed. known: rows whose right answer is known; of these, `answered` have an answer and
    `correct` the right one. layouts: how many rows other programs wrote, by what they are. filters: of lm-eval, each of
    which has all replies again.
    """

    path: Path
    rows: list[dict[str, Any]]
    statuses: dict[str, int]
    rules: dict[str, int]
    answers: dict[str, int]
    changed: int
    known: int
    answered: int
    correct: int
    layouts: dict[str, int]
    filters: list[str]


@dataclass(frozen=True)
class _Reading:
    """A row as it will be written. correct: None where its right answer is not known. layout: "" for rows with `text`."""

    row: dict[str, Any]
    found: Extraction
    correct: bool | None
    changed: bool
    layout: str


def rescore(
    path: Path,
    *,
    mode: Mode = "direct",
    labels: int | Sequence[str] = 4,
    output: Path | None = None,
    overwrite: bool = False,
) -> Summary:
    """Read the answers out of a JSONL file of replies and write its rows with `answer`, `rule` and `status`.

    A row needs `text` or `response`, or is one that lm-eval, an OpenAI batch or Ollama wrote (`reply_rows`). mode, labels: of the rows that do not say their own (`mode`; `labels`, or
    `choices`, also in `meta`). `truncated: true`, `finish_reason: "length"` or a stored status of "truncated" say that
    the reply was cut off. Rows of our own with several `replies` or `permutations` vote as they did when they were
    asked. All keys and their order stay; values of the three keys that change are kept under `previous`.

    output: where to write; without it a file `beside` the replies, which themselves are never written. overwrite: replace
    a file with other content. Raises SlimtuneError with every row that cannot be read, and for an output that cannot be
    written or is the file itself.
    """
    target = outputs.file(output or beside(path), option="--output", reads=[path], ours=lambda path: True)
    if mode not in _MODES:
        raise fail(f"unknown mode {mode!r}", where="--mode", fix=f"use {' or '.join(_MODES)}")
    label_names(labels)
    problems: list[Problem] = []
    readings = []
    for row in _read(path, problems):
        try:
            readings.append(_read_again(row.value, mode, labels))
        except SlimtuneError as error:
            problems += [replace(problem, where=f"{path}:{row.line}") for problem in error.problems]
    if problems:
        raise bad_data({str(path): problems})
    outputs.write(target, rows_as_jsonl([reading.row for reading in readings]), overwrite=overwrite)
    return _summary(target, readings)


def beside(path: Path) -> Path:
    """Where the rows of a file of replies are written by default: replies.rescored.jsonl for replies.jsonl."""
    return path.parent / f"{path.stem}.rescored{path.suffix}"


def rows_as_jsonl(rows: Sequence[Mapping[str, Any]]) -> str:
    """One JSON object a line, UTF-8; half characters and Unicode's line separators are written as escapes."""
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    return "".join(_ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", line) + "\n" for line in lines)


def lines(summary: Summary) -> list[str]:
    """The summary for a terminal."""
    shown = [
        *_layout(summary),
        f"{len(summary.rows)} {'reply' if len(summary.rows) == 1 else 'replies'}: {_counts(summary.statuses)}",
        f"rules: {_counts(summary.rules)}",
        f"answers: {_counts(summary.answers) or 'none'}",
    ]
    if summary.known:
        share = f"correct: {summary.correct} of {summary.known} ({percent(summary.correct / summary.known)})"
        if summary.answered:
            share += f"; of the {summary.answered} answered ones {percent(summary.correct / summary.answered)}"
        shown.append(share)
    if summary.changed:
        shown.append(f"{plural(summary.changed, 'row')} changed; the old values are under 'previous'")
    return shown


def _layout(summary: Summary) -> list[str]:
    if not summary.layouts:
        return []
    filters = f"; each reply stands there once for each filter: {', '.join(summary.filters)}"
    return [f"read as {_counts(summary.layouts)}" + (filters if len(summary.filters) > 1 else "")]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())


def _summary(path: Path, readings: Sequence[_Reading]) -> Summary:
    known = [reading for reading in readings if reading.correct is not None]
    answers = Counter(reading.found.answer for reading in readings if reading.found.answer is not None)
    return Summary(
        path=path,
        rows=[reading.row for reading in readings],
        statuses=dict(Counter(reading.found.status for reading in readings).most_common()),
        rules=dict(Counter(reading.found.rule for reading in readings).most_common()),
        answers=dict(sorted(answers.items(), key=lambda answer: label_position(answer[0]) or 0)),
        changed=sum(reading.changed for reading in readings),
        known=len(known),
        answered=sum(reading.found.answer is not None for reading in known),
        correct=sum(bool(reading.correct) for reading in known),
        layouts=dict(Counter(reading.layout for reading in readings if reading.layout).most_common()),
        filters=list(dict.fromkeys(str(reading.row["filter"]) for reading in readings if "filter" in reading.row)),
    )


# Reading --------------------------------------------------------------------------------------------------------------


def _read(path: Path, problems: list[Problem]) -> list[Row]:
    text, bad_lines = encoding.read(str(path), problems)
    found: list[Problem] = []
    rows = read_lines(text, str(path), bad_lines, found)
    fix = 'write one reply a line: {"text": …}'
    problems += [replace(problem, fix=fix) if "not an object" in problem.what else problem for problem in found]
    if not rows and not problems:
        problems.append(Problem("the file holds no rows", str(path), fix))
    return rows


def _read_again(row: dict[str, Any], mode: Mode, labels: int | Sequence[str]) -> _Reading:
    """Raises SlimtuneError with everything that is wrong with the row."""
    problems: list[Problem] = []
    names: tuple[str, ...] = ()
    mode = row.get("mode") or mode
    if mode not in _MODES:
        problems.append(Problem(f"unknown mode {mode!r}", fix=f"write {' or '.join(_MODES)}, or leave it out"))
    replies = reply_rows.read(row)
    try:
        names = label_names(_own_labels(row, labels) if replies is None else _labels(row, replies, labels))
    except SlimtuneError as error:
        problems += error.problems
    problems += _faults(row, names) if replies is None else []
    if problems:
        raise SlimtuneError(problems)
    found = _extraction(row, mode, names) if replies is None else _of_another(replies, mode, names)
    written = {"answer": found.answer, "rule": found.rule, "status": found.status}
    changed = {key: row[key] for key in _WRITTEN if key in row and row[key] != written[key]}
    kept = row.get("previous", {})
    if changed and not (isinstance(kept, dict) and kept.keys() <= set(_WRITTEN)):
        fix = "give that key another name: the values that change are to be kept there"
        raise fail(f"the row has a 'previous' of its own, and other {', '.join(changed)}", fix=fix)
    # What stood there before any re-scoring is what to keep: ours can be had again.
    earlier = {"previous": {**changed, **kept}} if changed else {}
    gold = _gold(row, names, replies)
    correct = None if gold is None else found.answer == names[gold]
    layout = replies.layout if replies else ""
    return _Reading({**row, **written, **earlier}, found, correct, bool(changed), layout)


def _labels(row: Mapping[str, Any], replies: Replies, labels: int | Sequence[str]) -> int | Sequence[str]:
    """The labels of another program's row; its `choices` may be the replies themselves."""
    if replies.labels is not None:
        return replies.labels
    return _own_labels({key: row[key] for key in row if key != "choices"}, labels)


def _of_another(replies: Replies, mode: Mode, names: tuple[str, ...]) -> Extraction:
    """What is read from another program's row; several replies vote."""
    asks = demand(replies.question)
    found = [
        choice_asking.FAILED
        if text is None
        else extract(text, mode=mode, labels=names, truncated=replies.was_cut_off(index), asks=asks)
        for index, text in enumerate(replies.texts)
    ]
    if len(found) == 1:
        return found[0]
    told = choice_asking.vote(Counter(one.answer for one in found if one.answer), [one.status for one in found])
    return Extraction(told["predicted"], told["rule"], told["status"])


def _own_labels(row: Mapping[str, Any], labels: int | Sequence[str]) -> int | Sequence[str]:
    """The row's `labels`, or those of its choices: their keys where these are labels, or else how many there are."""
    own = row.get("labels")
    if isinstance(own, list) or (isinstance(own, int) and not isinstance(own, bool)):
        return own
    choices = row.get("choices") or as_dict(row.get("meta")).get("choices")
    if isinstance(choices, dict) and isinstance(choices.get("label"), list):
        return choices["label"]
    if isinstance(choices, dict):
        in_order = all(label_position(key) == index for index, key in enumerate(choices))
        return list(choices) if in_order else len(choices)
    return len(choices) if isinstance(choices, list) else labels


def _faults(row: Mapping[str, Any], names: Sequence[str]) -> list[Problem]:
    """What keeps the row's answer from being read."""
    faults = []
    voters = _orders(row) or _with_text(row, "replies")
    kind = kinds.KINDS.get(kinds.name_of(row))
    if kind is not None and not kind.has_choices:
        faults.append(Problem(f"a row of kind {kind.name} has no answer to read", fix="rescore multiple choice only"))
    elif row.get("rule") == "letters":
        fix = "there was no reply: the answer is the likeliest letter already; leave the row out"
        faults.append(Problem("the row was scored by the letters' probabilities", fix=fix))
    elif not voters:
        text, key = _text(row)
        if key is None:
            keys = ", ".join(list(row)[:20]) or "(none)"
            known = "write the reply as 'text' or 'response', or bring rows of lm-eval, an OpenAI batch or Ollama"
            fix = f"{known}; this row has the keys {keys}"
            faults.append(Problem("the row has neither 'text' nor 'response'", fix=fix))
        elif not isinstance(text, str) and not (text is None and row.get("error")):
            faults.append(Problem(f"'{key}' is {type_name(text)}, not a string", fix="write the reply as a string"))
    elif sum(row["votes"].values()) > len(voters):
        fix = "evaluate this model again"
        faults.append(Problem("several replies voted on each order, and only the first of each is stored", fix=fix))
    if names and any(sorted(shown["order"]) != sorted(names) for shown in _orders(row)):
        faults.append(Problem("an order does not name each label once", fix="evaluate this model again"))
    return faults


def _text(row: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The reply and the key that it stands under; a string, if one of the keys has one."""
    present = [key for key in _TEXT_KEYS if key in row]
    key = next((key for key in present if isinstance(row[key], str)), present[0] if present else None)
    return (row[key], key) if key else (None, None)


def _orders(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The replies of a row of our own to its question in several orders, each with its `order`."""
    return [shown for shown in _with_text(row, "permutations") if isinstance(shown.get("order"), str)]


def _with_text(row: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The replies of a row of our own that voted."""
    votes, entries = row.get("votes"), row.get(key)
    counted = isinstance(votes, dict) and all(isinstance(count, int) for count in votes.values())
    if not counted or not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("text"), str)]


def _extraction(row: Mapping[str, Any], mode: Mode, names: tuple[str, ...]) -> Extraction:
    orders = _orders(row)
    voters = orders or _with_text(row, "replies")
    asks = _asks(row)
    if not voters:
        return _single(row, mode, names, asks)
    found = [_single(voter, mode, names, asks) for voter in voters]
    # Position i of an order shows the choice that the file calls order[i].
    shown = [order["order"] for order in orders] or [names] * len(found)
    both = zip(found, shown, strict=True)
    votes = Counter(order[names.index(one.answer)] for one, order in both if one.answer is not None)
    told = choice_asking.vote(votes, [one.status for one in found])
    if not votes and row.get("status") in ("truncated", "error"):
        # The reason for one order is stored nowhere else.
        told["status"] = row["status"]
    return Extraction(told["predicted"], told["rule"], told["status"])


def _single(reply: Mapping[str, Any], mode: Mode, names: tuple[str, ...], asks: Demand) -> Extraction:
    text, _ = _text(reply)
    stored = reply.get("status")
    if text is None or (stored == "error" and not text.strip()):
        return choice_asking.FAILED
    truncated = reply.get("truncated") is True or reply.get("finish_reason") == "length" or stored == "truncated"
    return extract(text, mode=mode, labels=names, truncated=truncated, asks=asks)


def _asks(row: Mapping[str, Any]) -> Demand:
    """What the question of a row wants: as our own rows record it, or as its prompt says."""
    recorded = row.get("asks")
    return recorded if recorded in ("right", "wrong", "several") else demand(reply_rows.question_of(row))


def _gold(row: Mapping[str, Any], names: tuple[str, ...], replies: Replies | None) -> int | None:
    stated = [*(row.get(key) for key in _GOLD_KEYS), as_dict(row.get("meta")).get("correct")]
    values = [value for value in stated if isinstance(value, str)] + (replies.golds if replies else [])
    texts = replies.choice_texts if replies else []
    found = (_place(value, names, texts) for value in values)
    return next((index for index in found if index is not None and 0 <= index < len(names)), None)


def _place(value: str | int, names: tuple[str, ...], texts: Sequence[str]) -> int | None:
    """Which choice a label, a choice's text or a place from 0 means."""
    if isinstance(value, int):
        return value
    if value in names:
        return names.index(value)
    position = label_position(value.strip().strip("()（）.:。"))
    return position if position is not None or value.strip() not in texts else texts.index(value.strip())
