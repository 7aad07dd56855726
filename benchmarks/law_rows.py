"""Training rows in the style of data/law, as many as asked for, no two alike, the same for the same seed.

A Markov chain over the characters of data/law writes the sentences, so that they share n-grams and words as texts about
statutes do. They mean nothing.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts.law_files import render_question
from slimtune.data.questions import Question
from slimtune.data.records import Mode
from slimtune.datatools.build import question_sources

ROOT = Path(__file__).resolve().parent.parent

_ORDER = 4  # characters that the next one is chosen by
_LABELS = "abcd"
_STATUTES, _STATUTE_LETTERS = 2000, 200
_SHOWN = 3  # statutes in the prompt of a direct question
_QUESTION_LETTERS, _CHOICE_LETTERS, _REASONING_LETTERS = 60, 35, 150


def writer(draw: random.Random) -> Callable[[int], str]:
    """Writes so many characters in the style of the questions, choices and statutes of data/law."""
    paths = sorted((ROOT / "data/law/questions").glob("*.jsonl"))
    questions = question_sources.read([str(path) for path in paths], layout="questions").questions
    text = "".join(f"{one.context}{one.question}{''.join(one.choices.values())}" for one in questions)
    following: defaultdict[str, list[str]] = defaultdict(list)
    for place in range(len(text) - _ORDER):
        following[text[place : place + _ORDER]].append(text[place + _ORDER])
    starts = list(following)

    def write(length: int) -> str:
        written = draw.choice(starts)
        while len(written) < length:
            written += draw.choice(following.get(written[-_ORDER:]) or [draw.choice(text)])
        return written.replace("\n", "")

    return write


def rows(count: int, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """{"input", "output", "meta"} as `data build` writes them, in turn direct with statutes and with reasoning without.

    As in data/law, a statute stands in many prompts. A row has about 500 tokens of Qwen's vocabulary.
    """
    draw = random.Random(seed)
    write = writer(draw)
    statutes = [write(_STATUTE_LETTERS) for _ in range(_STATUTES)]
    for number in range(count):
        mode: Mode = "cot" if number % 2 else "direct"
        passages = draw.sample(statutes, _SHOWN)
        question = Question(
            id=f"law-{number}",
            source="",
            article="",
            context=passages[0],
            question=f"{write(_QUESTION_LETTERS)}について、正しいものはどれか。",
            choices={label: write(_CHOICE_LETTERS) for label in _LABELS},
            correct=draw.choice(_LABELS),
            reasoning=write(_REASONING_LETTERS),
        )
        yield render_question(question, mode=mode, rag=mode == "direct", passages=passages)


def rows_with_own_lines(count: int, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of about the same lengths in which no line stands twice: no instruction, no letters, statutes of their own."""
    draw = random.Random(seed)
    write = writer(draw)
    for number in range(count):
        passages = [] if number % 2 else [write(_STATUTE_LETTERS) for _ in range(_SHOWN)]
        lines = [*passages, write(_QUESTION_LETTERS), *(write(_CHOICE_LETTERS) for _ in _LABELS)]
        yield {"input": "\n".join(lines), "output": write(_REASONING_LETTERS) if number % 2 else write(_CHOICE_LETTERS)}
