"""`slimtune ensemble`: several adapters on one loaded base are asked one by one, and their answers are combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slimtune.core import versions
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.files import sha256_file, write_lines
from slimtune.core.progress import OnProgress
from slimtune.evaluate import asking, ensemble, evaluation, items
from slimtune.evaluate.answer_file import AnswerFile
from slimtune.evaluate.evaluation import Request
from slimtune.evaluate.judge.compare import compare
from slimtune.evaluate.judge.contenders import Contender
from slimtune.evaluate.kinds.kind import Answer, Item
from slimtune.evaluate.targets import opening
from slimtune.evaluate.targets.opening import Weights
from slimtune.evaluate.targets.target_spec import Spec
from slimtune.models import files as base_model


@dataclass(frozen=True)
class Member:
    """name: distinct among the members. adapter: its folder."""

    name: str
    adapter: Path


def evaluate(
    specs: Sequence[Spec], weights: Sequence[float] | None, request: Request, on_progress: OnProgress
) -> tuple[Path, dict[str, Any]]:
    """Ask every member, combine their answers by vote and by mean, compare all; the results' folder and the comparison.

    specs: runs, adapters or checkpoints of one base. weights: one a member; not to be chosen on these questions.
    request: of the first member. A member that has answered already is not asked again.
    Raises SlimtuneError where the members are not of one base, or the weights do not fit.
    """
    request = evaluation.with_the_runs_own(request)
    members, base = _members(specs, request)
    if weights is not None and len(weights) != len(members):
        raise fail(f"{len(weights)} weights for {len(members)} members", where="--weights", fix="give one a member")
    found = evaluation.conversations(request).conversations
    asked = items.read(items.first(found, request.max_items, str(request.data)), "multiple_choice")
    folder = request.out or Path("outputs") / "evaluations" / f"ensemble-{request.spec.slug}"
    identity = {
        "members": {member.name: sha256_file(member.adapter / "adapter_model.safetensors") for member in members},
        "base": base.base,
        "data": {"path": request.data, "sha256": sha256_file(Path(str(request.data))), "items": len(asked)},
        "settings": asdict(request.settings),
    }
    record = evaluation.Record.open(folder, identity, fresh=request.fresh)
    rows = _ask(members, request, asked, folder, on_progress)
    combined = ensemble.table([rows[member.name] for member in members], [member.name for member in members], weights)
    for name, answers in combined[len(members) :]:
        write_lines(folder / f"{name.replace(' ', '-')}.jsonl", answers)
    result = compare([Contender(name, answers) for name, answers in combined])
    record.close(weights=list(weights) if weights is not None else None, versions=versions.installed())
    return folder, result


def _members(specs: Sequence[Spec], request: Request) -> tuple[list[Member], Weights]:
    """The members under names of their own, and what they have in common. Raises SlimtuneError where that is not one base."""
    parts = [opening.weights_of(spec, request.loading) for spec in specs]
    first = parts[0]
    problems = [
        Problem("is neither a run nor an adapter", spec.place, "name adapters on one base")
        for spec, part in zip(specs, parts, strict=True)
        if not part.adapters
    ]
    problems += [
        Problem(
            f"is an adapter for {part.base}, the first one is for {first.base}", spec.place, "take adapters of one base"
        )
        for spec, part in zip(specs, parts, strict=True)
        if part.adapters
        and base_model.locate(part.base, part.revision) != base_model.locate(first.base, first.revision)
    ]
    if len(specs) < 2:
        problems.append(Problem("an ensemble has at least two members", fix="name another run, adapter or checkpoint"))
    if problems:
        raise SlimtuneError(problems, summary="these cannot be an ensemble")
    adapters = [next(iter(part.adapters.values())) for part in parts]
    slugs = [spec.slug for spec in specs]
    # PEFT makes module names of them: no dots.
    names = [
        (slug if slugs.count(slug) == 1 else f"{slug}-{number}").replace(".", "_")
        for number, slug in enumerate(slugs, 1)
    ]
    return [Member(name, adapter) for name, adapter in zip(names, adapters, strict=True)], first


def _ask(
    members: Sequence[Member], request: Request, asked: Sequence[Item], folder: Path, on_progress: OnProgress
) -> dict[str, list[Answer]]:
    ids = [item.id for item in asked]
    paths = {member.name: folder / f"{member.name}.jsonl" for member in members}
    files = {name: AnswerFile(path) for name, path in paths.items()}
    if all(key in file.rows for file in files.values() for key in ids):
        return {name: file.finish(ids) for name, file in files.items()}
    on_progress.step(f"Loading {len(members)} adapters on one base")
    opened = opening.open_local(request.spec, request.loading, {member.name: member.adapter for member in members})
    answers = {}
    for name, path in paths.items():
        opened.local.model.set_adapter(name)
        answers[name] = asking.complete(path, name, opened.target, asked, request.settings, on_progress)
    return answers
