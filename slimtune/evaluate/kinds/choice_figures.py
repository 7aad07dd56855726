"""What is counted of multiple-choice answers: accuracy and how it comes about."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from slimtune.evaluate.judge import statistics
from slimtune.evaluate.judge.text import bounds, percent
from slimtune.evaluate.kinds.kind import Answer, Answers, Figures, Metric, TableRow, metric_rows

STATUSES = ("answered", "unknown", "ambiguous", "truncated", "error")


def is_correct(answer: Answer) -> bool:
    return bool(answer["predicted"] == answer["gold"])


def status(answer: Answer) -> str:
    """How a question was answered; answers of older versions tell only whether it was."""
    return str(answer.get("status") or ("unknown" if answer["predicted"] is None else "answered"))


def displayed(answer: Answer) -> list[tuple[str, str | None]]:
    """(gold, predicted) in the labels that the model saw: one pair for each order of the choices that was asked."""
    return [(order["gold"], order["predicted"]) for order in answer.get("permutations") or [answer]]


def question_score(answer: Answer) -> float:
    """1 for a right answer, 0 for a wrong one; the mean over the orders of the choices where several were asked."""
    return fmean(gold == predicted for gold, predicted in displayed(answer))


def labels_in(answers: Answers) -> list[str]:
    """All labels that occur: in the order of the questions where answers tell it, then by name."""
    told = dict.fromkeys(label for answer in answers for label in answer.get("labels") or ())
    seen: set[str | None] = {None}
    for answer in answers:
        seen.update((answer["gold"], answer["predicted"]), answer.get("logprobs") or (), *displayed(answer))
    return [*told, *sorted(label for label in seen if label is not None and label not in told)]


def answer_key(answers: Answers, labels: Sequence[str]) -> dict[str, Any]:
    """What the questions themselves say: labels, how often each is right as displayed, and the majority baseline.

    gold: label → count, each permutation counted as in the histograms. majority: the label that is right most often in
    the file, and the accuracy (0 to 1) of always answering it.
    """
    shown = Counter(gold for answer in answers for gold, _ in displayed(answer))
    golds = Counter(answer["gold"] for answer in answers)
    majority = max(labels, key=lambda label: golds[label])
    return {
        "labels": list(labels),
        "gold": {label: shown[label] for label in labels},
        "majority": {"label": majority, "share": golds[majority] / len(answers)},
    }


# Metrics: what the answers do not tell is None ------------------------------------------------------------------------


def label_mass(answers: Answers) -> float | None:
    """Mean probability on the labels together."""
    return _mean_of(answers, "label_mass")


def greedy_agreement(answers: Answers) -> float | None:
    """Share of questions whose likeliest label is also what the model would write."""
    return _mean_of(answers, "greedy_agrees")


def position_bias(answers: Answers) -> float | None:
    """Standard deviation of the labels' recalls, as they were displayed; see `statistics.position_bias`."""
    return statistics.position_bias(recall(answers, labels_in(answers)))


def brier(answers: Answers) -> float | None:
    """Mean Brier score of the probabilities renormalised over the labels."""
    known = _with_probabilities(answers)
    return fmean(statistics.brier(shares, answer["gold"]) for answer, shares in known) if known else None


def calibration_error(answers: Answers) -> float | None:
    """Expected calibration error; the confidence is the highest renormalised probability."""
    found = _calibration(answers)
    return found[0] if found else None


METRICS = (
    Metric("label_mass", "label mass", label_mass, percent),
    Metric("greedy_agreement", "agrees with greedy text", greedy_agreement, percent),
    Metric("brier", "Brier score", brier, "{:.3f}".format),
    Metric("calibration_error", "calibration error", calibration_error, percent),
)
POSITION_BIAS = Metric("position_bias", "position bias", position_bias, percent)
"""Shown where the choices were asked in several orders."""


def figures(answers: Answers, labels: Sequence[str]) -> Figures:
    """accuracy, interval (Wilson, 95 %), correct, unanswered, statuses: of the predictions, one a question.

    histogram, recall: of the labels as they were displayed, each permutation counted. labels: their order.
    permutations: how many orders of the choices were asked, the mean accuracy over them, and the share of questions
    that are right in all of them. calibration: the table from which calibration_error is computed.
    """
    correct = sum(map(is_correct, answers))
    predicted = Counter(label for answer in answers for _, label in displayed(answer))
    counts = Counter(map(status, answers))
    found = _calibration(answers)
    return {
        "accuracy": correct / len(answers),
        "interval": list(statistics.wilson(correct, len(answers))),
        "correct": correct,
        "histogram": {label: predicted[label] for label in labels},
        "unanswered": sum(answer["predicted"] is None for answer in answers),
        "statuses": {name: counts[name] for name in STATUSES},
        "recall": recall(answers, labels),
        "permutations": _permutations(answers),
        "calibration": found[1] if found else None,
    }


def table(frame: dict[str, Any], sides: Sequence[Figures]) -> list[TableRow]:
    """frame: `labels`, `gold`, `majority` and `n`. Verdicts of older versions have no interval and no statuses."""
    order, n = frame["labels"], frame["n"]
    gold = " / ".join(str(frame["gold"][label]) for label in order)
    majority = f"{percent(frame['majority']['share'])} (always {frame['majority']['label']})"
    rows: list[TableRow] = [
        ("accuracy", *map(_accuracy, sides)),
        ("correct / n", *(f"{side['correct']} / {n}" for side in sides)),
        (
            f"answers {' / '.join(order)} (gold {gold})",
            *(" / ".join(str(side["histogram"][label]) for label in order) for side in sides),
        ),
    ]
    if any(side["unanswered"] for side in sides):
        rows.append(("no answer", *map(_no_answer, sides)))
    rows += [("majority baseline", *(majority for _ in sides)), *metric_rows(METRICS, sides)]
    if permutations := sides[-1].get("permutations"):
        rows.append((f"right in all {permutations['count']} orders (mean)", *map(_all_orders, sides)))
        rows += metric_rows([POSITION_BIAS], sides)
    return rows


def statuses(side: Figures) -> str:
    """How replies without an answer ended: "3 unknown, 2 truncated"; "" if all were answered."""
    return ", ".join(f"{number} {name}" for name, number in side["statuses"].items() if number and name != "answered")


def recall(answers: Answers, labels: Sequence[str]) -> dict[str, float | None]:
    return statistics.recall([pair for answer in answers for pair in displayed(answer)], labels)


def _accuracy(side: Figures) -> str:
    return percent(side["accuracy"]) + (f" ({bounds(side['interval'])})" if "interval" in side else "")


def _no_answer(side: Figures) -> str:
    return statuses(side) or "none" if "statuses" in side else str(side["unanswered"])


def _all_orders(side: Figures) -> str:
    found = side.get("permutations")
    return f"{percent(found['all_correct'])} ({percent(found['mean_accuracy'])})" if found else "–"


def _mean_of(answers: Answers, key: str) -> float | None:
    values = [float(answer[key]) for answer in answers if answer.get(key) is not None]
    return fmean(values) if values else None


def _with_probabilities(answers: Answers) -> list[tuple[Answer, dict[str, float]]]:
    return [(answer, shares) for answer in answers if (shares := statistics.probabilities(answer.get("logprobs")))]


def _calibration(answers: Answers) -> tuple[float, list[dict[str, Any]]] | None:
    known = _with_probabilities(answers)
    if not known:
        return None
    confidences = [max(shares.values()) for _, shares in known]
    return statistics.calibration(confidences, [is_correct(answer) for answer, _ in known])


def _permutations(answers: Answers) -> dict[str, Any] | None:
    count = max(len(answer.get("permutations") or ()) for answer in answers)
    if not count:
        return None
    scores = [question_score(answer) for answer in answers]
    return {"count": count, "mean_accuracy": fmean(scores), "all_correct": fmean(score == 1 for score in scores)}
