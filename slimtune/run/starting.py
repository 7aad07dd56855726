"""From a drafted recipe to its plan, before anything is written: which model fits the card, and how long it will take."""

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

from slimtune.core.errors import DOES_NOT_FIT, Problem, SlimtuneError, fail
from slimtune.core.files import writing
from slimtune.core.units import GIB, size_text
from slimtune.data.chat_template import ChatTokenizer
from slimtune.datatools.new import settings
from slimtune.datatools.new.draft import Draft
from slimtune.datatools.new.recognise import Goal
from slimtune.datatools.new.settings import RecipeSettings
from slimtune.models import cards, files, shapes
from slimtune.models import hardware as machines
from slimtune.plan.memory import vram
from slimtune.recipe import loading
from slimtune.recipe.schema import BudgetSection
from slimtune.run import prepare
from slimtune.run.prepare import Prepared
from slimtune.run.report.values import duration
from slimtune.run.screen import peak_range
from slimtune.train import methods

_RECIPE = "recipe.yaml"
_LARGEST_CARD = 1024  # as in the recipe's schema


@dataclass(frozen=True)
class Planned:
    """draft: with the rows that the model can read. wish: the settings of the recipe. prepared: its plan."""

    draft: Draft
    wish: RecipeSettings
    prepared: Prepared

    @property
    def lines(self) -> list[str]:
        """Whether it fits, how long it takes, and what is downloaded."""
        plan, prepared = self.prepared.plan, self.prepared
        free = size_text(plan.budget_bytes - plan.upper_bytes)
        used = f"{peak_range(plan)} of {size_text(plan.budget_bytes)} on {prepared.hardware.name}, {free} left"
        time = f"{plan.total_steps:,} steps; not predicted for a processor"
        if plan.estimate is not None:
            training, asking = plan.estimate.train_seconds, plan.estimate.evaluation_seconds
            time = f"{duration(round(training))} of training and {duration(round(asking))} of evaluation (predicted)"
        return [f"Fits: {used} (predicted)", f"Time: {time}", f"Download: {_download(prepared)}"]


def plan(draft: Draft, *, model: str | None, vram_gb: float | None, goal: Goal | None) -> Planned:
    """The settings and the plan of a draft; nothing stays on the disk.

    model: the base; None for the largest of the candidates that fits. vram_gb: memory of the card; None for what the
    machine has, or the recipes' default. Raises SlimtuneError as `prepare.prepare` does.
    """
    if vram_gb is not None and not 1 < vram_gb <= _LARGEST_CARD:
        what = f"{vram_gb:g} GB is not the memory of a card"
        raise fail(what, where="--vram-gb", fix=f"give its size as sold: more than 1, at most {_LARGEST_CARD:,}")
    size = vram_gb or _card_size()
    models = [model] if model else list(settings.candidates(draft.understood))
    with tempfile.TemporaryDirectory(prefix="slimtune-new-") as place:
        folder = Path(place) / "data"
        for base in models[:-1]:
            try:
                return _planned(draft, base, folder, size, goal)
            except SlimtuneError as error:
                if error.exit_code != DOES_NOT_FIT:
                    raise
        return _planned(draft, models[-1], folder, size, goal)


def _planned(draft: Draft, base: str, folder: Path, size: float, goal: Goal | None) -> Planned:
    """The plan with this model. folder: for the data meanwhile. Raises SlimtuneError with the places to come."""
    try:
        place = files.locate(base)
        shape = shapes.of_base(base, place)
        tokenizer = ChatTokenizer(place) if place and (place / "tokenizer.json").is_file() else None
        kept = draft.within(min(shape.max_position_embeddings, settings.MOST_TOKENS), tokenizer)
        wish = settings.choose(
            kept.understood, kept.divided.parts, base=base, shape=shape, tokenizer=tokenizer, vram_gb=size, goal=goal
        )
        recipe = folder.parent / _RECIPE
        with writing(folder):
            folder.mkdir(exist_ok=True)
            for name, content in kept.divided.files.items():
                (folder / name).write_bytes(content)
            recipe.write_text(kept.text(wish, folder), encoding="utf-8")
        prepared = prepare.prepare(loading.load(recipe, methods=methods.names()), assume_card=True)
    except SlimtuneError as error:
        summary = _placed(error.summary, draft, folder)
        raise error.mapped(lambda problem: _named(problem, draft, folder), summary=summary) from error
    return Planned(kept, wish, prepared)


def _card_size() -> float:
    """Of the machine's card, as sold, in GB; the recipes' default on a machine without one."""
    found = machines.detect()
    if found.kind != "cuda":
        return float(BudgetSection.model_fields["vram_gb"].default)
    return cards.CARDS[found.card].vram_gb if found.card else round(found.memory_bytes / GIB)


def _named(problem: Problem, draft: Draft, folder: Path) -> Problem:
    """The problem with the places that the files will have."""
    parts = {name: _placed(getattr(problem, name), draft, folder) for name in ("what", "where", "fix")}
    if problem.where == "model.base":
        parts["where"] = "--model"
    return dataclasses.replace(problem, **parts)


def _placed(text: str, draft: Draft, folder: Path) -> str:
    recipe = folder.parent / _RECIPE
    return text.replace(str(folder), draft.folder.as_posix()).replace(str(recipe), draft.recipe.as_posix())


def _download(prepared: Prepared) -> str:
    base, folder = prepared.recipe.model.base, prepared.folder
    if files.is_here(base) or (folder is not None and files.has_weights(folder)):
        return "none, the model is on this machine"
    shape = prepared.shape
    linear = vram.linear_weights(shape, "nf4" if shapes.is_prequantised(base) else "16bit")
    size = linear + 2 * (shape.embedding_parameters + shape.norm_parameters + shape.bias_parameters)
    return f"about {size_text(size)}, once ({base})"
