"""Whether an evaluation of this kind can judge what is trained, and how much its questions can tell. No torch."""

import math
from collections import Counter
from collections.abc import Sequence

from slimtune.core.errors import SlimtuneError
from slimtune.core.findings import Finding, Level
from slimtune.core.units import plural
from slimtune.data.records import Conversation
from slimtune.data.text import normalised
from slimtune.evaluate import items
from slimtune.evaluate.judge import statistics
from slimtune.evaluate.kinds import permutations
from slimtune.evaluate.mismatch.differences import OF_ONE_STYLE, RARE, places
from slimtune.evaluate.mismatch.remedies import Setup
from slimtune.evaluate.mismatch.traits import ARGUED, CHOICE, LABEL, QUESTION, Traits
from slimtune.plan.lengths import Lengths
from slimtune.recipe.schema import EvaluateSection

_FEW_QUESTIONS = 30
# Of four choices, so many right answers are the same by chance once in 4⁹ files.
_CERTAIN = 10
_ROUND = 64
"""A limit of tokens is advised in steps of so many."""


def of(
    train: Sequence[Traits], test: Sequence[Traits], questions: Sequence[Conversation], setup: Setup, instead: str
) -> list[Finding]:
    """Findings on the kind, the mode and the questions. questions: all that are asked; test: a sample's traits.

    instead: the values that ask the rows of `data.eval`; "" where these do not suit the training rows either.
    """
    evaluate, found = setup.evaluate, _thoughts(train, setup)
    if evaluate is None or not questions:
        return found
    if evaluate.kind == "multiple_choice":
        found += [*_gold(questions, evaluate), *_answers(train, test, questions, setup, instead)]
    else:
        found += _labels(test, questions, evaluate)
    return found + _always(train, test, questions, evaluate) + _few(len(questions), setup.available, evaluate)


def cut_replies(
    references: Lengths, answers: Lengths | None, test: Sequence[Conversation], evaluate: EvaluateSection, length: int
) -> list[Finding]:
    """A warning where answers need more tokens than `evaluate.max_new_tokens` allows.

    references: of the rows of `test`. answers: of the training rows where each has one answer, else None. length: of the
    model's context. Where letters are read nothing is generated.
    """
    limit = evaluate.max_new_tokens
    if evaluate.kind == "perplexity" or evaluate.reads_letters or len(references.supervised) != len(test):
        return []
    longest = max((*references.supervised, *(answers.supervised if answers else ())), default=0)
    over = [row.where for row, size in zip(test, references.supervised, strict=True) if size > limit]
    trained = sum(size > limit for size in answers.supervised) if answers else 0
    if not over and (answers is None or trained < RARE * len(answers.supervised)):
        return []
    about = "" if references.exact else "about "
    parts = [f"{len(over)} of {plural(len(test), 'reference answer')} ({places(over)})"] if over else []
    parts += [f"{trained} of {plural(len(answers.supervised), 'training answer')}"] if answers and trained else []
    what = f"{' and '.join(parts)} have more than {limit} tokens, {about}{longest:,} at most: replies would be cut off"
    wanted = math.ceil((longest + 1) / _ROUND) * _ROUND
    fix = f"set evaluate.max_new_tokens: {wanted}"
    needed = max(references.prompts, default=0) + wanted
    if needed > length:
        fix += f" and model.max_seq_length: {math.ceil(needed / _ROUND) * _ROUND}"
    return [Finding("warning", what, fix, "evaluate.max_new_tokens", "replies-cut-off")]


def _thoughts(train: Sequence[Traits], setup: Setup) -> list[Finding]:
    """Thinking that is asked for and not trained."""
    if not setup.thinking or not train or any(row.reasoning for row in train):
        return []
    what = (
        f"model.thinking is on, and none of {plural(len(train), 'training answer')} has reasoning: the model learns to "
    )
    what += "answer without it"
    return [Finding("warning", what, "set model.thinking: false", "model.thinking", "no-reasoning")]


def _gold(questions: Sequence[Conversation], evaluate: EvaluateSection) -> list[Finding]:
    """One label that is nearly always right: a model that has collapsed into it looks good."""
    golds = Counter(str(row.meta.get("correct")) for row in questions)
    (label, count), n = golds.most_common(1)[0], len(questions)
    labels = min(len(row.meta["choices"]) for row in questions)
    # A collapse is told by its excess over gold; `permutations` shows each choice in several places.
    if count / n <= 1 - statistics.COLLAPSE_EXCESS or n < statistics.FEWEST_PAIRS or evaluate.permutations >= labels:
        return []
    what = f"'{label}' is the right answer to {count} of {plural(n, 'question')}: always answering it would look like "
    what += "knowledge"
    fix = "slimtune data build QUESTIONS --output FILE --mode direct --shuffle-choices 1 makes rows with other orders"
    if _in_prompts(questions):
        fix = f"set evaluate.permutations: {labels}"
    level: Level = "error" if count == n >= _CERTAIN else "warning"
    return [Finding(level, what, fix, "evaluate.data", "one-right-answer")]


def _always(
    train: Sequence[Traits], test: Sequence[Traits], questions: Sequence[Conversation], evaluate: EvaluateSection
) -> list[Finding]:
    """Training rows with one answer: the model learns to give it always, which the verdict would call collapsed."""
    if len(train) < statistics.FEWEST_PAIRS:
        return []
    said, count = Counter(row.said for row in train).most_common(1)[0]
    choices = evaluate.kind == "multiple_choice"
    right = [_plain(str(row.meta.get("correct"))) for row in questions] if choices else [row.said for row in test]
    share = count / len(train)
    if share < statistics.COLLAPSE_SHARE or share - right.count(said) / len(right) < statistics.COLLAPSE_EXCESS:
        return []
    what = f"{count} of {plural(len(train), 'training row')} answer '{said[:40]}' "
    what += f"({places([row.where for row in train if row.said == said])}), and {right.count(said)} of {len(right)} questions "
    what += "have that answer: the model would learn to give it always"
    fix = "train on rows with different answers"
    if train[0].asks == QUESTION:
        fix += ": slimtune data build QUESTIONS --output FILE --mode direct --shuffle-choices 3"
    return [Finding("warning", what, fix, "data.train", "one-trained-answer")]


def _in_prompts(questions: Sequence[Conversation]) -> bool:
    """Whether the choices of every question can be put into another order."""
    try:
        permutations.check(items.read(questions, "multiple_choice"))
    except SlimtuneError:
        return False
    return True


def _answers(
    train: Sequence[Traits], test: Sequence[Traits], questions: Sequence[Conversation], setup: Setup, instead: str
) -> list[Finding]:
    """Training answers that a multiple-choice evaluation of this mode does not read."""
    evaluate, n = setup.evaluate, len(train)
    assert evaluate is not None  # `of` asks only then
    counts = Counter(row.answer for row in train)
    direct = evaluate.mode == "direct"
    wanted, other, mode = (LABEL, ARGUED, "cot") if direct else (ARGUED, LABEL, "direct")
    if not n or counts[wanted] >= RARE * n:
        return _other_labels(train, questions) if counts[LABEL] else []
    if counts[other] >= n / 2:
        rows = [row.where for row in train if row.answer == other]
        how = "a letter at once" if direct else "an argument before the letter"
        what = f"evaluate.mode is {evaluate.mode}, which expects {how}, and {counts[other]} of "
        what += f"{plural(n, 'training row')} answer with {other} ({places(rows)})"
        fix = f"name questions of mode {mode} in evaluate.data (slimtune data build QUESTIONS --output FILE --mode {mode})"
        fix += f", and set evaluate.mode: {mode}"
        fix = instead or fix
        if setup.other_mode:
            fix = f"set evaluate.mode: {mode}" + ("" if evaluate.votes == 1 or not direct else " and evaluate.votes: 1")
        return [Finding("warning", what, fix, "evaluate.mode", "other-mode")]
    choices = [row for row in train if row.answer == CHOICE]
    if direct and len(choices) >= OF_ONE_STYLE * n:
        what = (
            f"the evaluation reads a letter, and {len(choices)} of {plural(n, 'training row')} answer with the text of "
        )
        what += f"a choice ({places([row.where for row in choices])})"
        fix = "write the label as the output of the training rows: "
        fix += "slimtune data build QUESTIONS --output FILE --mode direct"
        if sum(row.answer == CHOICE for row in test) >= OF_ONE_STYLE * len(test):
            fix = _generation(setup)
        level: Level = "error" if len(choices) == n else "warning"
        return [Finding(level, what, fix, "evaluate.kind", "answers-are-not-labels")]
    if Counter(row.asks for row in train)[QUESTION] < RARE * n:
        return []  # another task, which is told as such
    rows = [row.where for row in train if row.answer not in (LABEL, ARGUED)]
    what = f"the evaluation reads a letter, and {len(rows)} of {plural(n, 'training row')} answer otherwise "
    fix = "end the outputs with a line such as 「回答: c」 and set evaluate.mode: cot, or write the label alone"
    return [Finding("warning", f"{what}({places(rows)})", fix, "evaluate.kind", "answers-are-not-labels")]


def _generation(setup: Setup) -> str:
    """The values that compare replies with the references, in the room that there is."""
    assert setup.evaluate is not None  # `of` asks only then
    limit, room = setup.evaluate.max_new_tokens, setup.length // 4
    return "set evaluate.kind: generation" + (f" and evaluate.max_new_tokens: {room}" if limit > room else "")


def _other_labels(train: Sequence[Traits], questions: Sequence[Conversation]) -> list[Finding]:
    """Training answers 1, 2, 3 and questions with a, b, c."""
    asked = {_plain(label) for row in questions for label in row.meta["choices"]}
    trained = Counter(row.label for row in train if row.answer == LABEL)
    known = sum(count for label, count in trained.items() if _plain(label) in asked)
    if known >= RARE * trained.total():
        return []
    rows = [row.where for row in train if row.answer == LABEL]
    what = f"the training answers with the labels {', '.join(sorted(trained)[:6])} ({places(rows)}), and the questions "
    what += f"have {', '.join(sorted(asked)[:6])}"
    return [Finding("warning", what, "label the choices alike in both files", "evaluate.data", "other-labels")]


def _plain(label: str) -> str:
    return normalised(label, "NFKC").strip().casefold()


def _labels(test: Sequence[Traits], questions: Sequence[Conversation], evaluate: EvaluateSection) -> list[Finding]:
    """References that are letters, compared as texts; and references that are all the same."""
    letters = [row.where for row in test if row.answer == LABEL]
    if len(letters) >= OF_ONE_STYLE * len(test):
        measured = "how alike texts are" if evaluate.kind == "generation" else "how likely texts are"
        what = (
            f"{evaluate.kind} measures {measured}, and {len(letters)} of {plural(len(test), 'reference')} are labels "
        )
        what += f"of choices ({places(letters)})"
        direct = all(row.meta.get("mode") in ("direct", None) for row in questions)
        fix = 'add "meta": {"mode": "direct", "choices": {"a": …, "b": …}, "correct": "a"} to the rows, and set '
        fix += "evaluate.kind: multiple_choice"
        if all(row.asks == QUESTION for row in test) and not _faulty(questions) and direct:
            fix = "set evaluate.kind: multiple_choice"
        return [Finding("warning", what, fix, "evaluate.kind", "labels-as-text")]
    references = Counter(row.messages[-1].content.strip() for row in questions)
    (text, count), n = references.most_common(1)[0], len(questions)
    if evaluate.kind == "generation" and n >= statistics.FEWEST_PAIRS and count / n > 1 - statistics.COLLAPSE_EXCESS:
        rows = [row.where for row in questions if row.messages[-1].content.strip() == text]
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        what = f"'{' '.join(shown.split())}' is the reference of {count} of {plural(n, 'prompt')} ({places(rows)}): always "
        what += "replying so would look like knowledge"
        fix = "name prompts with different answers in evaluate.data"
        return [
            Finding("error" if count == n >= _CERTAIN else "warning", what, fix, "evaluate.data", "one-right-answer")
        ]
    return []


def _faulty(questions: Sequence[Conversation]) -> bool:
    try:
        items.read(questions, "multiple_choice")
    except SlimtuneError:
        return True
    return False


def _few(n: int, available: int, evaluate: EvaluateSection) -> list[Finding]:
    """Too few questions for a test to tell anything but a large difference."""
    least = statistics.FEWEST_PAIRS
    fix = f"name {_FEW_QUESTIONS} questions or more in evaluate.data"
    if available >= (_FEW_QUESTIONS if evaluate.kind == "multiple_choice" else least):
        fix = "set evaluate.max_items: null"
    if n < least:
        what = (
            f"with {plural(n, 'question')} no test can tell which model is better: it takes {least} that change in the "
        )
        return [Finding("warning", f"{what}same direction", fix, "evaluate.data", "few-questions")]
    if n >= _FEW_QUESTIONS or evaluate.kind != "multiple_choice":
        return []
    what = (
        f"with {plural(n, 'question')} the verdict confirms only large differences: {least} more right answers and no "
    )
    what += f"lost one at the least, {100 * least / n:.0f} points"
    return [Finding("warning", what, fix, "evaluate.data", "few-questions")]
