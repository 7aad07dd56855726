"""Questions to the rows of one training file: choices shuffled, reasoning, passages and solved examples put in place."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from slimtune.core.errors import Problem, bad_data, fail
from slimtune.core.progress import Advance, ignore
from slimtune.core.units import plural
from slimtune.data.questions import Question
from slimtune.data.records import Mode
from slimtune.datatools.build import arguments, prompts, shuffling
from slimtune.datatools.build.prompts import Language
from slimtune.datatools.build.teacher import Taught
from slimtune.datatools.retrieval import gold
from slimtune.datatools.retrieval.corpus import Passage
from slimtune.datatools.retrieval.index import Hit, PassageIndex, recall

Context = Literal["none", "gold", "retrieved"]
Reasoning = Literal["column", "template", "teacher"]

_RECALL_AT = (1, 3, 5)


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What the rows should be.

    mode: `direct` answers with the label, `cot` reasons first. context: the text before the question. top_k: retrieved
    passages per prompt. ensure_gold: add a missed gold context as the last passage. few_shot: solved examples per
    prompt. shuffle_choices: copies of each question with the choices in another order.
    """

    mode: Mode = "direct"
    context: Context = "none"
    top_k: int = 3
    ensure_gold: bool = False
    few_shot: int = 0
    shuffle_choices: int = 0
    language: Language = "ja"
    reasoning: Reasoning = "column"
    seed: int = 42


@dataclass(frozen=True, slots=True)
class Built:
    """rows: {"input", "output", "meta"}. recall: share of questions whose gold context is among the first k, by k.

    without_gold: prompts with passages of which none is the gold context. notes: what differs from a row a question.
    """

    rows: list[dict[str, Any]]
    recall: dict[int, float]
    without_gold: int
    notes: tuple[str, ...]


def build(
    questions: Sequence[Question],
    wish: BuildSettings,
    *,
    index: PassageIndex | None = None,
    teach: Callable[[Sequence[Question]], Taught] | None = None,
    on_progress: Advance = ignore,
) -> Built:
    """The rows in the order of the questions, each followed by its copies. The same wish gives the same rows.

    index: the passages, for context `retrieved`. teach: for reasoning `teacher`. `meta` has what `prompts.row` gives
    and, if they apply, passages (ids), origin (id of the shuffled question), few_shot (ids), language ("en") and
    reasoning. on_progress: questions, once each for reasoning, searching and writing. Raises SlimtuneError with every
    question that lacks the required context or reasoning.
    """
    _refuse_incomplete(questions, wish)
    notes: list[str] = []
    keep_reasoning = wish.mode == "cot" and wish.reasoning == "column"
    shuffled = shuffling.shuffle(questions, wish.shuffle_choices, seed=wish.seed, keep_reasoning=keep_reasoning)
    asked, origins, reasoning = shuffled.questions, shuffled.origins, ""
    if shuffled.fixed:
        count = plural(len(shuffled.fixed), "question")
        notes.append(f"{count} not shuffled: their texts name choices by their places")
    if wish.mode == "cot":
        asked, reasoning = _with_reasoning(asked, wish, teach, notes, on_progress)
    solved: list[Question] = []
    if wish.few_shot:
        solved = choose_examples([one for one in asked if one.id not in origins], wish.few_shot, seed=wish.seed)
        left_out = [one.id for one in solved]
        asked = [one for one in asked if origins.get(one.id, one.id) not in left_out]
        count = plural(len(solved), "question")
        notes.append(f"{count} left out, as they are the examples: {', '.join(left_out)}")
    hits = _retrieve(asked, wish, index, on_progress)
    measured: dict[int, float] = {}
    if hits and any(one.context for one in asked):
        measured = recall(hits, [one.context for one in asked], sorted({*_RECALL_AT, wish.top_k}))
    rows: list[dict[str, Any]] = []
    without_gold, is_gold = 0, gold.matcher()
    for place, question in enumerate(asked):
        passages = [Passage("", "", question.context, "")] if wish.context == "gold" else []
        if hits:
            passages = [hit.passage for hit in hits[place][: wish.top_k]]
            if not any(is_gold(one.title, one.text, question.context) for one in passages):
                if wish.ensure_gold and question.context:
                    passages[-1] = _gold_passage(question, index, is_gold)
                else:
                    without_gold += 1
        shown = [passage.headed_text for passage in passages]
        row = prompts.row(question, wish.mode, prompts.PROMPTS[wish.language], passages=shown, examples=solved)
        more = {
            "passages": [passage.id for passage in passages] if hits else [],
            "origin": origins.get(question.id),
            "few_shot": [one.id for one in solved],
            "language": wish.language if wish.language != "ja" else "",
            "reasoning": reasoning,
        }
        row["meta"] |= {key: value for key, value in more.items() if value}
        rows.append(row)
        on_progress(len(rows), len(asked))
    return Built(rows, measured, without_gold, tuple(notes))


def choose_examples(questions: Sequence[Question], count: int, *, seed: int) -> list[Question]:
    """`count` questions to solve in every prompt. Do not ask them: their answers would leak.

    Their right labels differ as far as possible, so that the examples prefer no position. Questions that share no
    context come first. The choice does not depend on the order of the rows. Raises SlimtuneError if none is left to ask.
    """
    if count >= len(questions):
        what = f"{count} of {len(questions)} questions as examples leave none to ask"
        raise fail(what, where="--few-shot", fix=f"use at most {max(len(questions) - 1, 0)}")
    keys = {question.id: gold.key(question.context) for question in questions}
    sharing = Counter(filter(None, keys.values()))
    candidates = sorted(questions, key=lambda one: one.id)
    random.Random(f"{seed}/examples").shuffle(candidates)
    chosen: list[Question] = []
    used: Counter[str] = Counter()
    while len(chosen) < count:
        # min takes the first of the least used, that is in the order of the candidates.
        best = min(candidates, key=lambda one: (sharing[keys[one.id]] > 1, used[one.correct]))
        candidates.remove(best)
        used[best.correct] += 1
        chosen.append(best)
    return chosen


def _refuse_incomplete(questions: Sequence[Question], wish: BuildSettings) -> None:
    problems: dict[str, list[Problem]] = {}
    for question in questions:
        found = problems.setdefault(question.path, [])
        if wish.context == "gold" and not question.context:
            fix = "give it one, or build with --context none"
            found.append(Problem(f"the question '{question.id}' has no context", question.where, fix))
        if wish.mode != "cot":
            continue
        if wish.reasoning == "column" and not question.reasoning:
            fix = "write one, or build with --reasoning template or --reasoning teacher"
            found.append(Problem(f"the question '{question.id}' has no reasoning", question.where, fix))
        if wish.reasoning == "template" and not question.context:
            what = f"the question '{question.id}' has no context for the template to argue with"
            found.append(Problem(what, question.where, "give it one, or build with --reasoning teacher"))
    if any(problems.values()):
        raise bad_data(problems)


def _with_reasoning(
    questions: Sequence[Question],
    wish: BuildSettings,
    teach: Callable[[Sequence[Question]], Taught] | None,
    notes: list[str],
    on_progress: Advance,
) -> tuple[list[Question], str]:
    """The questions with what they are argued with, and the name of that for `meta`."""
    if wish.reasoning == "column":
        return list(questions), "column"
    if wish.reasoning == "template":
        argued: list[Question] = []
        for one in questions:
            argued.append(replace(one, reasoning=arguments.argue(one, wish.language)))
            on_progress(len(argued), len(questions))
        return argued, "template"
    assert teach is not None
    taught = teach(questions)
    if not taught.questions:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in taught.dropped.items())
        raise fail(f"no reply of the teacher can be used ({reasons})", fix="ask a larger model, or look at its replies")
    for reason, count in taught.dropped.items():
        notes.append(f"{plural(count, 'question')} dropped, the teacher's reply: {reason}")
    return taught.questions, f"teacher:{taught.name}"


def _retrieve(
    questions: Sequence[Question], wish: BuildSettings, index: PassageIndex | None, on_progress: Advance
) -> list[list[Hit]]:
    """For each question the best passages, as many as are wanted or measured; empty unless they are retrieved."""
    if wish.context != "retrieved":
        return []
    assert index is not None
    # Choices too: they hold the words of the law. Sorted, so that copies with shuffled choices ask the same.
    hits: list[list[Hit]] = []
    for one in questions:
        query = "\n".join([one.question, *sorted(one.choices.values())])
        hits += index.search([query], max(wish.top_k, *_RECALL_AT))
        on_progress(len(hits), len(questions))
    return hits


def _gold_passage(question: Question, index: PassageIndex | None, is_gold: Callable[[str, str, str], bool]) -> Passage:
    """The corpus's own passage of the question's context, so that it is headed as the others are, or the context."""
    assert index is not None
    (nearest,) = index.search([question.context], max(_RECALL_AT))
    whole = (hit.passage for hit in nearest if is_gold(hit.passage.title, hit.passage.text, question.context))
    return next(whole, Passage("gold", "", question.context, question.where))
