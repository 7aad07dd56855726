"""What multiple-choice answers tell: which are right, in which order of the choices, and how sure the model was."""

from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import Any

from slimtune.evaluate.judge import statistics
from slimtune.evaluate.judge.text import percent
from slimtune.evaluate.kinds.kind import Answer, Answers, Figures, Metric

STATUSES = ("answered", "unknown", "ambiguous", "truncated", "error")


def is_correct(answer: Answer) -> bool:
    return bool(answer["predicted"] == answer["gold"])


def status(answer: Answer) -> str:
    """How a question was answered; answers of older versions tell only whether it was."""
    return str(answer.get("status") or ("unknown" if answer["predicted"] is None else "answered"))


def statuses(side: Figures) -> str:
    """How replies without an answer ended: "3 unknown, 2 truncated"; "" if all were answered."""
    return ", ".join(f"{number} {name}" for name, number in side["statuses"].items() if number and name != "answered")


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


def recall(answers: Answers, labels: Sequence[str]) -> dict[str, float | None]:
    return statistics.recall([pair for answer in answers for pair in displayed(answer)], labels)


def position_bias(answers: Answers) -> float | None:
    """Standard deviation of the labels' recalls, as they were displayed; see `statistics.position_bias`."""
    return statistics.position_bias(recall(answers, labels_in(answers)))


def brier(answers: Answers) -> float | None:
    """Mean Brier score of the probabilities renormalised over the labels."""
    known = _with_probabilities(answers)
    return fmean(statistics.brier(shares, answer["gold"]) for answer, shares in known) if known else None


def calibration_error(answers: Answers) -> float | None:
    """Expected calibration error; the confidence is the highest renormalised probability."""
    found = calibration(answers)
    return found[0] if found else None


def _mean_of(key: str, answers: Answers) -> float | None:
    values = [float(answer[key]) for answer in answers if answer.get(key) is not None]
    return fmean(values) if values else None


def _with_probabilities(answers: Answers) -> list[tuple[Answer, dict[str, float]]]:
    return [(answer, shares) for answer in answers if (shares := statistics.probabilities(answer.get("logprobs")))]


def calibration(answers: Answers) -> tuple[float, list[dict[str, Any]]] | None:
    """See `statistics.calibration`."""
    known = _with_probabilities(answers)
    if not known:
        return None
    confidences = [max(shares.values()) for _, shares in known]
    return statistics.calibration(confidences, [is_correct(answer) for answer, _ in known])


def permutations(answers: Answers) -> dict[str, Any] | None:
    """How many orders of the choices were asked, the mean accuracy over them, and the share right in all of them."""
    count = max(len(answer.get("permutations") or ()) for answer in answers)
    if not count:
        return None
    scores = [question_score(answer) for answer in answers]
    return {"count": count, "mean_accuracy": fmean(scores), "all_correct": fmean(score == 1 for score in scores)}


METRICS = (
    # The probability on the labels together.
    Metric("label_mass", "label mass", partial(_mean_of, "label_mass"), percent),
    # Whether the likeliest label is also what the model would write.
    Metric("greedy_agreement", "agrees with greedy text", partial(_mean_of, "greedy_agrees"), percent),
    Metric("brier", "Brier score", brier, "{:.3f}".format),
    Metric("calibration_error", "calibration error", calibration_error, percent),
)
# Shown where the choices were asked in several orders.
POSITION_BIAS = Metric("position_bias", "position bias", position_bias, percent)
