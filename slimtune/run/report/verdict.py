"""The report's sections on the verdict: its sentence, large figures, intervals, answers by label, calibration.

Everything comes from eval/verdict.json. Figures that an older version did not write are left out.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.core.run_folder import as_dict, as_list, at
from slimtune.evaluate.judge.text import p_value, percent
from slimtune.run.report.charts import Scale, around_zero, ticks, whiskers
from slimtune.run.report.values import confidence, difference, known, number, pair, unbroken

_BAD = ("worse", "collapsed", "contaminated", "format failure")
TONES = {"better": "good", **dict.fromkeys(_BAD, "bad"), "cannot tell": "unsure"}
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
        told = f"gained and lost, {known(test.get('p_value'), p_value, 'no test')}"
        return [*rows, ("flipped", f"+{test.get('gained')} −{test.get('lost')}", told)]
    return [*rows, ("test", known(verdict.get("p_value"), p_value, "no test"), "Wilcoxon signed-rank")]


def intervals(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """Dot and whisker: the accuracies with their intervals and the baseline; of texts, the difference and zero.

    Positions are percent of the plot. None for a verdict without these figures.
    """
    return _accuracies(verdict) or _difference(verdict)


def _accuracies(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    lines, note = [], ""
    for path, colour, height in _ACCURACIES:
        name, share = path.partition(".")[0], number(at(verdict, path))
        if share is None:
            return None
        if ends := pair(at(verdict, f"{name}.interval")):
            note = "Lines are 95 % intervals (Wilson). "
        lines.append((name, colour, height, share, ends, percent(share)))
    drawn = whiskers(lines, Scale(0, 1))
    return {
        "title": "Accuracy",
        "label": ", ".join(f"{row['name']} {row['text']}" for row in drawn["rows"]),
        **drawn,
        "x": ticks(Scale(0, 100), about=4, unit=" %"),
        "line": drawn["rows"][-1]["at"],
        "caption": f'{note}Majority: always answering "{at(verdict, "majority.label")}".',
    }


def _difference(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    value, ends = number(verdict.get("difference")), pair(verdict.get("difference_interval"))
    if value is None or ends is None:
        return None
    scale = around_zero(ends)
    unit = str(verdict.get("difference_unit", ""))
    return {
        "title": f"Difference in {unit}" if unit else "Difference",
        "label": f"tuned minus base {value:+.3g} {unit}",
        **whiskers([("change", "tuned", 50, value, ends, f"{value:+.3g}")], scale),
        "x": ticks(scale, about=4),
        "line": scale(0),
        "caption": f"The line is the {confidence(verdict)} interval (bootstrap). There is a difference where it leaves out 0.",
    }


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
