"""Prompts that give their own answer away."""

import re
from collections.abc import Iterator
from typing import Any

from slimtune.core.findings import Finding

MIN_ANSWER = 12

_ANSWER_WORD = (
    r"(?:\banswer|正解|正答|回答|解答|答え|答)(?:[ \u3000]*(?:は|が|is)|)[ \u3000]*(?:[:：]|(?<=[はがs]))[ \u3000]*"
)
# A label closes the line; after it only brackets, 番, です and full stops may stand. 「回答: 記号」の形で… has none.
_LABEL_AT_END = re.compile(
    _ANSWER_WORD
    + r"[（(「『\[]?(?P<label>[A-Ja-jＡ-Ｊａ-ｊ1-9１-９①-⑨アイウエオ])[)）」』\]]?(?:番|です|である)?[。．.]?$",
    re.IGNORECASE,
)
_ANSWER_WORD_AT_END = re.compile(_ANSWER_WORD + r"[（(「『\[]?$", re.IGNORECASE)


def label_at_prompt_end(prompt: str, output: str, where: str) -> Iterator[Finding]:
    """An answer ("Answer: a", 正解はc) as the end of the last line: the model learns to copy it."""
    last_line, answer = prompt.rstrip().rpartition("\n")[2], output.strip()
    shown = ""
    if match := _LABEL_AT_END.search(last_line):
        shown = match.group()
    elif len(answer) < len(last_line) and last_line.endswith(answer):
        before = _ANSWER_WORD_AT_END.search(last_line[: -len(answer)])
        shown = last_line[before.start() :] if before else ""
    if shown:
        what = f"the prompt ends with an answer: {shown[:40]!r}"
        yield Finding("warning", what, "remove the answer from the prompt", where, "label-at-prompt-end")


def answer_in_prompt(prompt: str, output: str, meta: dict[str, Any], where: str) -> Iterator[Finding]:
    """The whole output stands in the prompt.

    Copying from the row's own `meta.context` is what questions with passages are for; copying one of `meta.choices`
    is a note.
    """
    answer = output.strip()
    context, choices = meta.get("context"), meta.get("choices")
    if len(answer) < MIN_ANSWER or answer not in prompt or (isinstance(context, str) and answer in context):
        return
    if isinstance(choices, dict) and any(isinstance(text, str) and answer in text for text in choices.values()):
        what = "the output is the text of a choice in the prompt"
        yield Finding("note", what, "answers by label are shorter and easier to score", where, "answer-in-prompt")
    else:
        what = f"the whole output ({len(answer)} characters) stands in the prompt"
        yield Finding("warning", what, "remove it there, unless the task is to copy", where, "answer-in-prompt")
