"""A preview in words, and on a terminal: what carries loss in green, the rest dim, nothing invisible."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from slimtune.datatools.preview.preview import Preview, Previews

if TYPE_CHECKING:
    from rich.text import Text

    from slimtune.core.console import Console

NEWLINE, TAB, SPACE = "↵", "⇥", "·"
LEARNED = ("⟦", "⟧")
"""Around supervised text where there is no colour."""

_EDGE_SPACES = re.compile(r"^ +| +$", re.MULTILINE)


def visible(text: str) -> str:
    """`text` with what cannot be seen written out: line ends and tabs, spaces at both ends of a line, control characters.

    A line end is ↵ and still ends the line. Characters of the Unicode categories Cc and Cf, which could also steer a
    terminal or turn the direction of writing, are written as ⟨U+202E⟩.
    """
    spaced = _EDGE_SPACES.sub(lambda spaces: SPACE * len(spaces[0]), text)
    return "".join(_seen(character) for character in spaced)


def _seen(character: str) -> str:
    if character == "\n":
        return f"{NEWLINE}\n"
    if character == "\t":
        return TAB
    return f"⟨U+{ord(character):04X}⟩" if unicodedata.category(character) in ("Cc", "Cf") else character


def title(one: Preview) -> str:
    """ "train.jsonl:7, example 1 of 2"."""
    return one.where + (f", example {one.part} of {one.parts}" if one.parts > 1 else "")


def figures(one: Preview) -> str:
    """ "292 tokens: 290 prompt, 2 supervised (0.7 %)"."""
    share = 100 * one.supervised / one.tokens
    return f"{one.tokens:,} tokens: {one.prompt:,} prompt, {one.supervised:,} supervised ({share:.1f} %)"


def overlong(one: Preview) -> str:
    """What becomes of an example that is too long; "" for one that is not."""
    if not one.too_many:
        return ""
    return (
        f"{one.too_many:,} tokens more than max_seq_length {one.max_seq_length:,}: "
        "training does not start with it, or leaves it out where data.max_overlong allows that"
    )


def summary(found: Previews) -> str:
    """ "2 of 98 rows of train.jsonl, 3 examples"."""
    text = f"{found.shown:,} of {found.rows:,} rows of {found.path}"
    if len(found.examples) != found.shown:
        text += f", {len(found.examples):,} examples"
    return f"{text}; {found.other_mode:,} rows of another mode are left out" if found.other_mode else text


def unread(found: Previews) -> str:
    """That some of the file cannot be read; "" where all of it can."""
    if not found.unread:
        return ""
    count = len(found.unread)
    problems = f"{count:,} problems" if count > 1 else "1 problem"
    return f"{problems} elsewhere in {found.path}: slimtune data check {found.path}"


def legend(coloured: bool) -> str:
    learned = "Green" if coloured else f"{LEARNED[0]}…{LEARNED[1]}"
    special = " Special tokens are reversed." if coloured else ""
    return f"{learned} is supervised and carries loss; the rest is only read.{special} {NEWLINE} ends a line."


def show(found: Previews, console: Console) -> None:
    """Print a file's examples, in colour where the console has any."""
    coloured = console.out.color_system is not None and not console.out.no_color
    console.step(summary(found))
    console.say(legend(coloured))
    for one in found.examples:
        console.out.print()
        console.step(title(one))
        console.say(figures(one))
        if one.too_many:
            console.warn(overlong(one))
        console.out.print(body(one, coloured), soft_wrap=True)


def body(one: Preview, coloured: bool) -> Text:
    """The example's text. coloured: with styles; otherwise ⟦…⟧ encloses what is supervised."""
    from rich.text import Text

    text, inside, within = Text(), False, True
    for segment in one.segments:
        if not coloured and segment.supervised != inside:
            inside = segment.supervised
            text.append(LEARNED[0] if inside else LEARNED[1])
        if segment.beyond and within:
            within = False
            text.append(f"⟨max_seq_length {one.max_seq_length:,} ends here⟩", style="bold red" if coloured else "")
        style = "bold green" if segment.supervised else "dim"
        text.append(visible(segment.text), style=f"{style} reverse" if segment.special else style)
    if inside:
        text.append(LEARNED[1])
    return text
