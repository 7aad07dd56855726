"""Changes that make a run fit, cheapest first. Each is tried in the same search as the plan."""

import dataclasses
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from slimtune.core.errors import DOES_NOT_FIT, Problem, SlimtuneError
from slimtune.core.units import GIB, size_text
from slimtune.models import families
from slimtune.models import shapes as models
from slimtune.models.shapes import ModelShape
from slimtune.plan import search
from slimtune.plan.request import Job
from slimtune.recipe import yaml_lines

CHANGES_SHOWN = 3
_BATCH_SETTINGS = ("per_device_train_batch_size", "gradient_accumulation_steps", "row_length")
_OPEN_TO_THE_PLAN = (*_BATCH_SETTINGS, "checkpoint_skip_layers", "double_buffer")
_CARD_SIZES = (6, 8, 10, 12, 16, 24, 32, 48, 80, 141)
_SIZE = re.compile(r"^(?P<series>.+?)-(?P<size>\d+(\.\d+)?)b(?P<rest>.*)$", re.IGNORECASE)


@dataclass(frozen=True)
class _Idea:
    """A change to try: overrides as on the command line, and the model's shape or the card's size where they change."""

    override: str
    meaning: str
    shape: ModelShape | None = None
    card_gb: int | None = None

    @property
    def values(self) -> dict[str, dict[str, Any]]:
        """The overriding values by section."""
        values: dict[str, dict[str, Any]] = {}
        for part in self.override.split():
            key, _, text = part.partition("=")
            section, _, name = key.partition(".")
            values.setdefault(section, {})[name] = yaml_lines.parse_value(text)
        return values


def does_not_fit(job: Job, budget_bytes: int) -> SlimtuneError:
    """The error (exit code 3) that says how much memory is missing and what would help."""
    needed = search.smallest(job).required_bytes
    problems = _changes(job, needed)
    if not problems:
        problems = [Problem("no single change makes it fit", "model.base", "use a much smaller model")]
    return SlimtuneError(
        problems,
        summary=f"{job.shape.name} does not fit on {job.hardware.name}: it needs {size_text(needed)} (predicted), the "
        f"budget is {size_text(budget_bytes)}, {size_text(needed - budget_bytes)} missing. Any one of these changes "
        "makes it fit",
        exit_code=DOES_NOT_FIT,
    )


def _changes(job: Job, needed_bytes: int) -> list[Problem]:
    """The first few changes that make the run fit, cheapest first: what costs nothing, then time, quality, money.

    Single changes as far as there are any, then pairs of those that do not suffice alone. needed_bytes: what the run
    takes without any of them, from which the savings are counted.
    """
    found, insufficient = [], []
    for idea in _ideas(job):
        if change := _tried(idea, job, needed_bytes):
            found.append(change)
        else:
            insufficient.append(idea)
    for first, second in itertools.combinations(insufficient, 2):
        if len(found) >= CHANGES_SHOWN:
            break
        if first.shape and second.shape:
            continue  # two models at once
        both = _Idea(
            f"{first.override} {second.override}",
            f"{first.meaning}, and {second.meaning}",
            second.shape or first.shape,
            second.card_gb or first.card_gb,
        )
        if change := _tried(both, job, needed_bytes):
            found.append(change)
    # One card is enough to be told of, as long as there is anything else.
    cards = [change for change in found if change.where.startswith("budget.vram_gb=")]
    found.sort(key=lambda change: change in cards[1:])
    return found[:CHANGES_SHOWN]


def _tried(idea: _Idea, job: Job, needed_bytes: int) -> Problem | None:
    """What the change achieves, and as the place its override; None where the run does not fit with it."""
    changed = dataclasses.replace(job.changed(**idea.values), shape=idea.shape or job.shape)
    if idea.card_gb:
        card = dataclasses.replace(job.hardware, memory_bytes=idea.card_gb * GIB, used_bytes=0)
        changed = dataclasses.replace(changed, hardware=card)
    try:
        changed.require_supported()
    except SlimtuneError:
        return None  # a knob that the recipe sets does not suit this variant
    budget, _ = changed.budget()
    chosen = search.best(changed, budget, last_resorts=changed.request.budget.last_resorts)
    if chosen is None:
        return None
    meaning, off_card = idea.meaning, chosen.knobs.offload_layers
    if off_card and job.request.model.offload_layers is None:
        meaning += f" ({off_card} of {changed.shape.layers} layers in CPU memory"
        meaning += f", rank {chosen.job.rank})" if chosen.job.rank != changed.rank else ")"
    # Free memory is spent on speed, so the saving is counted from the smallest form, not from the fastest.
    least = min(search.smallest(changed).required_bytes, chosen.required_bytes)
    total, saved = f"{size_text(least)} in all", needed_bytes - least
    effect = f"saves {size_text(saved)}, {total}" if saved > 0 else f"{total}, of a budget of {size_text(budget)}"
    return Problem(f"{meaning}: {effect}", idea.override)


def _ideas(job: Job) -> Iterator[_Idea]:
    """Changes in the order of what they cost their user."""
    model, train, lora, budget = job.request.model, job.request.train, job.request.lora, job.request.budget
    # Nothing is lost by these.
    if not model.load_in_4bit:
        yield _Idea("model.load_in_4bit=true", "load the weights in 4 bit")
    if models.is_dynamic(model.base):
        plain = re.sub("-unsloth-bnb-4bit$", "-bnb-4bit", model.base)
        yield _Idea(f"model.base={plain}", "use the plain 4-bit weights, 10 % smaller")
    if train.gradient_checkpointing != "unsloth":
        yield _Idea("train.gradient_checkpointing=unsloth", "recompute activations from inputs in CPU memory")
    fixed = [f"train.{name}=null" for name in _OPEN_TO_THE_PLAN if getattr(train, name) is not None]
    if fixed:
        yield _Idea(" ".join(fixed), "let the plan decide")
    if model.offload_embedding is False:
        yield _Idea("model.offload_embedding=null", "let the plan decide")
    # This costs time.
    if not budget.last_resorts:
        yield _Idea("budget.last_resorts=true", "allow slower training and a lower rank")
    # These cost quality.
    if lora.target == "full":
        yield _Idea("lora.target=standard", "put adapters on the attention only")
    if lora.rank > 8:
        yield _Idea("lora.rank=8", "train a smaller adapter, which can learn less")
    smaller = [_Idea(f"model.base={name}", f"use {shape.name}", shape) for name, shape in _smaller_models(model.base)]
    yield from smaller[:2]
    # This costs money.
    now_gb = min(budget.vram_gb or 1e9, job.hardware.memory_bytes / GIB)
    for size in _CARD_SIZES:
        if size > 1.02 * now_gb:
            yield _Idea(f"budget.vram_gb={size}", f"use a card with {size} GB", card_gb=size)
    yield from smaller[2:]


def _smaller_models(base: str) -> Iterator[tuple[str, ModelShape]]:
    """The smaller models of the same series and kind, largest first, under the same organisation and suffix."""
    organisation, slash, repository = base.rpartition("/")
    named = _SIZE.match(repository)
    if named is None:
        return
    published = filter(None, map(_SIZE.match, models.known()))
    sizes = {other["size"] for other in published if other["series"].lower() == named["series"].lower()}
    for size in sorted((size for size in sizes if float(size) < float(named["size"])), key=float, reverse=True):
        name = f"{organisation}{slash}{named['series']}-{size}B{named['rest']}"
        smaller = models.find(name)
        if smaller is not None and families.get(smaller.family).trains:
            yield name, smaller
