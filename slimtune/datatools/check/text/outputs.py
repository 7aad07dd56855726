"""Outputs that are cut off, repeat themselves, or go on as somebody else."""

import re
from collections.abc import Iterator

from slimtune.core.findings import Finding
from slimtune.datatools.check.text.prose import without_code

MIN_STRETCH = 20
MIN_TIMES = 5
# Longest stretch that is looked for; it keeps the search linear in the length of the output.
MAX_STRETCH = 1000
MIN_TRUNCATED = 40

_SPEAKER = r"(?:Assistant|User|Human|アシスタント|ユーザー)[ \u3000]?[:：]"
_STARTS_WITH_SPEAKER = re.compile(rf"\s*(?:#+ *|\*\*)?({_SPEAKER})")
_FURTHER_TURN = re.compile(r"^(?:#+ *|\*\*)?((?:User|Human|ユーザー)[ \u3000]?[:：])", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)
_CLOSING = {"「": "」", "『": "』", "（": "）"}
# Written without its bracket on purpose, as "lol" at the end of a sentence.
_LAUGHTER = re.compile(r"（(?:笑|汗|泣|爆)+$")


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
    if len(output) <= MIN_TRUNCATED:
        return ""
    for opening, closing in _CLOSING.items():
        start = output.rfind(opening)
        unclosed = start > output.rfind(closing) and "\n" not in output[start:].rstrip()
        if unclosed and not (opening == "（" and _LAUGHTER.search(output.rstrip("。！!\n "))):
            return f"{opening}…{closing}: '{output[start : start + 20]}…'"
    return ""


def repetition(output: str, where: str) -> Iterator[Finding]:
    """The same stretch of 20 characters or more, five times in a row, as a degenerate model writes."""
    if len(output) < MIN_STRETCH * MIN_TIMES:
        return
    # Every such run is at least 100 characters long, so that a probe at every 40th begins in its first half.
    for start in range(0, len(output) - 2 * MIN_STRETCH, 2 * MIN_STRETCH):
        probe = output[start : start + MIN_STRETCH]
        again = output.find(probe, start + MIN_STRETCH, start + MIN_STRETCH + MAX_STRETCH)
        if again < 0:
            continue
        period = again - start
        times = _run_length(output, start, period) // period + 1
        if times >= MIN_TIMES and any(character.isalpha() for character in output[start:again]):
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
