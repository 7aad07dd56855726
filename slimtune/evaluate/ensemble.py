"""`slimtune ensemble`: several adapters on one loaded base answer the same questions, and their answers are combined.

Choose weights on other items than those on which the ensemble is judged, e.g. on the dev file: weights chosen on the
test set make any ensemble look better than its members.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from slimtune.core import versions
from slimtune.core.errors import Gathered, Problem, SlimtuneError
from slimtune.core.files import sha256_file
from slimtune.core.progress import OnProgress
from slimtune.evaluate import asking, evaluation, kinds
from slimtune.evaluate.answer_file import AnswerFile
from slimtune.evaluate.evaluation import Request
from slimtune.evaluate.judge import contenders, statistics
from slimtune.evaluate.judge.compare import compare
from slimtune.evaluate.judge.contenders import Contender
from slimtune.evaluate.judge.text import some
from slimtune.evaluate.kinds.choice_figures import labels_in
from slimtune.evaluate.kinds.kind import Answer, Answers, Item
from slimtune.evaluate.results_folder import Results
from slimtune.evaluate.targets import opening
from slimtune.evaluate.targets.opening import Spec, Weights
from slimtune.models import adapter_files
from slimtune.models import files as base_model

How = Literal["vote", "mean"]
# Sums of weights that differ by rounding alone are equal: 0.1 + 0.2 ties with 0.3.
_ROUNDING = 1e-9


def evaluate(
    specs: Sequence[Spec], weights: Sequence[float] | None, request: Request, on_progress: OnProgress
) -> tuple[Path, dict[str, Any]]:
    """Ask every member, combine their answers by vote and by mean, compare all; the results' folder and the comparison.

    specs: runs, adapters or checkpoints of one base. weights: one a member; not to be chosen on these questions.
    request: of the first member. A member that has answered already is not asked again.
    Raises SlimtuneError where the members are not of one base, or the weights do not fit.
    """
    request = evaluation.with_the_runs_own(request)
    checks = Gathered()
    with checks:
        adapters, base = _adapters(specs, request)
    if weights is not None:
        checks.add(_weight_problems(weights, len(specs)))
    with checks:
        read = evaluation.questions(request, overlap=False)
    checks.require_none()
    request = replace(request, out=request.out or Path("outputs") / "evaluations" / f"ensemble-{request.spec.slug}")
    identity = {
        "members": {name: sha256_file(path / "adapter_model.safetensors") for name, path in adapters.items()},
        "base": base.base,
        "data": read.identity,
        "settings": asdict(request.settings),
    }
    names = [f"{name}.jsonl" for name in (*adapters, *evaluation.COMBINED)]
    results = evaluation.look(request, identity, names)
    evaluation.start(results, identity, fresh=request.fresh)
    rows = _ask_members(adapters, request, read.items, results, on_progress)
    combined = table(list(rows.values()), list(rows), weights)
    for name, answers in combined[len(specs) :]:
        results.write_lines(f"{name.replace(' ', '-')}.jsonl", answers)
    result = compare([Contender(name, answers) for name, answers in combined])
    results.close(weights=list(weights) if weights is not None else None, versions=versions.installed())
    return results.folder, result


def _adapters(specs: Sequence[Spec], request: Request) -> tuple[dict[str, Path], Weights]:
    """The members' folders by names of their own, and the weights that they share. Raises SlimtuneError if they share none."""
    parts = [opening.weights_of(spec, request.loading) for spec in specs]
    first, problems, checks = parts[0], list[Problem](), Gathered()
    for spec, part in zip(specs, parts, strict=True):
        if not part.adapters:
            problems.append(Problem("is neither a run nor an adapter", spec.place, "name adapters on one base"))
        elif base_model.locate(part.base, part.revision) != (folder := base_model.locate(first.base, first.revision)):
            what = f"is an adapter for {part.base}, the first one is for {first.base}"
            problems.append(Problem(what, spec.place, "take adapters of one base"))
        elif folder is not None:
            with checks:
                adapter_files.check(next(iter(part.adapters.values())), folder)
    if len(specs) < 2:
        problems.append(Problem("an ensemble has at least two members", fix="name another run, adapter or checkpoint"))
    checks.add(problems, summary="these cannot be an ensemble")
    checks.require_none()
    # PEFT makes module names of them: no dots.
    slugs = [spec.slug.replace(".", "_") for spec in specs]
    counts = Counter([*slugs, *evaluation.COMBINED])
    names = [slug if counts[slug] == 1 else f"{slug}-{number}" for number, slug in enumerate(slugs, 1)]
    if len(set(names)) < len(names):
        names = [f"{slug}-{number}" for number, slug in enumerate(slugs, 1)]
    return {name: next(iter(part.adapters.values())) for name, part in zip(names, parts, strict=True)}, first


def _ask_members(
    adapters: dict[str, Path], request: Request, asked: Sequence[Item], results: Results, on_progress: OnProgress
) -> dict[str, list[Answer]]:
    ids = [item.id for item in asked]
    files = {name: AnswerFile(results.path(f"{name}.jsonl")) for name in adapters}
    if all(key in file.rows for file in files.values() for key in ids):
        return {name: file.finish(ids) for name, file in files.items()}
    on_progress.step(f"Loading {len(adapters)} adapters on one base")
    opened = opening.open_local(request.spec, request.loading, adapters)
    answers = {}
    for name, file in files.items():
        opened.local.model.set_adapter(name)
        answers[name] = asking.complete(file.path, name, opened.target, asked, request.settings, on_progress)
    return answers


def combine(
    members: Sequence[Answers], *, how: How, weights: Sequence[float] | None = None, names: Sequence[str] | None = None
) -> list[Answer]:
    """One result row an item from the rows of every member, in the order of the first member.

    members: multiple-choice result rows of the same items, each member's in any order.
    how: "vote": the label that most members answered; who has no answer does not vote. Among labels with equal votes
        (`tied`) the higher summed probability decides where members have `logprobs`, else the vote of the earliest
        member. The row has `votes` (label → votes, or summed weight).
        "mean": each member's label probabilities are renormalised to 1 and averaged; `logprobs` is the log of that
        average. Among labels with equal averages (`tied`) the votes decide, then the order of the labels.
    weights: one a member, non-negative, not all 0. A member of weight 0 does not take part. By default all count alike.
    names: of the members, for messages.

    Each row also has `members` (what each of them answered), the mean `label_mass` and `rule`. It has no `permutations`,
    since each member has combined its own, and is "cot" as soon as one member's is.
    Raises SlimtuneError with all problems: members answer different items or golds, the weights do not fit, or for
    "mean" a member has rows without `logprobs`.
    """
    names = names or [f"member {number}" for number in range(1, len(members) + 1)]
    sides = [Contender(name, rows) for name, rows in zip(names, members, strict=True)]
    problems = _item_problems(sides)
    if weights is not None:
        problems += _weight_problems(weights, len(members))
    if not problems and how == "mean":
        problems = [
            Problem(f"no logprobs to average in {without} of {len(rows)} rows", name, "combine these members by vote")
            for name, rows in zip(names, members, strict=True)
            if (without := sum(not _has_logprobs(row) for row in rows))
        ]
    if problems:
        raise SlimtuneError(problems, summary="the members cannot be combined")

    shares: list[float] = [1] * len(members)
    if weights is not None:
        shares = [weight / math.fsum(weights) for weight in weights]
    combined = []
    for answers in zip(*contenders.common(sides), strict=True):
        taking_part = [(answer, share) for answer, share in zip(answers, shares, strict=True) if share > 0]
        decided = _vote(taking_part) if how == "vote" else _average(taking_part)
        correct = decided["predicted"] == answers[0]["gold"]
        combined.append({**_common(answers, taking_part), **decided, "correct": correct})
    return combined


def table(
    members: Sequence[Answers], names: Sequence[str], weights: Sequence[float] | None = None
) -> list[tuple[str, list[Answer]]]:
    """Every member and every way to combine them, as (name, rows), ready to be compared.

    The means are left out where a member has no `logprobs`: replies in words can only be voted on. Raises as `combine`.
    """
    ways: list[tuple[str, How, Sequence[float] | None]] = [("majority vote", "vote", None)]
    averageable = all(_has_logprobs(row) for rows in members for row in rows)
    if averageable:
        ways.append(("mean probability", "mean", None))
    if weights is not None:
        ways.append(("weighted vote", "vote", weights))
        if averageable:
            ways.append(("weighted mean probability", "mean", weights))
    combined = [(name, combine(members, how=how, weights=use, names=names)) for name, how, use in ways]
    return [(name, list(rows)) for name, rows in zip(names, members, strict=True)] + combined


def _vote(answers: Sequence[tuple[Answer, float]]) -> Answer:
    votes = _votes(answers)
    if not votes:
        # Where all members failed in the same way, that is the status; else only "unknown" is true of all.
        statuses = {row.get("status", "unknown") for row, _ in answers}
        status = statuses.pop() if len(statuses) == 1 else "unknown"
        return {"predicted": None, "status": status, "rule": "vote", "votes": {}, "tied": False}
    tied = _largest(votes)
    means = _mean_logprobs([(row, weight) for row, weight in answers if _has_logprobs(row)])
    # Without probabilities the earliest member's label stays first: the votes stand in the order of the members.
    likeliest = _largest({label: math.exp(means[label]) for label in tied}) if means else tied
    return {"predicted": likeliest[0], "status": "answered", "rule": "vote", "votes": votes, "tied": len(tied) > 1}


def _average(answers: Sequence[tuple[Answer, float]]) -> Answer:
    means = _mean_logprobs(answers)
    tied = _largest({label: math.exp(value) for label, value in means.items()})
    votes = _votes(answers)
    return {
        "predicted": max(tied, key=lambda label: votes.get(label, 0)),
        "status": "answered",
        "rule": "mean probability",
        "logprobs": {label: round(value, 6) for label, value in means.items()},
        "tied": len(tied) > 1,
    }


def _votes(answers: Sequence[tuple[Answer, float]]) -> dict[str, float]:
    votes: dict[str, float] = {}
    for row, weight in answers:
        if row["predicted"] is not None:
            votes[row["predicted"]] = votes.get(row["predicted"], 0) + weight
    return votes


def _mean_logprobs(answers: Sequence[tuple[Answer, float]]) -> dict[str, float]:
    """Log of the weighted mean of the label probabilities, each row's renormalised to 1; in logs, nothing underflows."""
    if not answers:
        return {}
    import numpy
    from scipy.special import log_softmax, logsumexp

    labels = list(answers[0][0]["logprobs"])
    logprobs = numpy.array([[row["logprobs"][label] for label in labels] for row, _ in answers])
    weights = numpy.array([[weight] for _, weight in answers])
    means = logsumexp(log_softmax(logprobs, axis=1), axis=0, b=weights / weights.sum())
    return dict(zip(labels, means.tolist(), strict=True))


def _largest(shares: dict[str, float]) -> list[str]:
    """The keys of the largest value, more than one if they tie."""
    most = max(shares.values())
    return [key for key, value in shares.items() if math.isclose(value, most, rel_tol=_ROUNDING)]


def _common(answers: Answers, taking_part: Sequence[tuple[Answer, float]]) -> Answer:
    """What an item's combined row has however its answer was found."""
    first = answers[0]
    prompts = {row.get("prompt_sha256") for row in answers}
    masses = [(row["label_mass"], weight) for row, weight in taking_part if row.get("label_mass") is not None]
    row = {
        "id": first["id"],
        "source": first.get("source", ""),
        "where": first.get("where", ""),
        "kind": "multiple_choice",
        "mode": "cot" if any(row.get("mode") == "cot" for row in answers) else "direct",
        "prompt_sha256": prompts.pop() if len(prompts) == 1 else None,
        "gold": first["gold"],
        "labels": labels_in(answers),
        "members": [row["predicted"] for row in answers],
    }
    if masses:
        row["label_mass"] = round(fmean([mass for mass, _ in masses], [weight for _, weight in masses]), 6)
    return row


def _has_logprobs(row: Answer) -> bool:
    return statistics.probabilities(row.get("logprobs")) is not None


def _item_problems(sides: Sequence[Contender]) -> list[Problem]:
    if len(sides) < 2:
        return [Problem("an ensemble has at least two members", fix="name several adapters or result files")]
    problems = contenders.problems(sides, whole=True)
    if not problems and not kinds.of(sides[0].answers[0]).has_choices:
        what = "these are not answers to multiple-choice questions"
        problems.append(Problem(what, fix="combine answers with labels"))
    choices: dict[Any, set[frozenset[str]]] = {}
    for answer in (answer for side in sides for answer in side.answers):
        told = (answer.get("labels"), answer.get("logprobs"))
        choices.setdefault(answer.get("id"), set()).update(frozenset(labels) for labels in told if labels)
    if differ := [str(key) for key, sets in choices.items() if len(sets) > 1]:
        what = f"the members chose between different labels: {some(differ)}"
        problems.append(Problem(what, fix="let every member answer the same, complete question file"))
    return problems


def _weight_problems(weights: Sequence[float], count: int) -> list[Problem]:
    fix = "give one weight per member, none negative, at least one above 0"
    problems = []
    if len(weights) != count:
        problems.append(Problem(f"{len(weights)} weights for {count} members", "weights", fix))
    if bad := [f"{weight:g}" for weight in weights if not (math.isfinite(weight) and weight >= 0)]:
        problems.append(Problem(f"impossible weights: {', '.join(bad)}", "weights", fix))
    elif not any(weights):
        problems.append(Problem("all weights are 0", "weights", fix))
    return problems
