"""Multiple choice: accuracy, whether a letter is read or an argued reply. Its items are questions."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from slimtune.core.errors import Problem
from slimtune.evaluate.judge import statistics
from slimtune.evaluate.judge.text import bounds, excerpt, p_value, percent
from slimtune.evaluate.kinds import choice_asking, choice_figures
from slimtune.evaluate.kinds.choice_figures import displayed, is_correct, labels_in, question_score, status, statuses
from slimtune.evaluate.kinds.kind import Answer, Answers, Change, Figures, Item, Kind, Settings, TableRow
from slimtune.evaluate.targets.target import Ability, Target

_TEXT_ANSWER_TOKENS = 16
"""For a direct answer that is read from text: a letter, and what a model may put around it."""
_TEXT_LENGTH = 1500


class MultipleChoice(Kind):
    """An answer has `gold` and `predicted` (None: no answer, counted as wrong), and what `choice_asking` records."""

    name = "multiple_choice"
    noun, unit, has_choices = "question", "points", True
    needed = ("gold", "predicted")
    same = ("gold", "different gold answers", "evaluate them on the same, complete file")
    test = "exact McNemar"
    score, score_name = "correct", ""
    most_apart = None
    metrics = (*choice_figures.METRICS, choice_figures.POSITION_BIAS)

    def check(self, item: Item) -> Problem | None:
        if not item.faults:
            return None
        what = "; ".join(what for what, _ in item.faults)
        return Problem(f"this is no multiple-choice question: {what}", item.where, item.faults[0][1])

    def ability(self, settings: Settings) -> Ability:
        return "score" if settings.mode == "direct" and settings.by == "letters" else "generate"

    def room(self, settings: Settings) -> int:
        if settings.mode == "cot":
            return settings.max_new_tokens
        return 1 if self.ability(settings) == "score" else _TEXT_ANSWER_TOKENS

    def ask(self, target: Target, batch: Sequence[Item], settings: Settings) -> list[Answer]:
        if self.ability(settings) == "score":
            return choice_asking.ask(target, batch, settings, None)
        how = settings.sampling(self.room(settings), replies=settings.votes, stop_at_answer=settings.mode == "cot")
        return choice_asking.ask(target, batch, settings, how)

    def fault(self, answer: Answer) -> str:
        if bool(answer.get("correct", is_correct(answer))) == is_correct(answer):
            return ""
        return f"marked correct={answer['correct']}, but gold is {answer['gold']} and predicted {answer['predicted']}"

    def frame(self, answers: Answers, labels: Sequence[str] | None) -> dict[str, Any]:
        """gold: how often each label is right as displayed, every order counted. majority: the label that is right most
        often in the file, and the accuracy (0 to 1) of always answering it.
        """
        labels = list(labels or labels_in(answers))
        shown = Counter(gold for answer in answers for gold, _ in displayed(answer))
        golds = Counter(answer["gold"] for answer in answers)
        majority = max(labels, key=lambda label: golds[label])
        return {
            "labels": labels,
            "gold": {label: shown[label] for label in labels},
            "majority": {"label": majority, "share": golds[majority] / len(answers)},
        }

    def figures(self, answers: Answers, labels: Sequence[str]) -> Figures:
        """accuracy, interval (Wilson, 95 %), correct, unanswered, statuses: of the predictions, one a question.

        histogram, recall: of the labels as they were displayed, each order counted. calibration: the table from which
        calibration_error is computed.
        """
        correct = sum(map(is_correct, answers))
        predicted = Counter(label for answer in answers for _, label in displayed(answer))
        counts, calibration = Counter(map(status, answers)), choice_figures.calibration(answers)
        return {
            "accuracy": correct / len(answers),
            "interval": list(statistics.wilson(correct, len(answers))),
            "correct": correct,
            "histogram": {label: predicted[label] for label in labels},
            "unanswered": sum(answer["predicted"] is None for answer in answers),
            "statuses": {name: counts[name] for name in choice_figures.STATUSES},
            "recall": choice_figures.recall(answers, labels),
            "permutations": choice_figures.permutations(answers),
            "calibration": calibration[1] if calibration else None,
        }

    def table(self, frame: dict[str, Any], sides: Sequence[Figures]) -> list[TableRow]:
        """Verdicts of older versions have no interval and no statuses."""
        order, n = frame["labels"], frame["n"]
        gold = " / ".join(str(frame["gold"][label]) for label in order)
        majority = f"{percent(frame['majority']['share'])} (always {frame['majority']['label']})"
        histograms = (" / ".join(str(side["histogram"][label]) for label in order) for side in sides)
        rows: list[TableRow] = [
            ("accuracy", *map(_accuracy, sides)),
            ("correct / n", *(f"{side['correct']} / {n}" for side in sides)),
            (f"answers {' / '.join(order)} (gold {gold})", *histograms),
        ]
        if any(side["unanswered"] for side in sides):
            each = (statuses(side) or "none" if "statuses" in side else str(side["unanswered"]) for side in sides)
            rows.append(("no answer", *each))
        rows += [("majority baseline", *(majority for _ in sides)), *self.metric_rows(sides, choice_figures.METRICS)]
        if permutations := sides[-1].get("permutations"):
            rows.append((f"right in all {permutations['count']} orders (mean)", *map(_in_all_orders, sides)))
            rows += self.metric_rows(sides, [choice_figures.POSITION_BIAS])
        return rows

    def share(self, figures: Figures) -> tuple[str, float, list[float]] | None:
        return "Accuracy", figures["accuracy"], figures["interval"]

    def change(self, reference: Answers, contender: Answers) -> Change:
        """In points; of the mean over the orders of the choices, where those of both are known.

        An ensemble has combined its members' orders and shows none: then its answer counts, and only the other's answer.
        """
        pairs = list(zip(reference, contender, strict=True))
        score = question_score if all(row.get("permutations") for pair in pairs for row in pair) else is_correct
        right = [(is_correct(one), is_correct(other)) for one, other in pairs]
        return Change([100.0 * (score(other) - score(one)) for one, other in pairs], right=right)

    def judged(self, base: Answers, tuned: Answers, result: dict[str, Any]) -> dict[str, Any]:
        return {"collapse": _collapse(result)}

    def failure(self, result: dict[str, Any]) -> tuple[str, str]:
        tuned, n = result["tuned"], result["n"]
        if result["collapse"]["collapsed"]:
            label = result["collapse"]["label"]
            asked = "permuted questions" if tuned["permutations"] else "questions"
            gold = result["gold"][label]
            return "collapsed", f'"{label}" is the answer to {_times(tuned, label, n)} {asked} (gold: {gold}); accuracy'
        mass = tuned["label_mass"]
        if mass is not None and mass < statistics.LOW_LABEL_MASS:
            what = f"only {percent(mass)} of the tuned model's probability is on the labels; by the letters alone"
            return "format failure", what
        if tuned["statuses"]["answered"] < statistics.LOW_ANSWERED * n:
            what = f"{n - tuned['statuses']['answered']} of {n} questions got no answer ({statuses(tuned)})"
            return "format failure", f"{what}; with these counted as wrong, accuracy"
        return "", ""

    def shown(self, figures: dict[str, Any], side: str = "") -> str:
        return percent(figures[f"{side}_correct"] / figures["n"] if side else figures["accuracy"])

    def evidence(self, result: dict[str, Any]) -> list[str]:
        both = [result[side]["permutations"] for side in ("base", "tuned")]
        orders = [f"mean over {both[1]['count']} orders of the choices"] if all(both) else []
        return [*orders, f"majority baseline {percent(result['majority']['share'])}"]

    def caveats(self, result: dict[str, Any]) -> list[str]:
        n, base, tuned, majority = result["n"], result["base"], result["tuned"], result["majority"]
        said = []
        if result["collapse"]["collapsed"]:
            if result["collapse"]["base_share"] >= statistics.COLLAPSE_SHARE:
                label = result["collapse"]["label"]
                said.append(f'the base model also answers "{label}" to {_times(base, label, n)}')
        elif result["verdict"] != "worse" and tuned["accuracy"] <= majority["share"]:
            said.append(f'no better than always answering "{majority["label"]}"')
        said += _leaning(result)
        if tuned["unanswered"] and result["verdict"] != "format failure":
            said.append(f"{tuned['unanswered']} of {n} questions got no answer ({statuses(tuned)}), counted as wrong")
        if base["unanswered"]:
            said.append(f"the base model left {base['unanswered']} of {n} unanswered ({statuses(base)})")
        if (part := result["both_answered"]) and result["verdict"] in ("better", "worse"):
            change = f"{self.shown(part, 'base')} → {self.shown(part, 'tuned')}"
            said.append(f"on the {part['n']} that both answered: {change} ({self.test} {p_value(part['p_value'])})")
        mass = base["label_mass"]
        if mass is not None and mass < statistics.LOW_LABEL_MASS and result["verdict"] == "better":
            what = f"only {percent(mass)} of the base model's probability is on the labels"
            said.append(f"{what}, so part of the difference may be the form of the answer")
        return said

    def spread(self, answers: Answers) -> float:
        return float(len(set(map(is_correct, answers))) - 1)

    def told(self, answer: Answer) -> dict[str, Any]:
        shares = statistics.probabilities(answer.get("logprobs")) or {}
        text = {"text": excerpt(answer["text"], _TEXT_LENGTH)} if answer.get("text") else {}
        return {
            **text,
            "predicted": answer["predicted"],
            "correct": is_correct(answer),
            "status": status(answer),
            "probability": shares.get(answer["predicted"]),
        }

    def in_a_word(self, told: dict[str, Any]) -> str:
        if told["predicted"] is None:
            return str(told["status"])
        share = told.get("probability")
        return str(told["predicted"]) if share is None else f"{told['predicted']} {percent(share)}"

    def apart(self, count: int, n: int) -> str:
        return f"{count} of {n} questions are right for some and wrong for others"


def _collapse(result: dict[str, Any]) -> dict[str, Any]:
    """The tuned model's commonest answer, its shares, whether that is a collapse, and both models' distances from gold.

    Shares are of the answers that were given. One question's orders are not independent of each other, so the test
    counts a question once. `base_distance` and `tuned_distance` are total variation between answers and gold.
    """
    base, tuned, gold = result["base"]["histogram"], result["tuned"]["histogram"], result["gold"]
    label = max(result["labels"], key=lambda one: tuned[one])
    share, base_share, gold_share = (counts[label] / (sum(counts.values()) or 1) for counts in (tuned, base, gold))
    answered = result["n"] - result["tuned"]["unanswered"]
    by_chance = statistics.exceeds_by_chance(round(share * answered), answered, gold_share) if answered else 1.0
    return {
        "label": label,
        "share": share,
        "gold_share": gold_share,
        "base_share": base_share,
        "base_distance": statistics.total_variation(base, gold),
        "tuned_distance": statistics.total_variation(tuned, gold),
        "p_value": by_chance,
        "collapsed": share >= statistics.COLLAPSE_SHARE
        and share - gold_share >= statistics.COLLAPSE_EXCESS
        and answered >= statistics.LOW_ANSWERED * result["n"]
        and by_chance < result["alpha"],
    }


def _leaning(result: dict[str, Any]) -> list[str]:
    """Labels that the tuned model prefers more than gold and base do, short of a collapse."""
    found = result["collapse"]
    if found["collapsed"] or found["p_value"] >= result["alpha"]:
        return []
    excess = found["share"] - found["gold_share"]
    if found["share"] >= statistics.LEANING_SHARE and excess >= statistics.COLLAPSE_EXCESS:
        return [
            f'it answers "{found["label"]}" to {percent(found["share"])} of the questions; gold has '
            f"{percent(found['gold_share'])}, the base model {percent(found['base_share'])}"
        ]
    if found["tuned_distance"] - found["base_distance"] >= statistics.LEANING_DISTANCE:
        return [
            f"{percent(found['tuned_distance'])} of its answers would have to change to be spread over the labels like "
            f"gold, and {percent(found['base_distance'])} of the base model's"
        ]
    return []


def _accuracy(side: Figures) -> str:
    return percent(side["accuracy"]) + (f" ({bounds(side['interval'])})" if "interval" in side else "")


def _in_all_orders(side: Figures) -> str:
    found = side.get("permutations")
    return f"{percent(found['all_correct'])} ({percent(found['mean_accuracy'])})" if found else "–"


def _times(side: Figures, label: str, n: int) -> str:
    """ "115 of 120": how often a label was given, of all times that it could have been."""
    orders = side["permutations"]["count"] if side["permutations"] else 1
    return f"{side['histogram'][label]} of {n * orders}"
