"""Multiple-choice questions on statutes, as a file holds them before they become prompts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from slimtune.core.errors import Problem
from slimtune.core.units import plural
from slimtune.data.json_rows import Row, type_name
from slimtune.data.text import faults, normalised

LABELS = "abcdefghij"
_TEXTS = ("id", "source", "article", "context", "question", "correct", "reasoning")
_RIGHT = "write the label of the right choice"
SHAPE = '{"input": …, "output": "c", "meta": {"choices": {"a": …, "b": …}, "correct": "c"}}'
KEYS = ("id", "source", "article", "context", "question", "choices", "correct", "reasoning")


@dataclass(frozen=True, slots=True)
class Question:
    """One question with exactly one right choice.

    source: the statute's name. article: where in it ("第6条第2項"). context: the excerpt that decides the question.
    choices: label ("a", "b", …) to text. correct: the right label. reasoning: the argument from the excerpt, or "".
    path, line: where it came from, for messages.
    """

    id: str
    source: str
    article: str
    context: str
    question: str
    choices: dict[str, str]
    correct: str
    reasoning: str = ""
    path: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


def is_question(row: Row) -> bool:
    """Whether a row has the keys of a question file, all of them and no others."""
    return set(row.value) == set(KEYS)


def from_rows(rows: Iterable[Row], path: str, problems: list[Problem]) -> list[Question]:
    """The questions of rows that have been read; what is wrong with the others is added to `problems`."""
    found = [_question(row, path, problems) for row in rows]
    return [question for question in found if question]


def repeated_ids(places: Iterable[tuple[str, str]], noun: str) -> list[Problem]:
    """A problem for each thing whose id an earlier one has. places: the id and "file:line" of each thing."""
    first: dict[str, str] = {}
    problems: list[Problem] = []
    for id, where in places:
        if id in first:
            what = f"the id '{id}' is used twice: {first[id]} and {where}"
            problems.append(Problem(what, where, f"give each {noun} its own id"))
        first.setdefault(id, where)
    return problems


def choice_faults(choices: Mapping[str, str], correct: str) -> list[tuple[str, str]]:
    """What is wrong with labelled choices and the right label, each with what to do."""
    found: list[tuple[str, str]] = []
    labels = list(choices)
    expected = list(LABELS[: len(labels)])
    if len(labels) < 2 or labels != expected:
        what = f"the labels are {', '.join(labels) or '(none)'}"
        found.append((what, "label at least two choices a, b, c … in order"))
    if correct not in choices:
        found.append((f"'correct' is {correct!r}, which is not one of the labels", _RIGHT))
    return found + _same_choices(choices)


def asked_faults(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Why the `meta` of a row does not make it a question with one right answer; each fault with what to do.

    Other than in a question file, labels may be any short texts that a reader can tell apart: A, B, C or ア, イ, ウ.
    """
    choices, correct = meta.get("choices"), meta.get("correct")
    if choices is None:
        return [("it has no meta.choices", SHAPE)]
    if not isinstance(choices, dict):
        return [(f"meta.choices is {type_name(choices)}, not an object", SHAPE)]
    found: list[tuple[str, str]] = []
    if len(choices) < 2:
        found.append((f"meta.choices has {plural(len(choices), 'choice')}", "write two choices or more"))
    seen: dict[str, str] = {}
    for label, text in choices.items():
        plain = normalised(label, "NFKC").strip().casefold()
        if not plain:
            found.append((f"meta.choices has the empty label {label!r}", "label the choices a, b, c …"))
        elif (same := seen.setdefault(plain, label)) != label:
            what = f"an answer cannot tell the labels {same!r} and {label!r} apart"
            found.append((what, "label the choices a, b, c …"))
        if not isinstance(text, str) or not text.strip():
            state = f"{type_name(text)}, not a string" if not isinstance(text, str) else "empty"
            found.append((f"choice {label!r} is {state}", "write its text as a string"))
    if correct is None:
        found.append(("it has no meta.correct", _RIGHT))
    elif not isinstance(correct, str):
        found.append((f"meta.correct is {type_name(correct)}, not a string", _RIGHT))
    elif correct not in choices:
        labels = ", ".join(map(repr, list(choices)[:10]))
        found.append((f"meta.correct is {correct!r}, which is not one of the labels {labels}", _RIGHT))
    return found or _same_choices(choices)


def _same_choices(choices: Mapping[str, str]) -> list[tuple[str, str]]:
    """Choices that differ in width or spacing only cannot be told apart by reading them."""
    found: list[tuple[str, str]] = []
    seen: dict[str, str] = {}
    for label, text in choices.items():
        same = seen.setdefault("".join(normalised(text, "NFKC").split()), label)
        if same != label:
            found.append((f"the choices {same} and {label} are the same", "make every choice different"))
    return found


def _question(row: Row, path: str, problems: list[Problem]) -> Question | None:
    known = len(problems)

    def report(what: str, fix: str) -> None:
        problems.append(Problem(what, f"{path}:{row.line}", fix))

    wrong = [f"'{key}' is missing" for key in KEYS if key not in row.value]
    wrong += [f"unknown key {key!r}" for key in row.value if key not in KEYS]
    for what in wrong:
        report(what, f"a question has the keys {', '.join(KEYS)}")
    texts = {key: checked_text(row.value[key], f"'{key}'", report) for key in _TEXTS if key in row.value}
    choices = row.value.get("choices", {})
    if not isinstance(choices, dict):
        report(f"'choices' is {type_name(choices)}, not an object", 'write {"a": …, "b": …}')
    if len(problems) > known:
        return None
    choices = {label: checked_text(text, f"choice {label!r}", report) for label, text in choices.items()}
    if len(problems) == known:
        for what, fix in choice_faults(choices, texts["correct"]):
            report(what, fix)
    return None if len(problems) > known else Question(**texts, choices=choices, path=path, line=row.line)


def checked_text(value: Any, name: str, report: Callable[[str, str], None]) -> str:
    """The text in NFC; what is wrong with it is reported as what happened and what to do."""
    if not isinstance(value, str):
        report(f"{name} is {type_name(value)}, not a string", "write it as a string")
        return ""
    text = normalised(value)
    for what, fix in faults(text, "user"):
        report(f"{name} {what}", fix)
    return text
