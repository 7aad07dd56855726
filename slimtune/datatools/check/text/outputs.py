"""Outputs that stand in their prompt, are cut off, repeat themselves, or go on as somebody else."""

import re
from collections.abc import Iterator
from typing import Any

from slimtune.core.findings import Finding
from slimtune.data.prose import without_code

_MIN_ANSWER, _MIN_TRUNCATED = 12, 40
_MIN_STRETCH, _MIN_TIMES = 20, 5
# Longest stretch that is looked for; it keeps the search linear in the length of the output.
_MAX_STRETCH = 1000

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
_SPEAKER = r"(?:Assistant|User|Human|アシスタント|ユーザー)[ \u3000]?[:：]"
_STARTS_WITH_SPEAKER = re.compile(rf"\s*(?:#+ *|\*\*)?({_SPEAKER})")
_FURTHER_TURN = re.compile(r"^(?:#+ *|\*\*)?((?:User|Human|ユーザー)[ \u3000]?[:：])", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)
_CLOSING = {"「": "」", "『": "』", "（": "）"}
# Written without its bracket on purpose, as "lol" at the end of a sentence.
_LAUGHTER = re.compile(r"（(?:笑|汗|泣|爆)+$")


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
    """The whole output stands in the prompt. It may be copied from `meta.context`; a copied choice is only a note."""
    answer = output.strip()
    context, choices = meta.get("context"), meta.get("choices")
    if len(answer) < _MIN_ANSWER or answer not in prompt or (isinstance(context, str) and answer in context):
        return
    if isinstance(choices, dict) and any(isinstance(text, str) and answer in text for text in choices.values()):
        what = "the output is the text of a choice in the prompt"
        yield Finding("note", what, "answers by label are shorter and easier to score", where, "answer-in-prompt")
    else:
        what = f"the whole output ({len(answer)} characters) stands in the prompt"
        yield Finding("warning", what, "remove it there, unless the task is to copy", where, "answer-in-prompt")


def role_residue(prompt: str, output: str, where: str) -> Iterator[Finding]:
    """An output that begins with its speaker's name, or has the next user turn in it, as transcripts do."""
    if match := _STARTS_WITH_SPEAKER.match(output):
        what = f"the output begins with {match[1]!r}"
        yield Finding("warning", what, "remove the name of the speaker", where, "role-residue")
    # A prompt with such lines asks for a dialogue.
    elif not _FURTHER_TURN.search(prompt) and (match := _FURTHER_TURN.search(without_code(output))):
        what = f"the output contains another turn: {match[1]!r}"
        fix = "end the output before it, or write the turns as 'messages'"
        yield Finding("warning", what, fix, where, "role-residue")


def trailing_space(output: str, where: str) -> Iterator[Finding]:
    """White space at either end of the output, which is learned like any other character."""
    sides = ["begins"] * (output.lstrip() != output) + ["ends"] * (output.rstrip() != output)
    if sides:
        what = f"the output {' and '.join(sides)} with white space"
        yield Finding("note", what, "remove the white space", where, "trailing-space")


def truncated_output(output: str, where: str) -> Iterator[Finding]:
    """An output that stops inside a code fence, a quotation or a bracket."""
    if inside := _open_end(output):
        what = f"the output ends inside {inside}"
        yield Finding("warning", what, "write the rest of it, or delete the row", where, "truncated-output")


def _open_end(output: str) -> str:
    if "```" in output or "~~~" in output:
        return "a code fence" if len(_FENCE.findall(output)) % 2 else ""
    if len(output) <= _MIN_TRUNCATED:
        return ""
    for opening, closing in _CLOSING.items():
        start = output.rfind(opening)
        unclosed = start > output.rfind(closing) and "\n" not in output[start:].rstrip()
        if unclosed and not (opening == "（" and _LAUGHTER.search(output.rstrip("。！!\n "))):
            return f"{opening}…{closing}: '{output[start : start + 20]}…'"
    return ""


def repetition(output: str, where: str) -> Iterator[Finding]:
    """The same stretch of 20 characters or more, five times in a row, as a degenerate model writes."""
    if len(output) < _MIN_STRETCH * _MIN_TIMES:
        return
    # Every such run is at least 100 characters long, so that a probe at every 40th begins in its first half.
    for start in range(0, len(output) - 2 * _MIN_STRETCH, 2 * _MIN_STRETCH):
        probe = output[start : start + _MIN_STRETCH]
        again = output.find(probe, start + _MIN_STRETCH, start + _MIN_STRETCH + _MAX_STRETCH)
        if again < 0:
            continue
        period = again - start
        if not any(character.isalpha() for character in output[start:again]):
            continue
        times = _run_length(output, start, period) // period + 1
        if times >= _MIN_TIMES:
            what = f"the output repeats {output[start : start + 24]!r}… {times} times in a row"
            yield Finding("warning", what, "delete the row, or write the output again", where, "repetition")
            return


def _run_length(text: str, start: int, period: int) -> int:
    """How many characters around `start` equal the character that stands `period` later."""
    begin, end = start, start
    while begin > 0 and text[begin - 1] == text[begin - 1 + period]:
        begin -= 1
    while end + period < len(text) and text[end] == text[end + period]:
        end += 1
    return end - begin
