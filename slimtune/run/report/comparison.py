"""The page of a comparison, in the look of a run's report: self-contained, without a script, every text escaped."""

from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.core import pages
from slimtune.evaluate.judge import comparison_text, pairwise
from slimtune.evaluate.judge.comparison_text import Result, against_reference, kind_of
from slimtune.evaluate.judge.difference import readable
from slimtune.evaluate.judge.text import percent, signed
from slimtune.evaluate.kinds.kind import Kind
from slimtune.run.report.charts import Scale, around_zero, ticks, whiskers
from slimtune.run.report.verdict import TONES

# The reference is grey, as the base model is in a run's report. Later colours do on light and on dark.
_COLOURS = ("var(--base)", "var(--tuned)", "#d9822b", "#8e62d0", "#17a08c", "#d0578f", "#7d9a2f", "#b0563a")
_MOST_FLIPS = 200
_MOST_JUDGEMENTS = 50


def as_html(result: Result) -> str:
    """The page of `compare.compare`'s result.

    result: may have `judged`, a list of `pairwise.judge`'s results, which are then also shown.
    """
    pairs, kind = against_reference(result), kind_of(result)
    return pages.render(
        "slimtune.run.report",
        "comparison.html.jinja",
        {
            "title": comparison_text.title(result),
            "tone": TONES[pairs[0]["verdict"]] if len(pairs) == 1 else "plain",
            "verdicts": pairs,
            "tones": TONES,
            "notes": result["notes"],
            "names": [
                {"number": number, "name": one["name"], "colour": _colour(number), "place": one["place"]}
                for number, one in enumerate(result["contenders"], 1)
            ],
            "measures": comparison_text.measures(result),
            "differences": comparison_text.differences(result),
            "shares": _shares(result),
            "forest": _forest(pairs, result["alpha"]),
            "histogram": _histogram(result),
            "matrix": comparison_text.matrix(result) if len(result["contenders"]) > 2 else [],
            "matrix_caption": comparison_text.matrix_caption(result),
            "judged": [(one, pairwise.sentence(one)) for one in result.get("judged", ())],
            "most_judgements": _MOST_JUDGEMENTS,
            "parted": kind.apart(len(result["flips"]), result["n"]),
            "flips": [_flip(flip, kind) for flip in result["flips"][:_MOST_FLIPS]],
            "more_flips": max(0, len(result["flips"]) - _MOST_FLIPS),
        },
    )


def _shares(result: Result) -> dict[str, Any] | None:
    """Accuracy or exact matches with their Wilson intervals as dot and whisker; None for perplexities."""
    shares = [share for one in result["contenders"] if (share := kind_of(result).share(one["figures"]))]
    if not shares:
        return None
    majority, scale = result.get("majority"), Scale(0, 1)
    return {
        "title": shares[0][0],
        **whiskers(_lines([(share, ends, percent(share)) for _, share, ends in shares], 1), scale),
        "x": ticks(Scale(0, 100), about=4, unit=" %"),
        "line": scale(majority["share"]) if majority else None,
        "caption": "95 % interval (Wilson)."
        + (f' Dashed: always answering "{majority["label"]}", {percent(majority["share"])}.' if majority else ""),
    }


def _forest(pairs: Sequence[Mapping[str, Any]], alpha: float) -> dict[str, Any]:
    """The differences to the reference with their intervals, on a scale that has 0 on it."""
    differences = [readable(pair) for pair in pairs]
    scale = around_zero(end for _, ends, _ in differences for end in ends)
    unit = differences[0][2]
    sign = " %" if unit == "%" else ""
    what = "Change of the perplexity, lower is better" if sign else f"Difference in {unit}"
    spread = f"{100 * (1 - alpha):g} % interval (paired bootstrap)"
    return {
        **whiskers(_lines([(size, ends, f"{signed(size)}{sign}") for size, ends, _ in differences], 2), scale),
        "x": ticks(scale, about=4, unit=sign),
        "line": scale(0),
        "caption": f"{what}. {spread}; where it crosses the dashed line, 0 is not ruled out.",
    }


def _lines(values: Sequence[tuple[float, Sequence[float], str]], first: int) -> list[tuple[Any, ...]]:
    """For `whiskers`, top down, numbered from `first` as the contenders are."""
    heights = [round(100 * (len(values) - index - 0.4) / len(values), 2) for index in range(len(values))]
    numbered = enumerate(zip(heights, values, strict=True), first)
    return [(str(number), _colour(number), height, *value) for number, (height, value) in numbered]


def _colour(number: int) -> str:
    """Of a contender; the first is 1."""
    return _COLOURS[(number - 1) % len(_COLOURS)]


def _histogram(result: Result) -> dict[str, Any]:
    """The labels, and (name, colour, counts, sum of the counts) of gold and of each contender; none for other kinds.

    Contenders may have been asked in different numbers of orders, so that only shares can be compared.
    `most`: the largest share.
    """
    if "labels" not in result:
        return {"labels": [], "columns": [], "most": 1}
    columns = [("gold", "var(--gold)", result["gold"])]
    columns += [
        (one["name"], _colour(number), one["figures"]["histogram"])
        for number, one in enumerate(result["contenders"], 1)
    ]
    summed = [(*column, sum(column[2].values()) or 1) for column in columns]
    most = max(count / total for _, _, counts, total in summed for count in counts.values()) or 1
    return {"labels": result["labels"], "columns": summed, "most": most}


def _flip(flip: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    shown = [(kind.in_a_word(one), one.get("correct")) for one in flip["answers"]]
    return {**flip, "shown": shown, "written": any("text" in one for one in flip["answers"])}
