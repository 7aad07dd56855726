"""Builds the files in data/law from its questions: answers with and without reasoning, with and without statutes.

data/law/build.py runs this. For other questions there is `slimtune data build`, which uses the same prompts.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError, bad_data, fail
from slimtune.core.files import write_text
from slimtune.data.questions import KEYS, Question, repeated_ids
from slimtune.data.records import Mode
from slimtune.data.splitting import SPLITS, SplitItem, context_key, split_items
from slimtune.datatools.build import prompts

# File name to mode and whether the prompt holds statutes.
_TRAINING_FILES: dict[str, tuple[Mode, bool]] = {
    "direct_norag": ("direct", False),
    "cot_norag": ("cot", False),
    "direct_rag": ("direct", True),
    "cot_rag": ("cot", True),
}
_TEST_FILES: dict[str, tuple[Mode, bool]] = {
    "test": ("direct", False),
    "test_cot": ("cot", False),
    "test_rag": ("direct", True),
    "test_cot_rag": ("cot", True),
}


def render_question(question: Question, *, mode: Mode, rag: bool, passages: Sequence[str] = ()) -> dict[str, Any]:
    """The training row {"input", "output", "meta"} of a question.

    rag: put `passages` (the question's own context if none are given) before the question.
    direct: the output is the label alone. cot: the reasoning, a line break, "回答: c".
    Raises `SlimtuneError` for cot without a reasoning.
    """
    if mode == "cot" and not question.reasoning:
        raise SlimtuneError(_no_reasoning(question))
    shown = (passages or (question.context,)) if rag else ()
    return prompts.row(question, mode, prompts.JAPANESE, passages=shown)


def choose_passages(question: Question, split: Sequence[Question], *, count: int, seed: int) -> list[str]:
    """The question's context among `count` - 1 contexts of other questions in `split`, in seeded order.

    The others are of the same source; only where the split has too few of them, of other sources too.
    """
    rng = random.Random(f"{seed}/{question.id}")
    own = context_key(question.context)
    same: dict[str, str] = {}
    other: dict[str, str] = {}
    for candidate in split:
        key = context_key(candidate.context)
        if key != own:
            (same if candidate.source == question.source else other).setdefault(key, candidate.context)
    chosen = rng.sample(list(same.values()), min(count - 1, len(same)))
    spare = [context for key, context in other.items() if key not in same]
    chosen += rng.sample(spare, min(count - 1 - len(chosen), len(spare)))
    passages = [question.context, *chosen]
    rng.shuffle(passages)
    return passages


def split_questions(questions: Sequence[Question], *, dev: float, test: float, seed: int) -> dict[str, list[Question]]:
    """The questions under "train", "dev" and "test", each list in the order given.

    dev, test: shares of all questions, from 0 to below 1. Questions with equal contexts stay together. See
    `splitting.split_items` for the method.

    Raises `SlimtuneError` if a share is impossible or a split would be empty.
    """
    sizes = _sizes(len(questions), dev, test)
    items = [SplitItem(one.id, one.correct, one.source, context_key(one.context)) for one in questions]
    name_of = split_items(items, sizes, seed=seed)
    split = {name: [question for question in questions if name_of[question.id] == name] for name in SPLITS}
    for name, size in sizes.items():
        if size and not split[name]:
            raise fail(f"the split '{name}' is empty", fix="too many questions share a context: take more questions")
    return split


def _sizes(count: int, dev: float, test: float) -> dict[str, int]:
    if not (dev >= 0 and test >= 0 and dev + test < 1):
        raise fail(f"shares of {dev:g} for dev and {test:g} for test", fix="both from 0, together less than 1")
    held_out = {name: max(1, round(share * count)) if share else 0 for name, share in (("dev", dev), ("test", test))}
    train = count - sum(held_out.values())
    if train < 1:
        raise fail(f"{count} questions are too few for shares of {dev:g} and {test:g}", fix="take more questions")
    return {"train": train, **held_out}


def build_files(
    questions: Sequence[Question],
    out_dir: str | Path,
    *,
    dev: float,
    test: float,
    seed: int,
    passages_per_question: int = 3,
) -> dict[str, int]:
    """Splits the questions and writes all files of `out_dir`; returns each file's name and number of rows.

    {direct,cot}_{norag,rag}.{train,dev}.jsonl, test[_cot][_rag].jsonl, and `split.json`: seed and shares, and per
    split the counts and each question's id with the SHA-256 of its canonical JSON (keys sorted, no spaces, UTF-8).
    The same questions and seed give the same bytes. Raises `SlimtuneError` for repeated ids or missing reasonings.
    """
    if passages_per_question < 1:
        raise fail(f"{passages_per_question} passages per question", fix="at least 1, the context itself")
    _check(questions)
    split = split_questions(sorted(questions, key=lambda one: one.id), dev=dev, test=test, seed=seed)
    passages = {
        question.id: choose_passages(question, members, count=passages_per_question, seed=seed)
        for members in split.values()
        for question in members
    }

    def rows(members: Sequence[Question], mode: Mode, rag: bool) -> list[dict[str, Any]]:
        return [render_question(one, mode=mode, rag=rag, passages=passages[one.id] if rag else ()) for one in members]

    files: dict[str, list[dict[str, Any]]] = {}
    for name, (mode, rag) in _TRAINING_FILES.items():
        files[f"{name}.train.jsonl"] = rows(split["train"], mode, rag)
        if split["dev"]:
            files[f"{name}.dev.jsonl"] = rows(split["dev"], mode, rag)
    if split["test"]:
        files |= {f"{name}.jsonl": rows(split["test"], mode, rag) for name, (mode, rag) in _TEST_FILES.items()}

    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        write_text(out / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    manifest = {
        "seed": seed,
        "dev": dev,
        "test": test,
        "passages_per_question": passages_per_question,
        "splits": {name: _summary(split[name]) for name in SPLITS},
    }
    write_text(out / "split.json", json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
    return {name: len(lines) for name, lines in files.items()}


def _check(questions: Sequence[Question]) -> None:
    problems: dict[str, list[Problem]] = {}
    for problem in repeated_ids(((one.id, one.where) for one in questions), "question"):
        problems.setdefault(problem.where.rpartition(":")[0], []).append(problem)
    for question in questions:
        if not question.reasoning:
            problems.setdefault(question.path, []).append(_no_reasoning(question))
    if problems:
        raise bad_data(problems)


def _no_reasoning(question: Question) -> Problem:
    what = f"the question '{question.id}' has no reasoning, which the mode cot needs"
    return Problem(what, question.where, "write one, or build direct rows only")


def _summary(questions: Sequence[Question]) -> dict[str, Any]:
    return {
        "count": len(questions),
        "labels": dict(sorted(Counter(question.correct for question in questions).items())),
        "sources": dict(sorted(Counter(question.source for question in questions).items())),
        "ids": {question.id: _digest(question) for question in questions},
    }


def _digest(question: Question) -> str:
    canonical = json.dumps(
        {key: getattr(question, key) for key in KEYS}, ensure_ascii=False, sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()
