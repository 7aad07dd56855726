"""Whether a recipe's evaluation can judge its training data: the same for `plan`, `train` and `data check`. No torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from slimtune.core.errors import Gathered, Problem, SlimtuneError
from slimtune.core.findings import Finding, refused
from slimtune.data import loading
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.loading import Loaded
from slimtune.data.records import Conversation
from slimtune.evaluate import items, mismatch
from slimtune.evaluate.mismatch import Setup
from slimtune.plan import lengths
from slimtune.plan.lengths import Lengths
from slimtune.recipe.schema import EvaluateSection, Recipe
from slimtune.train import methods


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What training rows are compared with. test: the questions that are asked; held_out: the rows of `data.eval`."""

    setup: Setup
    test: Sequence[Conversation] = ()
    held_out: Sequence[Conversation] = ()


def setup_of(recipe: Recipe, whole: Loaded | None = None, asked: Loaded | None = None) -> Setup:
    """whole, asked: the evaluation file, and its rows of the mode that is asked."""
    return Setup(
        evaluate=recipe.evaluate,
        train=tuple(source.path for source in recipe.data.train),
        thinking=recipe.model.thinking,
        held_out=recipe.data.eval,
        length=recipe.model.max_seq_length,
        other_mode=bool(whole and asked and len(whole.conversations) > len(asked.conversations)),
        available=len(asked.conversations) if asked else 0,
    )


def _read(recipe: Recipe) -> Evaluated:
    """What the training rows are compared with. Raises SlimtuneError for files that cannot be read or asked."""
    evaluate, data, found = recipe.evaluate, recipe.data, Gathered()
    given: dict[str, Any] = {"system": data.system, "format": data.format, "seed": recipe.run.seed}
    method = methods.find(recipe.train.method)
    whole = asked = None
    test: Sequence[Conversation] = ()
    held_out: list[Conversation] = []
    if evaluate:
        with found:
            whole = loading.load_conversations([(evaluate.data, 1.0)], **given)
            asked = items.of_mode(whole, evaluate.kind, evaluate.mode)
            test = items.first(asked.conversations, evaluate.max_items, evaluate.data)
            items.read(test, evaluate.kind, permutations=evaluate.permutations)
    if data.eval:
        with found:
            records = method.read([(data.eval, 1.0)], mode=data.mode, **given).conversations
            held_out = [method.as_conversation(record) for record in records]
    found.require_none()
    return Evaluated(setup_of(recipe, whole, asked), test, held_out)


def judge_of(
    recipe: Recipe, tokenizer: ChatTokenizer | None, *, known: Sequence[Finding] = ()
) -> Callable[[Sequence[Conversation]], list[Finding]]:
    """The function that `data check` calls with training rows: what the recipe's evaluation finds odd about them.

    tokenizer: None estimates lengths. known: findings on the same files, which are not told twice.
    """
    try:
        compared = _read(recipe)
    except SlimtuneError as error:
        told = {(one.where, one.what) for one in known}
        unread = [refused(one, "evaluation-file") for one in error.problems if (one.where, one.what) not in told]
        return lambda rows: unread

    def lengths_of(rows: Sequence[Conversation]) -> Lengths:
        return lengths.of(tokenizer.examples_of(rows)) if tokenizer else lengths.estimate(rows)

    def judge(rows: Sequence[Conversation]) -> list[Finding]:
        found = find(rows, compared)
        if recipe.evaluate is not None:
            try:
                references, answers = lengths_of(compared.test), lengths_of(rows)
            except SlimtuneError as error:
                return [*found, *(refused(one, "not-rendered") for one in error.problems if not _in(one, rows))]
            limits = (recipe.evaluate, recipe.model.max_seq_length)
            found += cut_replies(references, answers, rows, compared.test, *limits)
        return found

    return judge


def _in(problem: Problem, rows: Sequence[Conversation]) -> bool:
    """Whether a problem is one of these rows', for which it is told already."""
    return problem.where in {row.where for row in rows}


def require_none_wrong(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The warnings among the findings. Raises SlimtuneError with those that make every verdict meaningless."""
    wrong = [Problem(one.what, one.where, one.fix) for one in findings if one.level == "error"]
    if wrong:
        raise SlimtuneError(wrong, summary="The evaluation cannot judge this training data")
    return tuple(findings)


def sentence(finding: Finding) -> str:
    """A finding as a plan's note."""
    return f"{finding.where}: {finding.what}. {finding.fix[:1].upper()}{finding.fix[1:]}."


def find(train: Sequence[Conversation], compared: Evaluated) -> list[Finding]:
    """As `mismatch.find`."""
    return mismatch.find(train, compared.test, compared.held_out, compared.setup)


def cut_replies(
    references: Lengths,
    answers: Lengths,
    train: Sequence[Conversation],
    test: Sequence[Conversation],
    evaluate: EvaluateSection,
    length: int,
) -> list[Finding]:
    """As `mismatch.cut_replies`. references, answers: lengths of `test` and `train`; of a conversation with several
    answers they are of all together, so that these are not counted."""
    single = len(answers.supervised) == len(train) and not any(_turns(row) > 1 for row in train)
    if any(_turns(row) > 1 for row in test):
        return []
    return mismatch.cut_replies(references, answers if single else None, test, evaluate, length)


def _turns(row: Conversation) -> int:
    return sum(message.role == "assistant" for message in row.messages)
