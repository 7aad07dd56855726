"""A comparison as rows for a terminal and as Markdown; report/comparison.py makes the page."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.evaluate.judge import pairwise
from slimtune.evaluate.judge.contenders import excerpt
from slimtune.evaluate.judge.summary_table import figure_rows
from slimtune.evaluate.judge.verdict_text import percent, signed

NOUNS = {"multiple_choice": "question", "perplexity": "text", "generation": "prompt"}
UNITS = {"multiple_choice": "points", "perplexity": "nats per token", "generation": "chrF points"}
TESTS = {"multiple_choice": "exact McNemar", "perplexity": "Wilcoxon", "generation": "Wilcoxon"}
_MARKDOWN = re.compile(r"([\\`*_\[\]|~#])")
# What begins a tag or an entity; "p < 0.001" is neither.
_HTML = re.compile(r"<(?=[A-Za-z/!?])|&(?=[#\w])")
_EXCERPT = 200

Result = Mapping[str, Any]


def as_rows(result: Result) -> list[tuple[str, ...]]:
    """The table of `compare.compare`'s result: a header, the figures, and the differences to the reference.

    Each row is a measure and its value for every contender, in their order.
    """
    return [("", *(one["name"] for one in result["contenders"])), *measures(result), *differences(result)]


def as_list(result: Result) -> list[tuple[str, ...]]:
    """The same in brief, a row for each contender below a header: what fits a terminal, however many they are."""
    test = "Holm-adjusted p" if result["adjustment"] else f"{TESTS[result['kind']]} p"
    rows: list[tuple[str, ...]] = [("", next(iter(measures(result)))[0], "difference", test, "verdict")]
    figures = next(iter(measures(result)))[1:]
    pairs: list[dict[str, Any] | None] = [None, *against_reference(result)]
    for one, figure, pair in zip(result["contenders"], figures, pairs, strict=True):
        told = (difference(pair), _p(pair["adjusted_p_value"]), pair["verdict"]) if pair else ("reference", "", "")
        rows.append((one["name"], figure, *told))
    return rows


def measures(result: Result) -> list[tuple[str, ...]]:
    """Every figure that is known of one contender or more: its name and the values."""
    sides = [dict(figure_rows(one["figures"])) for one in result["contenders"]]
    names = dict.fromkeys(name for side in sides for name in side)
    return [(name, *(side.get(name, "–") for side in sides)) for name in names]


def differences(result: Result) -> list[tuple[str, ...]]:
    """What the others differ from the reference by, and how sure that is."""
    pairs = against_reference(result)
    test = TESTS[result["kind"]]
    rows = [
        ("difference", "reference", *(difference(pair) for pair in pairs)),
        (f"{test} p", "", *(_p(pair["p_value"]) for pair in pairs)),
    ]
    if result["adjustment"]:
        rows.append(("Holm-adjusted p", "", *(_p(pair["adjusted_p_value"]) for pair in pairs)))
    if any(pair["items_needed"] for pair in pairs):
        rows.append((f"{NOUNS[result['kind']]}s to tell", "", *(str(pair["items_needed"] or "–") for pair in pairs)))
    return [*rows, ("verdict", "", *(pair["verdict"] for pair in pairs))]


def against_reference(result: Result) -> list[dict[str, Any]]:
    """The pairs of the reference with each other contender."""
    return result["pairs"][: len(result["contenders"]) - 1]


def readable(pair: Mapping[str, Any]) -> tuple[float, list[float], str]:
    """A pair's difference, its interval and their unit for a person: a perplexity's as its change in percent."""
    size, ends, unit = pair["difference"], pair["difference_interval"], pair["difference_unit"]
    if unit == UNITS["perplexity"]:
        return 100 * math.expm1(size), [100 * math.expm1(end) for end in ends], "%"
    return size, list(ends), unit


def difference(pair: Mapping[str, Any]) -> str:
    """ "+46.7 points (+35.8 to +57.5)"."""
    size, (low, high), unit = readable(pair)
    return f"{signed(size)} {unit} ({signed(low)} to {signed(high)})"


def matrix(result: Result) -> list[tuple[str, list[dict[str, str] | None]]]:
    """For each contender (row) against each (column): the difference of row minus column, its p and verdict.

    The verdict is the row's. None on the diagonal. The change of a perplexity in percent is not the negative of the
    change back.
    """
    cells: dict[tuple[str, str], dict[str, str]] = {}
    opposite = {"better": "worse", "worse": "better", "cannot tell": "cannot tell"}
    for pair in result["pairs"]:
        back = {**pair, "difference": -pair["difference"]}
        for key, one, word in (
            ((pair["contender"], pair["reference"]), pair, pair["verdict"]),
            ((pair["reference"], pair["contender"]), back, opposite[pair["verdict"]]),
        ):
            size, _, unit = readable(one)
            shown = f"{signed(size)} %" if unit == "%" else signed(size)
            cells[key] = {"text": shown, "p": _p(one["adjusted_p_value"]), "verdict": word}
    names = [one["name"] for one in result["contenders"]]
    return [(row, [cells.get((row, column)) for column in names]) for row in names]


def matrix_caption(result: Result) -> str:
    """What the cells of `matrix` are."""
    unit = result["pairs"][0]["difference_unit"]
    what = "change of the perplexity" if unit == UNITS["perplexity"] else f"difference in {unit}"
    return f"Row against column: {what}, with its Holm-adjusted p."


def answer(one: Mapping[str, Any]) -> str:
    """A contender's answer to an item in a word or two: the label with its probability, or how good the text is."""
    if "nats_per_token" in one:
        return f"{one['nats_per_token']:.3f}"
    if "chrf" in one:
        return f"chrF {one['chrf']:.0f}" + (", exact" if one["exact"] else "")
    if one["predicted"] is None:
        return str(one["status"])
    share = one.get("probability")
    return str(one["predicted"]) if share is None else f"{one['predicted']} {percent(share)}"


def title(result: Result) -> str:
    """ "Comparison of 3 on 120 questions"."""
    noun = NOUNS[result["kind"]]
    return f"Comparison of {len(result['contenders'])} on {result['n']} {noun}{'' if result['n'] == 1 else 's'}"


def parted(result: Result) -> str:
    """What the listed items are."""
    if result["kind"] == "multiple_choice":
        return f"{len(result['flips'])} of {result['n']} questions are right for some and wrong for others"
    unit = "chrF" if result["kind"] == "generation" else "nats per token"
    return f"The {len(result['flips'])} {NOUNS[result['kind']]}s on which they are furthest apart, in {unit}"


def as_markdown(result: Result, *, most: int = 30) -> str:
    """The comparison as GitHub Markdown, with at most so many of the flipped items and the number of the others."""
    names = [one["name"] for one in result["contenders"]]
    blocks = [f"# {_text(title(result))}", f"Reference: **{_text(names[0])}**."]
    blocks.append("\n".join(f"- {_text(pair['sentence'])}" for pair in against_reference(result)))
    if result["notes"]:
        blocks.append("\n".join(f"- Note: {_text(note)}" for note in result["notes"]))
    blocks.append(_table(as_rows(result)))
    if len(names) > 2:
        rows = [
            (f"**{_text(name)}**", *(f"{cell['text']} (p {cell['p']})" if cell else "" for cell in cells))
            for name, cells in matrix(result)
        ]
        blocks += ["## Each against each", matrix_caption(result)]
        blocks.append(_table([("", *names), *rows], marked=True))
    judged: Sequence[Mapping[str, Any]] = result.get("judged", ())
    if judged:
        blocks += ["## Judged by a model", "\n".join(f"- {_text(pairwise.sentence(one))}" for one in judged)]
    if result["flips"]:
        blocks += ["## Where they part", _flips(result, names, most)]
    return "\n\n".join(blocks) + "\n"


def _flips(result: Result, names: Sequence[str], most: int) -> str:
    golds = result["kind"] == "multiple_choice"
    header = ("id", *(["gold"] if golds else []), *names, "prompt")
    rows = [
        (
            flip["id"],
            *([flip["gold"]] if golds else []),
            *(f"{answer(one)} {'✓' if one['correct'] else '✗'}" if golds else answer(one) for one in flip["answers"]),
            excerpt(" ".join((flip["prompt"] or "").split()), _EXCERPT),
        )
        for flip in result["flips"][:most]
    ]
    rest = len(result["flips"]) - len(rows)
    more = f"\n\nAnd {rest} more." if rest > 0 else ""
    return f"<details>\n<summary>{_text(parted(result))}</summary>\n\n{_table([header, *rows])}{more}\n\n</details>"


def _table(rows: Sequence[Sequence[str]], *, marked: bool = False) -> str:
    """A Markdown table of texts; marked: the cells below the header are Markdown already."""
    header, *body = rows
    lines = ["| " + " | ".join(_text(cell) for cell in header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(cell if marked else _text(cell) for cell in row) + " |" for row in body]
    return "\n".join(lines)


def _text(text: object) -> str:
    """Text that stays text in Markdown, in a table as elsewhere."""
    return _HTML.sub(lambda found: html.escape(found[0]), _MARKDOWN.sub(r"\\\1", " ".join(str(text).split())))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3g}"
