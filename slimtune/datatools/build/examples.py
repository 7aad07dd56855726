"""Solved questions for the prompt (few-shot)."""

import random
from collections import Counter
from collections.abc import Sequence

from slimtune.core.errors import fail
from slimtune.data.questions import Question
from slimtune.data.splitting import context_key


def choose(questions: Sequence[Question], count: int, *, seed: int) -> list[Question]:
    """`count` questions to solve in every prompt; they must then be left out of what is asked, or the answers leak.

    Their right labels are as different as can be, so that the examples prefer no position. Questions whose context is
    nobody else's come first: the others of a context would show what it says. Seeded, whatever the order of the rows.

    Raises SlimtuneError where too few questions would be left.
    """
    if count >= len(questions):
        what = f"{count} of {len(questions)} questions as examples leave none to ask"
        raise fail(what, where="--few-shot", fix=f"at most {max(len(questions) - 1, 0)}")
    contexts = Counter(context_key(question.context) for question in questions)

    def shared(question: Question) -> bool:
        key = context_key(question.context)
        return bool(key) and contexts[key] > 1

    candidates = sorted(questions, key=lambda one: one.id)
    random.Random(f"{seed}/examples").shuffle(candidates)
    candidates.sort(key=shared)
    chosen: list[Question] = []
    used: Counter[str] = Counter()
    while len(chosen) < count:
        # min takes the first of the least used, that is in the order of the candidates.
        best = min(candidates, key=lambda one: (shared(one), used[one.correct]))
        candidates.remove(best)
        used[best.correct] += 1
        chosen.append(best)
    return chosen
