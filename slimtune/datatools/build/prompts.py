"""The prompts of four-choice questions, in one place: training and evaluation files cannot drift apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from slimtune.data.questions import Question
from slimtune.data.records import Mode

Language = Literal["ja", "en"]


@dataclass(frozen=True, slots=True)
class Prompts:
    """The fixed texts around a question in one language.

    passage: how a passage is numbered; example, example_answer: around an example that is solved in the prompt.
    instruction: what is asked for, by mode. answer_line: the last line of an argued answer.
    """

    task: str
    passages: str
    passage: str
    example: str
    example_answer: str
    question: str
    choices: str
    instruction: Mapping[Mode, str]
    answer_line: str


JAPANESE = Prompts(
    task="日本の法令に関する次の問題に答えてください。",
    passages="【参照条文】",
    passage="〔{number}〕",
    example="【例題{number}】",
    example_answer="【例題{number}の解答】",
    question="【問題】",
    choices="【選択肢】",
    instruction={
        "direct": "選択肢の記号1文字だけで答えてください。",
        "cot": "根拠を述べてから、最後の行に「回答: 記号」の形で答えてください。",
    },
    answer_line="回答: {label}",
)
ENGLISH = Prompts(
    task="Answer the following multiple-choice question.",
    passages="Passages:",
    passage="[{number}]",
    example="Example {number}:",
    example_answer="Answer to example {number}:",
    question="Question:",
    choices="Choices:",
    instruction={
        "direct": "Answer with the letter of one choice and nothing else.",
        "cot": 'Give your reasons first, then end with a line of the form "Answer: letter".',
    },
    answer_line="Answer: {label}",
)
PROMPTS: dict[Language, Prompts] = {"ja": JAPANESE, "en": ENGLISH}


def row(
    question: Question, mode: Mode, prompts: Prompts, *, passages: Sequence[str] = (), examples: Sequence[Question] = ()
) -> dict[str, Any]:
    """The training row {"input", "output", "meta"} of a question; data/README.md says what `meta` holds."""
    return {
        "input": prompt(question, mode, prompts, passages=passages, examples=examples),
        "output": answer(question, mode, prompts),
        "meta": {
            "id": question.id,
            "mode": mode,
            "rag": bool(passages),
            "choices": dict(question.choices),
            "correct": question.correct,
            "context": question.context,
            "source": question.source,
            "article": question.article,
        },
    }


def prompt(
    question: Question, mode: Mode, prompts: Prompts, *, passages: Sequence[str] = (), examples: Sequence[Question] = ()
) -> str:
    """The user's turn: the task, solved examples, passages, the question, its choices, what to answer with."""
    sections = [prompts.task]
    for number, example in enumerate(examples, start=1):
        asked = [prompts.example.format(number=number), example.question, _choices(example)]
        solved = [prompts.example_answer.format(number=number), answer(example, mode, prompts)]
        sections += ["\n".join(asked), "\n".join(solved)]
    if passages:
        numbered = [f"{prompts.passage.format(number=number)}\n{text}" for number, text in enumerate(passages, start=1)]
        sections.append(f"{prompts.passages}\n" + "\n\n".join(numbered))
    sections += [
        f"{prompts.question}\n{question.question}",
        f"{prompts.choices}\n{_choices(question)}",
        prompts.instruction[mode],
    ]
    return "\n\n".join(sections)


def answer(question: Question, mode: Mode, prompts: Prompts) -> str:
    """The assistant's turn: the label alone, or the reasoning, a line break and the answer line."""
    if mode == "direct":
        return question.correct
    return f"{question.reasoning}\n{prompts.answer_line.format(label=question.correct)}"


def _choices(question: Question) -> str:
    return "\n".join(f"{label}. {text}" for label, text in question.choices.items())
