"""The figures of one model, from its result rows: what the verdict, the report and comparisons show of it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from slimtune.core.errors import fail
from slimtune.evaluate.judge import statistics

STATUSES = ("answered", "unknown", "ambiguous", "truncated", "error")
# Without spaces between its words, a text is compared character by character.
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f]")
_EXCERPT = 200

Rows = Sequence[dict[str, Any]]


def measure(rows: Rows, *, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """`kind`, `n` and the figures of a model's rows; of multiple choice, which rows without `kind` are, its key too.

    labels: the possible answers in their order; by default all that occur. Raises SlimtuneError if there are no rows.
    """
    if not rows:
        raise fail("no items to measure", fix="evaluate the model on the test questions first")
    kind = rows[0].get("kind", "multiple_choice")
    frame = {"kind": kind, "n": len(rows)}
    if kind == "perplexity":
        return {**frame, **perplexity(rows)}
    if kind == "generation":
        return {**frame, **generation(rows)}
    order = list(labels or labels_in(rows))
    return {**frame, **answer_key(rows, order), **multiple_choice(rows, order)}


def answer_key(rows: Rows, labels: Sequence[str]) -> dict[str, Any]:
    """What the questions themselves say: labels, how often each is right as displayed, and the majority baseline.

    gold: label → count, each permutation counted as in the histograms. majority: the label that is right most often in
    the file, and the accuracy (0 to 1) of who always answers it.
    """
    shown = Counter(gold for row in rows for gold, _ in displayed(row))
    golds = Counter(row["gold"] for row in rows)
    majority = max(labels, key=lambda label: golds[label])
    return {
        "labels": list(labels),
        "gold": {label: shown[label] for label in labels},
        "majority": {"label": majority, "share": golds[majority] / len(rows)},
    }


def multiple_choice(rows: Rows, labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy and how it comes about; shares are 0 to 1, and what the rows do not tell is None.

    rows: `gold` and `predicted` (None: no answer, counted as wrong); optionally `status`, `logprobs`, `label_mass`,
        `greedy_agrees` and `permutations`. labels: the order of the histogram.

    accuracy, interval (Wilson, 95 %), correct, unanswered, statuses: of the rows' own predictions, one a question.
    histogram, recall, position_bias: of the labels as they were displayed, each permutation counted.
    permutations: how many orders of the choices were asked, the mean accuracy over them, and the share of questions
        that are right in all of them.
    label_mass, greedy_agreement: means. brier, calibration_error, calibration: of the probabilities renormalised over
        the labels, the confidence being the highest of them; see `statistics`.
    """
    correct = sum(is_correct(row) for row in rows)
    answers = [answer for row in rows for answer in displayed(row)]
    predicted = Counter(label for _, label in answers)
    recalls = statistics.recall(answers, labels)
    counts = Counter(status(row) for row in rows)
    return {
        "accuracy": correct / len(rows),
        "interval": list(statistics.wilson(correct, len(rows))),
        "correct": correct,
        "histogram": {label: predicted[label] for label in labels},
        "unanswered": sum(row["predicted"] is None for row in rows),
        "statuses": {name: counts[name] for name in STATUSES},
        "label_mass": _mean_of(rows, "label_mass"),
        "greedy_agreement": _mean_of(rows, "greedy_agrees"),
        **_calibration(rows),
        "recall": recalls,
        "position_bias": statistics.position_bias(recalls),
        "permutations": _permutations(rows),
    }


def perplexity(rows: Rows) -> dict[str, Any]:
    """Perplexity exp(Σ nll / Σ tokens), weighted by tokens: a long text counts for more than a short one.

    rows: `nll` in nats, summed over the text's `tokens`.
    """
    nll, tokens = math.fsum(row["nll"] for row in rows), sum(row["tokens"] for row in rows)
    return {"perplexity": math.exp(nll / tokens), "nats_per_token": nll / tokens, "nll": nll, "tokens": tokens}


def generation(rows: Rows) -> dict[str, Any]:
    """How close replies come to their references.

    rows: `text`, `reference`, `chrf` (0 to 100) and optionally `exact` and `status`.

    exact, exact_interval, correct: share of replies that match, its Wilson interval (95 %), and their number.
    chrf: mean over the replies. corpus_chrf, bleu: over all texts together, by sacrebleu, whose settings are in
        chrf_signature and bleu_signature; BLEU counts characters where references are Chinese, Japanese or Korean.
    statuses, empty, unusable: replies by status; those that ended without a word; all that are cut off, empty or
        missing. commonest: the reply that is given most often, empty ones aside, with its count and share.
    """
    exact = sum(bool(row.get("exact")) for row in rows)
    counts = Counter(row.get("status") or "answered" for row in rows)
    empty = sum((row.get("status") or "answered") == "answered" and not row["text"].strip() for row in rows)
    return {
        "exact": exact / len(rows),
        "exact_interval": list(statistics.wilson(exact, len(rows))),
        "correct": exact,
        "chrf": fmean(row["chrf"] for row in rows),
        **_corpus_scores(rows),
        "statuses": {name: counts[name] for name in ("answered", "truncated", "error")},
        "empty": empty,
        "unusable": counts["truncated"] + counts["error"] + empty,
        "commonest": commonest([row["text"] for row in rows]),
    }


def labels_in(rows: Rows) -> list[str]:
    """All labels that occur: in the order of the questions where rows tell it, then by name."""
    told = dict.fromkeys(label for row in rows for label in row.get("labels") or ())
    seen: set[str | None] = {None}
    for row in rows:
        seen.update((row["gold"], row["predicted"]), row.get("logprobs") or (), *displayed(row))
    return [*told, *sorted(label for label in seen if label is not None and label not in told)]


def is_correct(row: dict[str, Any]) -> bool:
    return bool(row["predicted"] == row["gold"])


def status(row: dict[str, Any]) -> str:
    """How a question was answered; rows of older versions tell only whether it was."""
    return str(row.get("status") or ("unknown" if row["predicted"] is None else "answered"))


def displayed(row: dict[str, Any]) -> list[tuple[str, str | None]]:
    """(gold, predicted) in the labels that the model saw: one pair for each order of the choices that was asked."""
    orders = row.get("permutations") or [row]
    return [(order["gold"], order["predicted"]) for order in orders]


def question_score(row: dict[str, Any]) -> float:
    """1 for a right answer, 0 for a wrong one; the mean over the orders of the choices where several were asked."""
    return fmean(gold == predicted for gold, predicted in displayed(row))


def commonest(texts: Sequence[str]) -> dict[str, Any]:
    """The text that occurs most often, empty ones aside: an excerpt, its count and its share of all."""
    counts = Counter(text.strip() for text in texts if text.strip())
    text, count = counts.most_common(1)[0] if counts else ("", 0)
    return {"text": text[:_EXCERPT], "count": count, "share": count / len(texts)}


def _mean_of(rows: Rows, key: str) -> float | None:
    values = [float(row[key]) for row in rows if row.get(key) is not None]
    return fmean(values) if values else None


def _calibration(rows: Rows) -> dict[str, Any]:
    known = [(row, shares) for row in rows if (shares := statistics.probabilities(row.get("logprobs")))]
    if not known:
        return {"brier": None, "calibration_error": None, "calibration": None}
    error, table = statistics.calibration(
        [max(shares.values()) for _, shares in known], [is_correct(row) for row, _ in known]
    )
    score = fmean(statistics.brier(shares, row["gold"]) for row, shares in known)
    return {"brier": score, "calibration_error": error, "calibration": table}


def _permutations(rows: Rows) -> dict[str, Any] | None:
    count = max(len(row.get("permutations") or ()) for row in rows)
    if not count:
        return None
    scores = [question_score(row) for row in rows]
    return {"count": count, "mean_accuracy": fmean(scores), "all_correct": fmean(score == 1 for score in scores)}


def _corpus_scores(rows: Rows) -> dict[str, Any]:
    from sacrebleu.metrics import BLEU, CHRF

    texts, references = [row["text"] for row in rows], [row["reference"] for row in rows]
    bleu = BLEU(tokenize="char" if any(map(_CJK.search, references)) else "13a", force=True)
    chrf = CHRF()
    return {
        "corpus_chrf": chrf.corpus_score(texts, [references]).score,
        "chrf_signature": str(chrf.get_signature()),
        "bleu": bleu.corpus_score(texts, [references]).score,
        "bleu_signature": str(bleu.get_signature()),
    }
