"""A comparison as rows for a terminal and as Markdown; run/report/comparison.py makes the page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from slimtune.core.markdown import plain
from slimtune.core.units import plural
from slimtune.evaluate import kinds
from slimtune.evaluate.judge import pairwise
from slimtune.evaluate.judge.difference import readable
from slimtune.evaluate.judge.text import excerpt, signed
from slimtune.evaluate.kinds.kind import Kind

_EXCERPT = 200

Result = Mapping[str, Any]


def as_rows(result: Result) -> list[tuple[str, ...]]:
    """The table of `compare.compare`'s result: a header, then each measure and its value for every contender."""
    return [("", *(one["name"] for one in result["contenders"])), *measures(result), *differences(result)]


def as_list(result: Result) -> list[tuple[str, ...]]:
    """The same in brief, a row for each contender below a header: what fits a terminal, however many they are."""
    test = "Holm-adjusted p" if result["adjustment"] else f"{kind_of(result).test} p"
    told = [
        ("difference", test, "verdict"),
        ("reference", "", ""),
        *((difference(pair), _p(pair["adjusted_p_value"]), pair["verdict"]) for pair in against_reference(result)),
    ]
    names = ["", *(one["name"] for one in result["contenders"])]
    return [(name, figure, *rest) for name, figure, rest in zip(names, measures(result)[0], told, strict=True)]


def measures(result: Result) -> list[tuple[str, ...]]:
    """Every figure that is known of one contender or more: its name and the values."""
    sides = [{row[0]: row[1] for row in kinds.table(one["figures"])} for one in result["contenders"]]
    names = dict.fromkeys(name for side in sides for name in side)
    return [(name, *(side.get(name, "–") for side in sides)) for name in names]


def differences(result: Result) -> list[tuple[str, ...]]:
    """What the others differ from the reference by, and how sure that is."""
    pairs, kind = against_reference(result), kind_of(result)
    rows = [
        ("difference", "reference", *(difference(pair) for pair in pairs)),
        (f"{kind.test} p", "", *(_p(pair["p_value"]) for pair in pairs)),
    ]
    if result["adjustment"]:
        rows.append(("Holm-adjusted p", "", *(_p(pair["adjusted_p_value"]) for pair in pairs)))
    if any(pair["items_needed"] for pair in pairs):
        rows.append((f"{kind.noun}s to tell", "", *(str(pair["items_needed"] or "–") for pair in pairs)))
    return [*rows, ("verdict", "", *(pair["verdict"] for pair in pairs))]


def against_reference(result: Result) -> list[dict[str, Any]]:
    """The pairs of the reference with each other contender."""
    return result["pairs"][: len(result["contenders"]) - 1]


def difference(pair: Mapping[str, Any]) -> str:
    """ "+46.7 points (+35.8 to +57.5)"."""
    size, (low, high), unit = readable(pair)
    return f"{signed(size)} {unit} ({signed(low)} to {signed(high)})"


def matrix(result: Result) -> list[tuple[str, list[dict[str, str] | None]]]:
    """For each contender (row) against each (column): the difference of row minus column, its p, and the row's verdict.

    None on the diagonal. The change of a perplexity in percent is not the negative of the change back.
    """
    cells: dict[tuple[str, str], dict[str, str]] = {}
    opposite = {"better": "worse", "worse": "better", "cannot tell": "cannot tell"}
    for pair in result["pairs"]:
        one, other = pair["reference"], pair["contender"]
        back = {**pair, "difference": -pair["difference"], "verdict": opposite[pair["verdict"]]}
        for key, told in (((other, one), pair), ((one, other), back)):
            size, _, unit = readable(told)
            shown = f"{signed(size)} %" if unit == "%" else signed(size)
            cells[key] = {"text": shown, "p": _p(told["adjusted_p_value"]), "verdict": told["verdict"]}
    names = [one["name"] for one in result["contenders"]]
    return [(row, [cells.get((row, column)) for column in names]) for row in names]


def matrix_caption(result: Result) -> str:
    """What the cells of `matrix` are."""
    unit = readable(result["pairs"][0])[2]
    what = "change of the perplexity" if unit == "%" else f"difference in {unit}"
    return f"Row against column: {what}, with its Holm-adjusted p."


def title(result: Result) -> str:
    """ "Comparison of 3 on 120 questions"."""
    return f"Comparison of {len(result['contenders'])} on {plural(result['n'], kind_of(result).noun)}"


def kind_of(result: Result) -> Kind:
    return kinds.of(result)


def as_markdown(result: Result, *, most: int = 30) -> str:
    """The comparison as GitHub Markdown, with at most so many of the flipped items and the number of the others."""
    names = [one["name"] for one in result["contenders"]]
    blocks = [f"# {plain(title(result))}", f"Reference: **{plain(names[0])}**."]
    blocks.append(_list(pair["sentence"] for pair in against_reference(result)))
    if result["notes"]:
        blocks.append(_list(f"Note: {note}" for note in result["notes"]))
    blocks.append(_table(as_rows(result)))
    if len(names) > 2:
        rows = [
            (f"**{plain(name)}**", *(f"{cell['text']} (p {cell['p']})" if cell else "" for cell in cells))
            for name, cells in matrix(result)
        ]
        blocks += ["## Each against each", matrix_caption(result)]
        blocks.append(_table([("", *names), *rows], marked=True))
    if judged := result.get("judged"):
        blocks += ["## Judged by a model", _list(map(pairwise.sentence, judged))]
    if result["flips"]:
        blocks += ["## Where they differ", _flips(result, names, most)]
    return "\n\n".join(blocks) + "\n"


def _flips(result: Result, names: Sequence[str], most: int) -> str:
    kind, golds = kind_of(result), ["gold"] if "gold" in result else []
    rows = [("id", *golds, *names, "prompt")]
    for flip in result["flips"][:most]:
        marks = [f" {'✓' if one['correct'] else '✗'}" if golds else "" for one in flip["answers"]]
        told = [kind.in_a_word(one) + mark for one, mark in zip(flip["answers"], marks, strict=True)]
        prompt = excerpt(" ".join((flip["prompt"] or "").split()), _EXCERPT)
        rows.append((flip["id"], *(flip[key] for key in golds), *told, prompt))
    rest = len(result["flips"]) - most
    more = f"\n\nAnd {rest} more." if rest > 0 else ""
    summary = plain(kind.apart(len(result["flips"]), result["n"]))
    return f"<details>\n<summary>{summary}</summary>\n\n{_table(rows)}{more}\n\n</details>"


def _list(texts: Iterable[str]) -> str:
    return "\n".join(f"- {plain(text)}" for text in texts)


def _table(rows: Sequence[Sequence[str]], *, marked: bool = False) -> str:
    """A Markdown table of texts; marked: the cells below the header are Markdown already."""
    header, *body = rows
    lines = ["| " + " | ".join(plain(cell) for cell in header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(cell if marked else plain(cell) for cell in row) + " |" for row in body]
    return "\n".join(lines)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3g}"
