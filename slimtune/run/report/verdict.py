"""The report's sections on the verdict: its sentence, the table, intervals, answers by label, calibration.

Everything comes from eval/verdict.json; figures that an older version did not write are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slimtune.core.run_folder import as_dict, as_list
from slimtune.evaluate.judge.figures import summary_rows
from slimtune.evaluate.judge.text import percent
from slimtune.run.report.charts import Scale, ticks
from slimtune.run.report.values import number, unbroken

TONES = {
    "better": "good",
    "worse": "bad",
    "collapsed": "bad",
    "contaminated": "bad",
    "format failure": "bad",
    "cannot tell": "unsure",
}
_ENDINGS = {
    "failed": "The run failed.",
    "interrupted": "The run was interrupted.",
    "running": "The run has not come to its end: it is still going on, or its process was killed.",
}
_SIDES = ("base", "tuned")
# Of the three rows of a chart of accuracies, in percent from the bottom.
_HEIGHTS = (80, 47, 14)
_COLOURS = {"base": "base", "tuned": "tuned", "majority": "gold"}
# Radius in pixels of the largest dot of a reliability diagram; the area of the others is by their number of answers.
_LARGEST_DOT = 11
# On either side of the bars that count answers, in percent of the plot.
_GAP = 0.6
# Where a sentence passes from what was found to its evidence: "… on 120 questions (+69.2 points, …".
_EVIDENCE = re.compile(r" (?=\([+-]\d)")
_GLOSSARY = {
    "accuracy": "in brackets the 95 % interval (Wilson)",
    "majority baseline": "what always giving the commonest right answer would reach",
    "label mass": "probability on the labels together; where it is low, the model does not answer in the form asked for",
    "position bias": "standard deviation of the labels' recalls; 0 where the right answer is found wherever it stands",
}


def headline(
    manifest: Mapping[str, Any], verdict: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """The first thing to read: the verdict's sentence, or why there is none; and what ended the run early."""
    status = manifest.get("status")
    told = [str(event.get("message", "")) for event in events if event.get("event") == status]
    problem = _ENDINGS.get(str(status), "") + (f"\n{told[-1]}" if told and status in _ENDINGS else "")
    if "sentence" not in verdict:
        tone = "bad" if status == "failed" else "unsure"
        return {
            "tone": tone,
            "word": "Not judged",
            "text": ": no evaluation.",
            "evidence": "",
            "note": "",
            "problem": problem,
        }
    word = str(verdict.get("verdict", ""))
    sentence, mark, note = unbroken(str(verdict["sentence"])).partition(". Note: ")
    found, *evidence = _EVIDENCE.split(sentence, maxsplit=1)
    known = word and found.startswith(word)
    return {
        "tone": TONES.get(word, "unsure"),
        "word": word if known else "",
        "text": found.removeprefix(word) if known else found,
        "evidence": "".join(evidence),
        "note": f"Note: {note}" if mark else "",
        "problem": problem,
    }


def summary(verdict: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The before/after table: (measure, base, tuned)."""
    if not verdict.get("base") or not verdict.get("tuned"):
        return []
    return [(name, unbroken(base), unbroken(tuned)) for name, base, tuned in summary_rows(dict(verdict))]


def glossary(rows: Sequence[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """What the measures of a before/after table mean, where their names do not say it."""
    names = [name for name, _, _ in rows]
    return [(term, meaning) for term, meaning in _GLOSSARY.items() if term in names]


def tiles(verdict: Mapping[str, Any]) -> list[dict[str, str]]:
    """The few figures that are shown large: {"name", "value", "note"}."""
    sides = [(side, as_dict(verdict.get(side))) for side in _SIDES]
    n, test = verdict.get("n"), as_dict(verdict.get("mcnemar"))
    flipped = f"+{test.get('gained')} −{test.get('lost')}"
    if all(number(figures.get("accuracy")) is not None for _, figures in sides):
        return [
            *(
                _tile(side, percent(figures["accuracy"]), f"{figures.get('correct')} of {n} right")
                for side, figures in sides
            ),
            _tile(
                "difference", f"{verdict.get('difference_points', 0):+.1f}", f"points{_difference_interval(verdict, 1)}"
            ),
            _tile("flipped", flipped, f"gained and lost, {_p_value(test.get('p_value'))}"),
        ]
    for score, label, digits in (("perplexity", "perplexity", 3), ("chrf", "mean chrF", 1)):
        if all(number(figures.get(score)) is not None for _, figures in sides):
            return [
                *(_tile(side, f"{figures[score]:.2f}", label) for side, figures in sides),
                _tile(
                    "difference",
                    f"{verdict.get('difference', 0):+.{digits}f}",
                    f"{verdict.get('difference_unit', '')}{_difference_interval(verdict, digits)}",
                ),
                _tile("test", _p_value(verdict.get("p_value")), "Wilcoxon signed-rank"),
            ]
    return []


def intervals(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """Dot and whisker: the accuracies with their intervals and the baseline; of texts, the difference and zero.

    Positions are percent of the plot. None for a verdict without these figures.
    """
    return _accuracies(verdict) or _difference(verdict)


def _accuracies(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    majority = as_dict(verdict.get("majority"))
    told = [(side, as_dict(verdict.get(side)), "accuracy") for side in _SIDES] + [("majority", majority, "share")]
    shares = [
        (name, share, _pair(figures.get("interval")))
        for name, figures, key in told
        if (share := number(figures.get(key))) is not None
    ]
    if len(shares) < len(told):
        return None
    rows = [
        _row(name, _COLOURS[name], Scale(0, 1), share, ends, height)
        for (name, share, ends), height in zip(shares, _HEIGHTS, strict=True)
    ]
    whiskers = "Lines are 95 % intervals (Wilson). " if any(ends for _, _, ends in shares) else ""
    return {
        "title": "Accuracy",
        "label": ", ".join(f"{name} {percent(share)}" for name, share, _ in shares),
        "rows": rows,
        "x": ticks(Scale(0, 100), about=4, unit=" %"),
        "texts": [(row["at"], row["y"], percent(share)) for row, (_, share, _) in zip(rows, shares, strict=True)],
        "line": rows[-1]["at"],
        "caption": f'{whiskers}Majority: always answering "{majority.get("label")}".',
    }


def _difference(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    value, ends = number(verdict.get("difference")), _pair(verdict.get("difference_interval"))
    if value is None or ends is None:
        return None
    low, high = min(0.0, ends[0]), max(0.0, ends[1])
    room = 0.1 * (high - low) or 1.0
    scale = Scale(low - room, high + room)
    row = _row("change", "tuned", scale, value, ends, 50)
    unit = str(verdict.get("difference_unit", ""))
    return {
        "title": f"Difference in {unit}" if unit else "Difference",
        "label": f"tuned minus base {value:+.3g} {unit}",
        "rows": [row],
        "x": ticks(scale, about=4),
        "texts": [(row["at"], row["y"], f"{value:+.3g}")],
        "line": scale(0),
        "caption": f"The line is the {_confidence(verdict)} interval (bootstrap). It tells a difference where it leaves out 0.",
    }


def _row(
    name: str, colour: str, scale: Scale, value: float, ends: tuple[float, float] | None, height: float
) -> dict[str, Any]:
    low, high = (scale(end) for end in ends) if ends else (None, None)
    return {"name": name, "colour": colour, "at": scale(value), "low": low, "high": high, "y": height}


def histogram(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each label, the counts in gold, base and tuned, with the width of their bars in percent."""
    columns = {
        "gold": as_dict(verdict.get("gold")),
        "base": as_dict(as_dict(verdict.get("base")).get("histogram")),
        "tuned": as_dict(as_dict(verdict.get("tuned")).get("histogram")),
    }
    most = max((count for counts in columns.values() for count in counts.values()), default=0) or 1
    return [
        {
            "label": label,
            "bars": [(who, counts.get(label, 0), 100 * counts.get(label, 0) / most) for who, counts in columns.items()],
        }
        for label in as_list(verdict.get("labels"))
    ]


def calibration(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """A reliability diagram for base and tuned, in percent of the plot; None where no answer has a probability."""
    sides = []
    for side in _SIDES:
        figures = as_dict(verdict.get(side))
        bins = _bins(as_list(figures.get("calibration")))
        sides.append(
            {
                "name": side,
                "bins": bins,
                "counts": [(one["left"] + one["span"] / 2, one["height"], one["n"]) for one in bins],
                "error": _shown(figures.get("calibration_error"), percent),
                "brier": _shown(figures.get("brier"), "{:.3f}".format),
            }
        )
    if not any(side["bins"] for side in sides):
        return None
    return {"sides": sides, "ticks": ticks(Scale(0, 100), about=4, unit=" %")}


def _bins(bins: Sequence[Any]) -> list[dict[str, Any]]:
    filled = [one for one in map(as_dict, bins) if one.get("n")]
    most = max((one["n"] for one in filled), default=1)
    return [
        {
            "n": one["n"],
            "x": round(100 * one["confidence"], 2),
            "y": round(100 * one["accuracy"], 2),
            "width": round(2 * max(3.0, _LARGEST_DOT * math.sqrt(one["n"] / most)), 1),
            "left": round(100 * one["low"] + _GAP, 2),
            "span": round(100 * (one["high"] - one["low"]) - 2 * _GAP, 2),
            "height": round(100 * one["n"] / most, 1),
        }
        for one in filled
    ]


def _tile(name: str, value: str, note: str) -> dict[str, str]:
    return {"name": name, "value": unbroken(value), "note": unbroken(note)}


def _difference_interval(verdict: Mapping[str, Any], digits: int) -> str:
    ends = _pair(verdict.get("difference_interval"))
    return f", {_confidence(verdict)}: {ends[0]:+.{digits}f} to {ends[1]:+.{digits}f}" if ends else ""


def _confidence(verdict: Mapping[str, Any]) -> str:
    return f"{100 * (1 - verdict.get('alpha', 0.05)):g} %"


def _p_value(value: Any) -> str:
    p = number(value)
    return "no test" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3g}"


def _pair(value: Any) -> tuple[float, float] | None:
    ends = [end for end in map(number, as_list(value)) if end is not None]
    return (ends[0], ends[1]) if len(ends) == 2 else None


def _shown(value: Any, show: Callable[[float], str]) -> str:
    return "not recorded" if number(value) is None else show(value)
