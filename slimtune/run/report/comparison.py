"""The page of a comparison, in the look of a run's report: self-contained, without a script, every text escaped."""

from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.core import pages
from slimtune.evaluate.judge import comparison_text, pairwise
from slimtune.evaluate.judge.comparison_text import Result, against_reference, kind_of
from slimtune.evaluate.judge.difference import readable
from slimtune.evaluate.judge.text import percent, signed
from slimtune.evaluate.kinds.kind import Kind
from slimtune.run.report.charts import Scale, ticks

# The reference is grey, as the base model is in a run's report. Later colours do on light and on dark.
_COLOURS = ("var(--base)", "var(--tuned)", "#d9822b", "#8e62d0", "#17a08c", "#d0578f", "#7d9a2f", "#b0563a")
_TONES = {"better": "good", "worse": "bad", "cannot tell": "unsure"}
_MOST_FLIPS = 200
_MOST_JUDGEMENTS = 50


def as_html(result: Result) -> str:
    """The page of `compare.compare`'s result.

    result: may have `judged`, a list of `pairwise.judge`'s results, which are then also shown.
    """
    names = [one["name"] for one in result["contenders"]]
    pairs = against_reference(result)
    return pages.render(
        "slimtune.run.report",
        "comparison.html.jinja",
        {
            "title": comparison_text.title(result),
            "tone": _TONES[pairs[0]["verdict"]] if len(pairs) == 1 else "plain",
            "verdicts": pairs,
            "tones": _TONES,
            "notes": result["notes"],
            "names": [
                {
                    "number": number,
                    "name": name,
                    "colour": _COLOURS[(number - 1) % len(_COLOURS)],
                    "place": one["place"],
                }
                for number, (name, one) in enumerate(zip(names, result["contenders"], strict=True), 1)
            ],
            "measures": comparison_text.measures(result),
            "differences": comparison_text.differences(result),
            "shares": _shares(result),
            "forest": _forest(pairs, result["alpha"]),
            "histogram": _histogram(result),
            "matrix": comparison_text.matrix(result) if len(names) > 2 else [],
            "matrix_caption": comparison_text.matrix_caption(result),
            "judged": [(one, pairwise.sentence(one)) for one in result.get("judged", ())],
            "most_judgements": _MOST_JUDGEMENTS,
            "parted": comparison_text.parted(result),
            "flips": [_flip(flip, kind_of(result)) for flip in result["flips"][:_MOST_FLIPS]],
            "more_flips": max(0, len(result["flips"]) - _MOST_FLIPS),
        },
    )


def _shares(result: Result) -> dict[str, Any] | None:
    """Accuracy or exact matches with their Wilson intervals as dot and whisker; None for perplexities."""
    shares = [share for one in result["contenders"] if (share := kind_of(result).share(one["figures"]))]
    if not shares:
        return None
    rows = _lines([(100 * share, [100 * end for end in ends], percent(share)) for _, share, ends in shares], 1)
    majority = result.get("majority")
    return {
        "title": shares[0][0],
        **_placed(rows, Scale(0, 100)),
        "x": ticks(Scale(0, 100), about=4, unit=" %"),
        "line": 100 * majority["share"] if majority else None,
        "caption": "95 % interval (Wilson)."
        + (f' Dashed: always answering "{majority["label"]}", {percent(majority["share"])}.' if majority else ""),
    }


def _forest(pairs: Sequence[Mapping[str, Any]], alpha: float) -> dict[str, Any]:
    """The differences to the reference with their intervals, on a scale that has 0 on it."""
    lines = []
    for pair in pairs:
        size, ends, unit = readable(pair)
        lines.append((size, ends, f"{signed(size)}{' %' if unit == '%' else ''}"))
    rows = _lines(lines, 2)
    reach = [0.0, *(end for row in rows for end in (row["low"], row["high"]))]
    margin = 0.08 * (max(reach) - min(reach)) or 1.0
    scale = Scale(min(reach) - margin, max(reach) + margin)
    unit = readable(pairs[0])[2]
    what = "Change of the perplexity, lower is better" if unit == "%" else f"Difference in {unit}"
    spread = f"{100 * (1 - alpha):g} % interval (paired bootstrap)"
    return {
        **_placed(rows, scale),
        "x": ticks(scale, about=4, unit=" %" if unit == "%" else ""),
        "line": scale(0),
        "caption": f"{what}. {spread}; where it crosses the dashed line, 0 is not ruled out.",
    }


def _lines(values: Sequence[tuple[float, Sequence[float], str]], first: int) -> list[dict[str, Any]]:
    """A line each, top down, numbered from `first` as the contenders are."""
    return [
        {
            "name": str(first + index),
            "colour": _COLOURS[(first + index - 1) % len(_COLOURS)],
            "at": value,
            "low": ends[0],
            "high": ends[1],
            "y": round(100 * (len(values) - index - 0.4) / len(values), 2),
            "text": text,
        }
        for index, (value, ends, text) in enumerate(values)
    ]


def _placed(rows: Sequence[dict[str, Any]], scale: Scale) -> dict[str, Any]:
    """The lines in percent of the plot, and the texts at their values."""
    placed = [{**row, **{key: scale(row[key]) for key in ("at", "low", "high")}} for row in rows]
    return {"rows": placed, "texts": [(row["at"], row["y"], row["text"]) for row in placed]}


def _histogram(result: Result) -> dict[str, Any]:
    """The labels, and (name, colour, counts, sum of the counts) of gold and of each contender; none for other kinds.

    Contenders may have been asked in different numbers of orders, so that only shares can be compared.
    `most`: the largest share.
    """
    if "labels" not in result:
        return {"labels": [], "columns": [], "most": 1}
    columns = [("gold", "var(--gold)", result["gold"])]
    columns += [
        (one["name"], _COLOURS[index % len(_COLOURS)], one["figures"]["histogram"])
        for index, one in enumerate(result["contenders"])
    ]
    summed = [(*column, sum(column[2].values()) or 1) for column in columns]
    most = max(count / total for _, _, counts, total in summed for count in counts.values()) or 1
    return {"labels": result["labels"], "columns": summed, "most": most}


def _flip(flip: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    shown = [(kind.in_a_word(one), one.get("correct")) for one in flip["answers"]]
    return {**flip, "shown": shown, "written": any("text" in one for one in flip["answers"])}
