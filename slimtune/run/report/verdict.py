"""The report's sections on the verdict: its sentence, large figures, intervals, answers by label, calibration.

Everything comes from eval/verdict.json. Figures that an older version did not write are left out.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.core.run_folder import as_dict, as_list, at
from slimtune.evaluate.judge.text import percent
from slimtune.run.report.charts import Scale, ticks
from slimtune.run.report.values import confidence, difference, known, number, pair, unbroken

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
    "running": "The run has not ended. It is still going on, or its process was killed.",
}
SIDES = ("base", "tuned")
# The score that is shown large, what it is called, and its digits; the first that both models have.
_SCORES = (
    ("accuracy", "", percent),
    ("perplexity", "perplexity", "{:.2f}".format),
    ("chrf", "mean chrF", "{:.2f}".format),
)
# Rows of the chart of accuracies: path in the verdict, colour, height in percent of the plot from the bottom.
_ACCURACIES = (("base.accuracy", "base", 80), ("tuned.accuracy", "tuned", 47), ("majority.share", "gold", 14))
# Radius in pixels of the largest dot of a reliability diagram. A dot's area is proportional to its number of answers.
_LARGEST_DOT = 11
# On either side of the bars that count answers, in percent of the plot.
_GAP = 0.6
# Where a sentence passes from what was found to its evidence: "… on 120 questions (+69.2 points, …".
_EVIDENCE = re.compile(r" (?=\([+-]\d)")


def headline(
    manifest: Mapping[str, Any], verdict: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """The first thing to read: the verdict's sentence, or why there is none; and what ended the run early."""
    status = str(manifest.get("status"))
    word, sentence, tone = "Not judged", "Not judged: no evaluation.", "bad" if status == "failed" else "unsure"
    if "sentence" in verdict:
        word, sentence = str(verdict.get("verdict", "")), unbroken(str(verdict["sentence"]))
        tone = TONES.get(word, "unsure")
    sentence, mark, note = sentence.partition(". Note: ")
    found, *evidence = _EVIDENCE.split(sentence, maxsplit=1)
    messages = [str(event.get("message", "")) for event in events if event.get("event") == status]
    return {
        "tone": tone,
        "word": word if found.startswith(word) else "",
        "text": found.removeprefix(word),
        "evidence": "".join(evidence),
        "note": f"Note: {note}" if mark else "",
        "problem": "\n".join([_ENDINGS[status], *messages[-1:]]) if status in _ENDINGS else "",
    }


def tiles(verdict: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The few figures that are shown large: (name, value, note)."""
    sides = [(side, as_dict(verdict.get(side))) for side in SIDES]
    found = [one for one in _SCORES if all(number(figures.get(one[0])) is not None for _, figures in sides)]
    if not found:
        return []
    score, label, show = found[0]
    rows = [
        (side, show(figures[score]), label or f"{figures.get('correct')} of {verdict.get('n')} right")
        for side, figures in sides
    ]
    if change := difference(verdict):
        ends = f", {change['confidence']}: {' to '.join(change['interval'])}" if change["interval"] else ""
        rows.append(("difference", change["value"], change["unit"] + ends))
    if score == "accuracy":
        test = as_dict(verdict.get("mcnemar"))
        flipped = f"+{test.get('gained')} −{test.get('lost')}"
        return [*rows, ("flipped", flipped, f"gained and lost, {_p_value(test.get('p_value'))}")]
    return [*rows, ("test", _p_value(verdict.get("p_value")), "Wilcoxon signed-rank")]


def intervals(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """Dot and whisker: the accuracies with their intervals and the baseline; of texts, the difference and zero.

    Positions are percent of the plot. None for a verdict without these figures.
    """
    return _accuracies(verdict) or _difference(verdict)


def _accuracies(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    rows = []
    for path, colour, height in _ACCURACIES:
        name, share = path.partition(".")[0], number(at(verdict, path))
        ends = pair(at(verdict, f"{name}.interval"))
        if share is None:
            return None
        rows.append(_row(name, colour, Scale(0, 1), share, ends, height, percent(share)))
    whiskers = "Lines are 95 % intervals (Wilson). " if any(row["low"] is not None for row in rows) else ""
    return {
        "title": "Accuracy",
        "label": ", ".join(f"{row['name']} {row['text']}" for row in rows),
        "rows": rows,
        "x": ticks(Scale(0, 100), about=4, unit=" %"),
        "texts": [(row["at"], row["y"], row["text"]) for row in rows],
        "line": rows[-1]["at"],
        "caption": f'{whiskers}Majority: always answering "{at(verdict, "majority.label")}".',
    }


def _difference(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    value, ends = number(verdict.get("difference")), pair(verdict.get("difference_interval"))
    if value is None or ends is None:
        return None
    low, high = min(0.0, ends[0]), max(0.0, ends[1])
    room = 0.1 * (high - low) or 1.0
    scale = Scale(low - room, high + room)
    row = _row("change", "tuned", scale, value, ends, 50, f"{value:+.3g}")
    unit = str(verdict.get("difference_unit", ""))
    return {
        "title": f"Difference in {unit}" if unit else "Difference",
        "label": f"tuned minus base {value:+.3g} {unit}",
        "rows": [row],
        "x": ticks(scale, about=4),
        "texts": [(row["at"], row["y"], row["text"])],
        "line": scale(0),
        "caption": f"The line is the {confidence(verdict)} interval (bootstrap). There is a difference where it leaves out 0.",
    }


def _row(
    name: str, colour: str, scale: Scale, value: float, ends: tuple[float, float] | None, height: float, text: str
) -> dict[str, Any]:
    low, high = (scale(end) for end in ends) if ends else (None, None)
    return {"name": name, "colour": colour, "at": scale(value), "low": low, "high": high, "y": height, "text": text}


def histogram(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """The labels, how often each is the gold, base and tuned answer, and the largest of these counts."""
    counts = {"gold": as_dict(verdict.get("gold")), **{side: at(verdict, f"{side}.histogram", {}) for side in SIDES}}
    most = max((count for one in counts.values() for count in one.values()), default=0) or 1
    return {"labels": as_list(verdict.get("labels")), "counts": counts, "most": most}


def calibration(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """A reliability diagram for base and tuned, in percent of the plot; None where no answer has a probability."""
    sides = []
    for side in SIDES:
        figures = as_dict(verdict.get(side))
        bins = _bins(as_list(figures.get("calibration")))
        sides.append(
            {
                "name": side,
                "bins": bins,
                "counts": [(one["left"] + one["span"] / 2, one["height"], one["n"]) for one in bins],
                "error": known(figures.get("calibration_error"), percent, "not recorded"),
                "brier": known(figures.get("brier"), "{:.3f}".format, "not recorded"),
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


def _p_value(value: Any) -> str:
    return known(value, lambda p: "p < 0.001" if p < 0.001 else f"p = {p:.3g}", "no test")
