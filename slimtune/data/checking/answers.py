"""What a file answers: how often each label, whether one output is everywhere, whether outputs say what `meta` says."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import cast

from slimtune.data.checking.findings import Finding
from slimtune.data.types import Conversation
from slimtune.evaluate.extract import extract, label_position
from slimtune.evaluate.items import Mode

MIN_ROWS = 20
# A label is too frequent if it is so much more frequent than the others together would make it, and chance is no reason:
# four standard errors happen once in 30,000 files.
_TIMES_ITS_SHARE, _STANDARD_ERRORS = 1.5, 4.0
_CONSTANT_SHARE, _OPENING_SHARE = 0.2, 0.5
_OPENING = 20
_LONGEST_LABEL = 4


@dataclass(slots=True)
class Frequent:
    """The texts that more than 1 in `kept` rows have, by the algorithm of Misra and Gries (1982): bounded memory.

    counts are at most rows / kept too low.
    """

    kept: int = 64
    counts: Counter[str] = field(default_factory=Counter)
    lost: int = 0

    def add(self, text: str) -> None:
        if text in self.counts or len(self.counts) < self.kept:
            self.counts[text] += 1
            return
        self.lost += 1
        self.counts = Counter({text: count - 1 for text, count in self.counts.items() if count > 1})


@dataclass(slots=True)
class Answers:
    """Counts of one file. labels: of the right labels (`meta.correct`), or of outputs that are nothing but a label."""

    path: str
    rows: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    most_choices: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    outputs: Frequent = field(default_factory=Frequent)
    openings: Frequent = field(default_factory=Frequent)
    free: int = 0

    def add(self, conversation: Conversation) -> list[Finding]:
        """Counts a row; returns what is odd about its answer."""
        self.rows += 1
        output, meta = conversation.messages[-1].content, conversation.meta
        mode, correct, choices = meta.get("mode"), meta.get("correct"), meta.get("choices")
        self.modes[mode if isinstance(mode, str) else "none"] += 1
        answer = output.strip()
        is_label = len(answer) <= _LONGEST_LABEL and label_position(answer.strip("()（）.。")) is not None
        if not is_label:
            self.free += 1
            self.outputs.add(answer[:200])
            self.openings.add(answer[:_OPENING])
        if not isinstance(correct, str) or not isinstance(choices, dict) or len(choices) < 2:
            if is_label:
                self.labels[answer.lower()] += 1
            return []
        self.labels[correct] += 1
        self.most_choices = max(self.most_choices, len(choices))
        if correct not in choices or any(label_position(label) != place for place, label in enumerate(choices)):
            what = f"meta.correct is {correct!r}, and the labels of meta.choices are {', '.join(map(str, choices))}"
            fix = "label the choices a, b, c … in order, and write one of them as correct"
            return [Finding("warning", "faulty-choices", what, conversation.where, fix)]
        # The commonest answers by far, which need no reading.
        if answer in (correct, f"回答: {correct}") or output.endswith((f"\n回答: {correct}", f"\nAnswer: {correct}")):
            return []
        read = extract(output, mode=cast(Mode, "cot" if mode == "cot" else "direct"), labels=tuple(choices)).answer
        if read == correct:
            return []
        if read is None:
            what = f"no answer can be read in the output; meta.correct is {correct!r}"
            fix = "end it with a line such as 「回答: c」, or write the label alone"
            return [Finding("warning", "answer-unreadable", what, conversation.where, fix)]
        what = f"the output answers {read!r}, meta.correct is {correct!r}"
        return [Finding("warning", "answer-differs-from-meta", what, conversation.where, "correct one of the two")]

    def findings(self) -> list[Finding]:
        """What is odd about the answers of the file as a whole."""
        found: list[Finding] = []
        total = sum(self.labels.values())
        kinds = max(self.most_choices, len(self.labels))
        if total >= MIN_ROWS and kinds >= 2:
            label, count = self.labels.most_common(1)[0]
            even, share = 1 / kinds, count / total
            error = (even * (1 - even) / total) ** 0.5
            if share >= _TIMES_ITS_SHARE * even and share > even + _STANDARD_ERRORS * error:
                what = f"the answer is {label!r} in {share:.0%} of {total:,} rows, where {even:.0%} would be even"
                fix = "python -m slimtune.cli data build … --shuffle-choices puts right answers in every place"
                found.append(Finding("warning", "label-imbalance", what, self.path, fix))
        if self.free < MIN_ROWS:
            return found
        found += self._constant(self.outputs, "warning", "near-constant-output", _CONSTANT_SHARE, "are")
        if not found:
            found += self._constant(self.openings, "note", "same-opening", _OPENING_SHARE, "begin with")
        return found

    def _constant(self, frequent: Frequent, level: str, code: str, least: float, verb: str) -> list[Finding]:
        if not frequent.counts:
            return []
        text, count = frequent.counts.most_common(1)[0]
        if count / self.free < least:
            return []
        what = f"at least {count / self.free:.0%} of the {self.free:,} outputs {verb} {text[:40]!r}"
        fix = (
            "a model learns this before anything else: keep fewer of them" if level == "warning" else "fine if meant so"
        )
        return [Finding("warning" if level == "warning" else "note", code, what, self.path, fix)]
