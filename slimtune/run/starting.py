"""From a drafted recipe to its plan, before anything is written: which model fits the card, and how long it will take."""

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slimtune.core.errors import DOES_NOT_FIT, Problem, SlimtuneError
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
from slimtune.train import methods


@dataclass(frozen=True)
class Planned:
    """wish: the settings of the recipe. prepared: its plan."""

    wish: RecipeSettings
    prepared: Prepared

    @property
    def lines(self) -> list[str]:
        """Whether it fits, how long it takes, and what is downloaded."""
        plan, prepared = self.prepared.plan, self.prepared
        free = size_text(plan.budget_bytes - plan.peak_bytes)
        used = (
            f"{size_text(plan.peak_bytes)} of {size_text(plan.budget_bytes)} on {prepared.hardware.name}, {free} left"
        )
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
    size = vram_gb or _card_size()
    wanted = [model] if model else list(settings.candidates(draft.understood))
    with tempfile.TemporaryDirectory(prefix="slimtune-new-") as place:
        folder = Path(place) / "data"
        with writing(folder):
            folder.mkdir()
            for name, content in draft.divided.files.items():
                (folder / name).write_bytes(content)
        return _first_that_fits(draft, wanted, folder, size, goal)


def _first_that_fits(draft: Draft, models: Sequence[str], folder: Path, size: float, goal: Goal | None) -> Planned:
    for number, base in enumerate(models, start=1):
        wish = _settings(draft, base, size, goal)
        try:
            return Planned(wish, _prepared(draft, wish, folder))
        except SlimtuneError as error:
            if error.exit_code != DOES_NOT_FIT or number == len(models):
                raise error.mapped(lambda problem: _named(problem, draft, folder)) from error
    raise AssertionError("there is always a model to try")


def _settings(draft: Draft, base: str, size: float, goal: Goal | None) -> RecipeSettings:
    try:
        folder = files.locate(base)
        shape = shapes.of_base(base, folder)
    except SlimtuneError as error:
        raise error.mapped(lambda problem: _of_model(problem)) from error
    tokenizer = ChatTokenizer(folder) if folder and (folder / "tokenizer.json").is_file() else None
    return settings.choose(
        draft.understood, draft.divided.parts, base=base, shape=shape, tokenizer=tokenizer, vram_gb=size, goal=goal
    )


def _prepared(draft: Draft, wish: RecipeSettings, folder: Path) -> Prepared:
    recipe = folder.parent / "recipe.yaml"
    with writing(recipe):
        recipe.write_text(draft.text(wish, folder), encoding="utf-8")
    return prepare.prepare(loading.load(recipe, methods=methods.names()), assume_card=True)


def _card_size() -> float:
    """Of the machine's card, as sold, in GB; the recipes' default on a machine without one."""
    found = machines.detect()
    if found.kind != "cuda":
        return float(BudgetSection.model_fields["vram_gb"].default)
    return cards.CARDS[found.card].vram_gb if found.card else round(found.memory_bytes / GIB)


def _named(problem: Problem, draft: Draft, folder: Path) -> Problem:
    """The problem with the places that the files will have."""
    parts = {
        name: getattr(problem, name).replace(str(folder), draft.folder.as_posix()) for name in ("what", "where", "fix")
    }
    return _of_model(dataclasses.replace(problem, **parts))


def _of_model(problem: Problem) -> Problem:
    return dataclasses.replace(problem, where="--model") if problem.where == "model.base" else problem


def _download(prepared: Prepared) -> str:
    base, folder = prepared.recipe.model.base, prepared.folder
    if files.is_here(base) or (folder is not None and files.has_weights(folder)):
        return "none, the model is on this machine"
    shape = prepared.shape
    linear = vram.linear_weights(shape, "nf4" if shapes.is_prequantised(base) else "16bit")
    size = linear + 2 * (shape.embedding_parameters + shape.norm_parameters + shape.bias_parameters)
    return f"about {size_text(size)}, once ({base})"
