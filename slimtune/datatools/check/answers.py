"""What a file answers: how often each label, whether one output is everywhere, whether outputs say what `meta` says."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

from slimtune.core.findings import Finding
from slimtune.data.records import Conversation, Mode
from slimtune.evaluate.replies.demand import demand
from slimtune.evaluate.replies.extract import extract, label_position
from slimtune.plan.explain import suggestions

MIN_ROWS = 20
# A label is too frequent if it exceeds its even share by this factor and by three standard errors: by chance, that
# happens in one of two hundred files with four labels.
_TIMES_ITS_SHARE, _STANDARD_ERRORS = 1.5, 3.0
# A sentence in every fifth output is canned, and so is a word in every second. If most outputs are words, they may be
# classes, one of them common.
_CONSTANT_SHARE, _CONSTANT_WORD_SHARE, _CONSTANT_CLASS_SHARE = 0.2, 0.5, 0.8
_OPENING_SHARE = 0.5
_OPENING, _LONGEST_LABEL, _LONGEST_WORD = 20, 4, 16
# Outputs that are labels by their looks alone are numbers otherwise: "7" in a file of sums.
_LABELS_SHARE = _WORDS_SHARE = 0.8
# Characters that are compared at either end of an output.
_COMPARED = 200
_ANY_LABEL = re.compile(r"(?<![A-Za-z0-9Ａ-Ｚａ-ｚ])[A-Ja-jＡ-Ｊａ-ｊ](?![A-Za-z0-9Ａ-Ｚａ-ｚ])")
_LABEL_MARK = "□"


@dataclass(slots=True)
class Frequent:
    """Texts that more than 1 in `kept` rows have, in bounded memory (Misra and Gries 1982).

    counts are too low by at most rows / kept.
    """

    kept: int = 64
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, text: str) -> None:
        if text in self.counts or len(self.counts) < self.kept:
            self.counts[text] += 1
            return
        self.counts = Counter({text: count - 1 for text, count in self.counts.items() if count > 1})


@dataclass(slots=True)
class AnswerCounts:
    """Counts of one file.

    modes: rows of each `meta.mode`, "none" without one. tasks: rows of each task. free: rows whose output is no label.
    """

    path: str
    rows: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    tasks: Counter[suggestions.Task] = field(default_factory=Counter)
    free: int = 0
    _right: Counter[str] = field(default_factory=Counter)
    _written: Counter[str] = field(default_factory=Counter)
    _choices: set[str] = field(default_factory=set)
    _outputs: Frequent = field(default_factory=Frequent)
    _openings: Frequent = field(default_factory=Frequent)
    _words: int = 0

    @property
    def labels(self) -> Counter[str]:
        """How many rows have each label as `meta.correct`, or as their output if most outputs are labels.

        Labels of choices that are never right count 0.
        """
        counts = Counter(dict.fromkeys(self._choices, 0))
        counts.update(self._right)
        if sum(self._written.values()) >= _LABELS_SHARE * (self.rows - sum(self._right.values())):
            counts.update(self._written)
        return counts

    def add(self, conversation: Conversation) -> list[Finding]:
        """Counts a row; returns what is odd about its answer."""
        self.rows += 1
        if conversation.messages[-1].tool_calls:
            return []
        output, meta = conversation.messages[-1].content, conversation.meta
        mode, correct, choices = meta.get("mode"), meta.get("correct"), meta.get("choices")
        self.modes[mode if isinstance(mode, str) else "none"] += 1
        self.tasks[suggestions.task_of(conversation)] += 1
        answer = output.strip()
        is_label = len(answer) <= _LONGEST_LABEL and label_position(answer.strip("()（）.。")) is not None
        if not is_label:
            self.free += 1
            self._words += len(answer) <= _LONGEST_WORD
            self._outputs.add(_without_labels(answer))
            self._openings.add(answer[:_OPENING])
        if not isinstance(correct, str) or not isinstance(choices, dict) or len(choices) < 2:
            if is_label:
                self._written[answer.lower()] += 1
            return []
        self._right[correct] += 1
        if correct not in choices or any(label_position(label) != place for place, label in enumerate(choices)):
            what = f"meta.correct is {correct!r}, and the labels of meta.choices are {', '.join(map(str, choices))}"
            fix = "label the choices a, b, c … in order, and write one of them as correct"
            return [Finding("warning", what, fix, conversation.where, "faulty-choices")]
        self._choices.update(choices)
        # The commonest answers by far, which need no reading.
        if answer in (correct, f"回答: {correct}") or output.endswith((f"\n回答: {correct}", f"\nAnswer: {correct}")):
            return []
        read_as = cast(Mode, "cot" if mode == "cot" else "direct")
        asks = demand(conversation.messages[-2].content) if len(conversation.messages) > 1 else ""
        read = extract(output, mode=read_as, labels=tuple(choices), asks=asks).answer
        if read == correct:
            return []
        if read is None:
            what = f"no answer can be read in the output; meta.correct is {correct!r}"
            fix = "end it with a line such as 「回答: c」, or write the label alone"
            return [Finding("warning", what, fix, conversation.where, "answer-unreadable")]
        what = f"the output answers {read!r}, meta.correct is {correct!r}"
        return [Finding("warning", what, "correct one of the two", conversation.where, "answer-differs-from-meta")]

    def findings(self) -> list[Finding]:
        """What is odd about the answers of the file as a whole."""
        return [*self._imbalance(), *(self._constant_output() or self._constant_opening())]

    def _imbalance(self) -> list[Finding]:
        labels = self.labels
        total, kinds = sum(labels.values()), len(labels)
        if total < MIN_ROWS or kinds < 2:
            return []
        label, count = labels.most_common(1)[0]
        even, share = 1 / kinds, count / total
        error = (even * (1 - even) / total) ** 0.5
        if share < _TIMES_ITS_SHARE * even or share <= even + _STANDARD_ERRORS * error:
            return []
        shares = ", ".join(f"{one} {number / total:.0%}" for one, number in sorted(labels.items()))
        what = f"the answer is {label!r} in {share:.0%} of {total:,} rows, where {even:.0%} would be even ({shares})"
        fix = "slimtune data build … --shuffle-choices N spreads the right answers over all labels"
        return [Finding("warning", what, fix, self.path, "label-imbalance")]

    def _constant_output(self) -> list[Finding]:
        if self.free < MIN_ROWS:
            return []
        word_share = _CONSTANT_CLASS_SHARE if self._words >= _WORDS_SHARE * self.free else _CONSTANT_WORD_SHARE
        for text, count in self._outputs.counts.most_common():
            least = word_share if len(text) <= _LONGEST_WORD else _CONSTANT_SHARE
            if count / self.free >= least:
                what = f"{self._most(count)} outputs are {_shown(text)}"
                fix = "keep fewer of them: a model first learns the answer that is always right"
                return [Finding("warning", what, fix, self.path, "near-constant-output")]
        return []

    def _constant_opening(self) -> list[Finding]:
        text, count = next(iter(self._openings.counts.most_common(1)), ("", 0))
        # An opening that is the whole of short outputs is a class.
        if self.free < MIN_ROWS or count / self.free < _OPENING_SHARE or len(text) < _OPENING:
            return []
        what = f"{self._most(count)} outputs begin with {text!r}"
        return [Finding("note", what, "fine if you meant them to", self.path, "same-opening")]

    def _most(self, count: int) -> str:
        """`Frequent` counts rather too few."""
        return f"all {count:,}" if count == self.free else f"at least {count / self.free:.0%} of the {self.free:,}"


def _without_labels(output: str) -> str:
    """Equal for outputs that differ in a label only: 「選択肢aが正しい。」 with another letter is the same canned sentence."""
    shortened = output if len(output) <= 2 * _COMPARED else f"{output[:_COMPARED]}…{output[-_COMPARED:]}"
    return _ANY_LABEL.sub(_LABEL_MARK, shortened)


def _shown(text: str) -> str:
    cut = text if len(text) <= 60 else f"{text[:60]}…"
    return f"{cut!r}, {_LABEL_MARK} being any label" if _LABEL_MARK in cut else repr(cut)
