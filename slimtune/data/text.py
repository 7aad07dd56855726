"""What a text may contain: NFC Unicode without the tokens that steer the model.

A tokenizer turns a control token inside a user's text into the real one, so that text could end its own turn. Such text
is refused, never repaired. Within `tokens_of` these are the tokens of one model. Elsewhere they are those of every family,
which models/families tells to `reserve`.
"""

import contextlib
import contextvars
import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from slimtune.core.errors import Problem
from slimtune.data.records import Role

# A text that is too short for the square to matter, and the marks in a row from which on they are put in order here.
_SHORT, _MARKS_IN_ORDER = 1000, 64
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

# `<|word|>` is how most models write their control tokens; another template may have left some in a text.
_WRITTEN = r"<\|[a-z][a-z0-9_]*\|>"
_of_model: contextvars.ContextVar[re.Pattern[str] | None] = contextvars.ContextVar("control tokens", default=None)
_reserved: set[str] = set()
_thoughts: dict[tuple[str, str], None] = {}  # in the order in which they were reserved


def reserve(tokens: Iterable[str], thought: tuple[str, str] | None = None) -> None:
    """Refuse these tokens in texts from now on. thought: the tags that may stand around an assistant's reasoning."""
    _reserved.update(tokens)
    if thought:
        _thoughts[thought] = None
    _of_families.cache_clear()


@contextlib.contextmanager
def tokens_of(tokens: Iterable[str] | None) -> Iterator[None]:
    """Within it, the control tokens are these, as one model's tokenizer has them; None: those of every family.

    It holds for the thread that enters it, so nothing of one model is left for the next.
    """
    before = _of_model.set(None if tokens is None else _any_of(frozenset(tokens)))
    try:
        yield
    finally:
        _of_model.reset(before)


def control_token() -> re.Pattern[str]:
    """What matches any control token: of the model that is known, or else of any family."""
    return _of_model.get() or _of_families()


@functools.cache
def _of_families() -> re.Pattern[str]:
    others = sorted(token for token in _reserved if not re.fullmatch(_WRITTEN, token))
    return re.compile("|".join([_WRITTEN, *map(re.escape, others)]))


@functools.lru_cache(maxsize=16)
def _any_of(tokens: frozenset[str]) -> re.Pattern[str]:
    # The longest first: of two that begin alike, a tokenizer takes the longer. Without any, nothing matches.
    ordered = sorted(tokens, key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, ordered)) or "(?!)")


def thoughts() -> frozenset[tuple[str, str]]:
    """What opens and what closes a thought, for every way to think."""
    return frozenset(_thoughts)


def split_thought(text: str) -> tuple[str, str, tuple[str, str]] | None:
    """Reasoning, answer and the tags between them, where a text begins with a thought that is closed; else None."""
    for opens, closes in _thoughts:
        reasoning, closed, answer = text.removeprefix(opens).partition(closes)
        if closed and text.startswith(opens):
            return reasoning, answer, (opens, closes)
    return None


def with_thought(reasoning: str, answer: str) -> str:
    """An assistant's text that begins with its reasoning, as chat templates of models that think split it again.

    Raises ValueError where no model that thinks is known.
    """
    if not _thoughts:
        raise ValueError("no tags for reasoning are reserved")
    opens, closes = next(iter(_thoughts))
    block = reasoning.strip("\n")
    return f"{opens}\n{block}\n{closes}\n\n{answer}"


def thought_and_answer(text: str) -> tuple[str, str]:
    """Reasoning and answer of a model's reply, as they stand; either is "" where there is none.

    The prompt may have opened the thought, so that the reply has its closing tag alone.
    """
    for opens, closes in _thoughts:
        before, closed, answer = text.partition(closes)
        if closed:
            return before.lstrip().removeprefix(opens), answer
        if text.lstrip().startswith(opens):
            return text.lstrip().removeprefix(opens), ""
    return "", text


def normalised(text: str, form: Literal["NFC", "NFKC"] = "NFC") -> str:
    """`text` in a Unicode normalisation form, so that が is one character however it was typed.

    In time that grows with the length: Python's own takes its square where many combining marks follow each other.
    """
    if len(text) > _SHORT and not text.isascii():
        text = _long_run_of_marks().sub(_in_order, text)
    return unicodedata.normalize(form, text)


@functools.cache
def _long_run_of_marks() -> re.Pattern[str]:
    marks = [chr(code) for code in range(0x300, 0x1F000) if unicodedata.combining(chr(code))]
    return re.compile(f"[{''.join(marks)}]{{{_MARKS_IN_ORDER},}}")


def _in_order(run: re.Match[str]) -> str:
    """Marks in the order that normalisation gives them: by class, those of one class as they stand."""
    plain = "".join(unicodedata.normalize("NFD", mark) for mark in run[0])
    return "".join(sorted(plain, key=unicodedata.combining))


def faults(text: str, role: Role, *, calls: bool = False) -> list[tuple[str, str]]:
    """What must not be in a turn of this role, and what to do: ("is empty", "give it text"), one pair per fault.

    calls: the assistant calls functions in this turn, so it need not say anything.
    """
    if not text.strip():
        if calls:
            return []
        return [("is only white space" if text else "is empty", "give it text, or delete the row")]
    found: list[tuple[str, str]] = []
    visible = text
    if role == "assistant" and (thought := split_thought(text)):
        reasoning, answer, (opens, closes) = thought
        visible = f"{reasoning}\n{answer}"
        if not answer.strip() and not calls:
            found.append((f"has no answer after its {opens} block", f"write the answer behind {closes}"))
    tags = {tag: pair for pair in _thoughts for tag in pair}
    for token in dict.fromkeys(control_token().findall(visible)):
        fix = "remove it, or spell it so that it is not a token"
        if token in tags:
            block = "…".join(tags[token])
            fix = f"only an assistant's text may have one {block} block, at its very beginning"
        found.append((f"contains the control token {token}", fix))
    return found + unwritable(text)


def system_problems(system: str | None, where: str = "") -> list[Problem]:
    """What is wrong with a system prompt. where: the setting or option that it comes from."""
    found = [] if system is None else faults(normalised(system), "system")
    return [Problem(f"the system prompt {what}", where, fix) for what, fix in found]


def _is_writable(value: Any) -> bool:
    """Fast, since every row is asked: Python's encoder finds half a character ten times sooner than an expression."""
    kind = type(value)
    if kind is str:
        try:
            return "\0" not in value and (value.isascii() or bool(value.encode()))
        except UnicodeEncodeError:
            return False
    if kind is dict:
        return all(map(_is_writable, value)) and all(map(_is_writable, value.values()))
    return all(map(_is_writable, value)) if kind is list else True


def unwritable(value: Any) -> list[tuple[str, str]]:
    """Characters that no UTF-8 file or tokenizer takes, anywhere in a text or a JSON value, each with what to do."""
    if _is_writable(value):
        return []
    if isinstance(value, str):
        found = [("contains a NUL character", "remove it")] if "\0" in value else []
        if not value.isascii() and (surrogate := _LONE_SURROGATE.search(value)):
            what = f"contains the lone surrogate \\u{ord(surrogate.group()):04x}"
            found.append((what, "half of a character is missing: write the text again"))
        return found
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return list(dict.fromkeys(fault for part in parts for fault in unwritable(part)))
