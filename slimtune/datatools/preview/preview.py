"""Training examples as the model sees them: every token's text, and whether it carries loss. No weights, no torch."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.progress import Advance, ignore
from slimtune.data import formats
from slimtune.data.chat_template import IGNORE_INDEX, ChatTokenizer, Example
from slimtune.data.json_rows import Row
from slimtune.data.reading import DataFile


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


@dataclass(frozen=True, slots=True)
class Preview:
    """One training example.

    where: "file:line" of its row. part, parts: number of this example among those of its row, from 1; a conversation of
    several turns may become several examples (see data/chat_template.py).
    """

    where: str
    part: int
    parts: int
    segments: tuple[Segment, ...]
    max_seq_length: int

    @property
    def tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)

    @property
    def supervised(self) -> int:
        return sum(segment.tokens for segment in self.segments if segment.supervised)

    @property
    def prompt(self) -> int:
        """Tokens that are only read."""
        return self.tokens - self.supervised

    @property
    def too_many(self) -> int:
        """Tokens more than max_seq_length."""
        return max(0, self.tokens - self.max_seq_length)


@dataclass(frozen=True, slots=True)
class Previews:
    """rows: of the file, those of another mode not counted. other_mode: those. shown: rows that `examples` are of.

    unread: what is wrong with lines that could not be read, none of them among the rows shown.
    """

    path: str
    rows: int
    other_mode: int
    shown: int
    examples: tuple[Preview, ...]
    unread: tuple[Problem, ...]


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
    unread = source.problems
    if not everything:
        raise SlimtuneError(unread)
    problems: list[Problem] = []
    name = formats.choose(everything, format, path, problems)
    if name is None:
        raise SlimtuneError(problems)
    rows = [row for row in everything if mode == "auto" or _mode_of(row) == mode]
    if not rows:
        raise fail(
            f"no row has meta.mode {mode}", where=path, fix="set data.mode to what the file contains, or to auto"
        )
    chosen = _chosen(everything, rows, choice, path, unread, mode)
    converted = formats.convert_rows(chosen, name, format, path=path, system=system, problems=problems)
    if problems:
        raise SlimtuneError(problems)
    examples: list[Preview] = []
    for one in converted:
        parts = tokenizer.examples(one.conversation)
        examples += [
            Preview(part.where, number, len(parts), segments(part, tokenizer, max_seq_length), max_seq_length)
            for number, part in enumerate(parts, start=1)
        ]
    return Previews(path, len(rows), len(everything) - len(rows), len(chosen), tuple(examples), tuple(unread))


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


def _chosen(
    everything: Sequence[Row], rows: Sequence[Row], choice: Selection, path: str, unread: Sequence[Problem], mode: str
) -> list[Row]:
    if choice.line is None:
        if choice.seed is None:
            return list(rows[: choice.count])
        places = random.Random(choice.seed).sample(range(len(rows)), min(choice.count, len(rows)))
        return [rows[place] for place in sorted(places)]
    wanted = choice.line
    found = [row for row in rows if row.line == wanted]
    if found:
        return found
    where = f"{path}:{wanted}"
    broken = [problem for problem in unread if problem.where == where]
    if broken:
        raise SlimtuneError(broken)
    if any(row.line == wanted for row in everything):
        raise fail(f"this row's meta.mode is not {mode}, so it is left out", where=where, fix="set data.mode: auto")
    nearest = min((row.line for row in rows), key=lambda line: abs(line - wanted))
    raise fail("no row begins at this line", where=where, fix=f"the nearest one is --line {nearest}")
