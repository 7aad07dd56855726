"""Training examples as the model sees them: every token's text, and whether it carries loss. No weights, no torch."""

import itertools
import random
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from slimtune.core import pages
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.progress import Advance, ignore
from slimtune.core.units import plural
from slimtune.data import formats, preferences
from slimtune.data.chat_template import IGNORE_INDEX, ChatTokenizer, Example
from slimtune.data.json_rows import Row
from slimtune.data.preference_keys import NAMES, RecordKind, advice
from slimtune.data.reading import DataFile
from slimtune.data.records import Conversation

NEWLINE, TAB, SPACE = "↵", "⇥", "·"
_EDGE_SPACES = re.compile(r"^ +|(?<! ) +$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring tokens that are shown alike.

    text: what they decode to; all segments together are the whole example. supervised: they carry loss. special: one
    added token, such as a control token. beyond: they lie after the first `max_seq_length` tokens.
    """

    text: str
    tokens: int
    supervised: bool
    special: bool
    beyond: bool

    @property
    def visible(self) -> str:
        return visible(self.text)


@dataclass(frozen=True, slots=True)
class Preview:
    """One training example.

    where: "file:line" of its row. part, parts: number of this example among those of its row, from 1; a conversation of
    several turns may become several examples (see data/chat_template.py). part 0: what no example holds, the excluded
    turns at the end of a row with their history. side: which of a prompt's answers it has ("chosen"), where several are
    compared or one is rated.
    """

    where: str
    part: int
    parts: int
    segments: tuple[Segment, ...]
    max_seq_length: int
    side: str = ""

    @property
    def tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)

    @property
    def supervised(self) -> int:
        return sum(segment.tokens for segment in self.segments if segment.supervised)

    @property
    def title(self) -> str:
        """ "train.jsonl:7, example 1 of 2", for compared answers "pairs.jsonl:7, chosen"."""
        if not self.part:
            return f"{self.where}, not trained on: it ends with excluded turns"
        side = f", {self.side}" if self.side else ""
        return self.where + side + (f", example {self.part} of {self.parts}" if self.parts > 1 else "")

    @property
    def figures(self) -> str:
        """ "292 tokens: 290 prompt, 2 supervised (0.7 %)"."""
        prompt, share = self.tokens - self.supervised, 100 * self.supervised / self.tokens
        return f"{self.tokens:,} tokens: {prompt:,} prompt, {self.supervised:,} supervised ({share:.1f} %)"

    @property
    def overlong(self) -> str:
        """What becomes of an example that is too long; "" for one that is not."""
        if self.tokens <= self.max_seq_length or not self.part:
            return ""
        return (
            f"{self.tokens - self.max_seq_length:,} tokens more than max_seq_length {self.max_seq_length:,}: "
            "training refuses to start with it, or leaves it out if data.max_overlong allows that"
        )


@dataclass(frozen=True, slots=True)
class Previews:
    """rows: of the file, those of another mode not counted. other_mode: those. shown: rows that `examples` are of.

    problems: number of lines that could not be read, none of them among the rows shown. kind: of compared or rated
    answers; None for conversations. excluded: turns of the assistant without loss in the rows shown.
    """

    path: str
    rows: int
    other_mode: int
    shown: int
    examples: tuple[Preview, ...]
    problems: int
    kind: RecordKind | None = None
    excluded: int = 0

    @property
    def summary(self) -> str:
        """ "2 of 98 rows of train.jsonl, 3 examples"."""
        text = f"{self.shown:,} of {self.rows:,} rows of {self.path}"
        if self.kind:
            text += f", {NAMES[self.kind]}"
        elif (examples := sum(one.part > 0 for one in self.examples)) != self.shown:
            text += f", {plural(examples, 'example')}"
        if self.excluded and not self.kind:
            text += f", {plural(self.excluded, 'turn')} of the assistant excluded from the loss"
        return f"{text}; {self.other_mode:,} rows of the other mode are left out" if self.other_mode else text

    @property
    def refused(self) -> str:
        """That supervised training does not take such rows, and what to do; "" where it does."""
        return advice(self.kind, self.path) if self.kind else ""

    @property
    def unread(self) -> str:
        """That some of the file cannot be read; "" where all of it can."""
        problems = f"{plural(self.problems, 'problem')} elsewhere in {self.path}"
        return f"{problems}: slimtune data check {self.path}" if self.problems else ""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows to show: the first `count`; with `seed`, that many drawn at random; or the one at `line`."""

    count: int = 5
    seed: int | None = None
    line: int | None = None


def preview(
    path: str,
    tokenizer: ChatTokenizer,
    choice: Selection,
    *,
    max_seq_length: int,
    mode: str = "auto",
    format: str = "auto",
    system: str | None = None,
    on_progress: Advance = ignore,
) -> Previews:
    """Some rows of a file as training examples.

    mode, format, system: as for `loading.load_conversations`. Raises SlimtuneError if the file or a chosen row cannot
    be trained on. Other rows are left to `data check`.
    """
    source = DataFile(path)
    everything: list[Row] = []
    for block in source.row_blocks():
        everything += block
        on_progress(source.done, source.total)
    if not everything:
        raise SlimtuneError(source.problems)
    problems: list[Problem] = []
    kind = preferences.kind_of(everything)
    name = None if kind else formats.choose(everything, format, path, problems)
    if problems:
        raise SlimtuneError(problems)
    rows = [row for row in everything if mode == "auto" or _mode_of(row) == mode]
    if not rows:
        raise fail(
            f"no row has meta.mode {mode}", where=path, fix="set data.mode to what the file contains, or to auto"
        )
    chosen = _chosen(rows, choice)
    if choice.line is not None and not chosen:
        raise _nothing_at(choice.line, source, everything, rows, mode)
    shown: list[tuple[str, Conversation]] = []
    if kind:
        read = (preferences.convert(row, kind, path=path, system=system, problems=problems) for row in chosen)
        shown = [side for one in read if one for side in preferences.sides(one.record)]
    elif name:
        converted = formats.convert_rows(chosen, name, format, path=path, system=system, problems=problems)
        shown = [("", one.conversation) for one in converted]
    if problems:
        raise SlimtuneError(problems)
    examples: list[Preview] = []
    for side, conversation in shown:
        parts = tokenizer.examples(conversation)
        examples += [
            Preview(part.where, number, len(parts), segments(part, tokenizer, max_seq_length), max_seq_length, side)
            for number, part in enumerate(parts, start=1)
        ]
        if tail := tokenizer.excluded_tail(conversation):
            excluded = segments(tail, tokenizer, max_seq_length)
            examples.append(Preview(tail.where, 0, len(parts), excluded, max_seq_length))
    other_mode = len(everything) - len(rows)
    without_loss = sum(message.excluded for _, conversation in shown for message in conversation.messages)
    problems_elsewhere = len(source.problems)
    return Previews(path, len(rows), other_mode, len(chosen), tuple(examples), problems_elsewhere, kind, without_loss)


def page(previews: Sequence[Previews]) -> str:
    """The page, in HTML."""
    return pages.render("slimtune.datatools", "preview.html.jinja", {"files": previews})


def visible(text: str) -> str:
    """`text` with line ends, tabs, spaces at both ends of a line and control characters written out.

    A line end is ↵ and still ends the line. The Unicode categories Cc and Cf are written as ⟨U+202E⟩: they could steer
    a terminal or reverse the direction of writing.
    """
    spaced = _EDGE_SPACES.sub(lambda spaces: SPACE * len(spaces[0]), text)
    shown = {ord("\n"): f"{NEWLINE}\n", ord("\t"): TAB}
    for code in set(map(ord, spaced)) - shown.keys():
        if unicodedata.category(chr(code)) in ("Cc", "Cf"):
            shown[code] = f"⟨U+{code:04X}⟩"
    return spaced.translate(shown)


def segments(example: Example, tokenizer: ChatTokenizer, max_seq_length: int) -> tuple[Segment, ...]:
    """An example cut where supervision changes, around added tokens, and where `max_seq_length` ends.

    A character whose bytes are spread over several tokens is never cut: segments begin with whole characters.
    """
    added = tokenizer.added_tokens
    limit = _whole_characters(example.input_ids, max_seq_length, tokenizer)

    def kind(at: int) -> tuple[bool, bool, int]:
        special = example.input_ids[at] in added
        # Each added token is a segment of its own.
        return example.labels[at] != IGNORE_INDEX, at >= limit, at if special else -1

    found = []
    for (supervised, beyond, special), places in itertools.groupby(range(len(example.input_ids)), key=kind):
        ids = [example.input_ids[at] for at in places]
        found.append(Segment(tokenizer.decode(ids), len(ids), supervised, special >= 0, beyond))
    return tuple(found)


def _whole_characters(ids: Sequence[int], limit: int, tokenizer: ChatTokenizer) -> int:
    """The largest number of tokens, `limit` at most, after which no character is left half."""
    if limit >= len(ids):
        return len(ids)
    # A character has four bytes at most, and a token one at least.
    window = max(0, limit - 4), min(len(ids), limit + 4)
    whole = tokenizer.decode(ids[window[0] : window[1]])
    for end in range(limit, window[0], -1):
        if tokenizer.decode(ids[window[0] : end]) + tokenizer.decode(ids[end : window[1]]) == whole:
            return end
    return limit


def _mode_of(row: Row) -> str | None:
    meta = row.value.get("meta")
    return meta.get("mode") if isinstance(meta, dict) else None


def _chosen(rows: list[Row], choice: Selection) -> list[Row]:
    if choice.line is not None:
        return [row for row in rows if row.line == choice.line]
    if choice.seed is None:
        return rows[: choice.count]
    places = random.Random(choice.seed).sample(range(len(rows)), min(choice.count, len(rows)))
    return [rows[place] for place in sorted(places)]


def _nothing_at(
    line: int, source: DataFile, everything: Sequence[Row], rows: Sequence[Row], mode: str
) -> SlimtuneError:
    where = f"{source.path}:{line}"
    if broken := [problem for problem in source.problems if problem.where == where]:
        return SlimtuneError(broken)
    if any(row.line == line for row in everything):
        return fail(f"this row's meta.mode is not {mode}, so it is left out", where=where, fix="set data.mode: auto")
    nearest = min((row.line for row in rows), key=lambda other: abs(other - line))
    return fail("no row begins at this line", where=where, fix=f"the nearest one is --line {nearest}")
