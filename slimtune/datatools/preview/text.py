"""A preview in words, nothing invisible, and as a page that can be sent to somebody."""

import re
import unicodedata
from collections.abc import Sequence

from slimtune.core import pages
from slimtune.datatools.preview.preview import Preview, Previews

NEWLINE, TAB, SPACE = "↵", "⇥", "·"
_EDGE_SPACES = re.compile(r"^ +| +$", re.MULTILINE)


def visible(text: str) -> str:
    """`text` with line ends, tabs, spaces at both ends of a line and control characters written out.

    A line end is ↵ and still ends the line. The Unicode categories Cc and Cf are written as ⟨U+202E⟩: they could steer
    a terminal or reverse the direction of writing.
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
        "training refuses to start with it, or leaves it out if data.max_overlong allows that"
    )


def summary(found: Previews) -> str:
    """ "2 of 98 rows of train.jsonl, 3 examples"."""
    text = f"{found.shown:,} of {found.rows:,} rows of {found.path}"
    if len(found.examples) != found.shown:
        text += f", {len(found.examples):,} examples"
    return f"{text}; {found.other_mode:,} rows of the other mode are left out" if found.other_mode else text


def unread(found: Previews) -> str:
    """That some of the file cannot be read; "" where all of it can."""
    if not found.unread:
        return ""
    count = len(found.unread)
    problems = f"{count:,} problems" if count > 1 else "1 problem"
    return f"{problems} elsewhere in {found.path}: slimtune data check {found.path}"


def page(previews: Sequence[Previews]) -> str:
    """The page, in HTML."""
    files = [
        {
            "summary": summary(found),
            "unread": unread(found),
            "examples": [
                {
                    "title": title(one),
                    "figures": figures(one),
                    "overlong": overlong(one),
                    "max_seq_length": f"{one.max_seq_length:,}",
                    "segments": [
                        {
                            "text": visible(segment.text),
                            "kind": "token" if segment.special else "",
                            "supervised": segment.supervised,
                            "beyond": segment.beyond,
                        }
                        for segment in one.segments
                    ],
                }
                for one in found.examples
            ],
        }
        for found in previews
    ]
    return pages.render("slimtune.datatools.preview", "preview.html.jinja", {"files": files})
