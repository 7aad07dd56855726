"""Everything that is known before a weight is loaded: data, lengths, model shape, hardware, plan. No torch."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

from slimtune.core import console
from slimtune.core.errors import fail
from slimtune.data import loading, split_manifest
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation
from slimtune.evaluate import items
from slimtune.models import cards, families
from slimtune.models import files as base_model
from slimtune.models import hardware as machines
from slimtune.models import shapes as models
from slimtune.plan import lengths as counting
from slimtune.plan import make
from slimtune.plan.explain import suggestions
from slimtune.plan.wish import Data, Wish
from slimtune.recipe.schema import EvaluateSection, Recipe


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A recipe with its data read and its plan made.

    folder, tokenizer: None where the base is on the hub and not in the cache yet. data_splits: which of the files are
    sets of a split (split_manifest.recorded). contamination: what the test shares
    with the training data (evaluate/contamination.py), None without a test. facts: what suggestions are drawn from
    (plan/suggestions.py).
    """

    recipe: Recipe
    wish: Wish
    train: tuple[Conversation, ...]
    held_out: tuple[Conversation, ...]
    test: tuple[Conversation, ...]
    data_hashes: dict[str, str]
    folder: Path | None
    tokenizer: ChatTokenizer | None
    data: Data
    shape: models.ModelShape
    hardware: machines.Hardware
    plan: make.Plan
    data_splits: tuple[dict[str, Any], ...] = ()
    contamination: dict[str, Any] | None = None
    facts: suggestions.Facts | None = None

    def as_json(self) -> dict[str, Any]:
        """The plan with what it was made for."""
        return {
            "recipe": self.recipe.name,
            "model": {"base": self.recipe.model.base, "parameters": self.shape.total_parameters},
            "hardware": dataclasses.asdict(self.hardware),
            "examples": {"train": len(self.train), "eval": len(self.held_out), "test": len(self.test)},
            **self.plan.as_json(),
            "suggestions": [dataclasses.asdict(one) for one in suggestions.suggest(self.facts)] if self.facts else [],
        }


def prepare(recipe: Recipe, *, assume_card: bool = False, card: cards.Card | None = None) -> Prepared:
    """Read the data and plan the run, without torch and without a network.

    assume_card: on a machine without a GPU, plan for a card of `budget.vram_gb` (a dry run; a real run then trains
    on the CPU, and its plan says so). card: plan for this one, whatever the machine has.
    Raises SlimtuneError for bad data, an unknown model, or a plan that does not fit.
    """
    for reporter in recipe.run.report_to:
        if importlib.util.find_spec(reporter) is None:
            raise fail(f"{reporter} is not installed", where="run.report_to", fix=f"pip install {reporter}")
    base = recipe.model.base
    folder = base_model.locate(base, recipe.model.revision)
    shape = models.of_base(base, folder)
    tokenizer = None
    if folder is not None and (folder / "tokenizer.json").is_file():
        tokenizer = ChatTokenizer(folder, recipe.model.thinking)
        families.require_template(families.get(shape.family), tokenizer, base)
    train = _load(recipe, [(source.path, source.weight) for source in recipe.data.train])
    held_out = _load(recipe, [(recipe.data.eval, 1.0)]) if recipe.data.eval else None
    test = _load(recipe, [(recipe.evaluate.data, 1.0)], mode=test_mode(recipe.evaluate)) if recipe.evaluate else None

    hardware = machines.detect()
    if card is not None:
        hardware = machines.assumed(card, max(card.vram_gb, recipe.budget.vram_gb or 0))
    files = [file for loaded in (train, held_out, test) if loaded for file in loaded.files]
    hashes = {file.path: file.sha256 for file in files if file.sha256}
    splits = split_manifest.recorded(hashes)
    notes = [note for file in files for note in file.notes]
    notes += split_manifest.notes(splits, [source.path for source in recipe.data.train])
    if hardware.kind == "cpu" and assume_card and recipe.budget.vram_gb:
        hardware = machines.card(recipe.budget.vram_gb)
        notes.append(f"No GPU on this machine: this is the plan for a {hardware.name}.")
    questions: tuple[Conversation, ...] = ()
    if test and recipe.evaluate:
        questions = tuple(items.first(test.conversations, recipe.evaluate.max_items, recipe.evaluate.data))
    overlap = None
    if questions:
        from slimtune.evaluate import contamination  # numpy: not for a plan without a test

        overlap = contamination.check(train.conversations, questions)
        notes += _leak(len(contamination.contaminated_ids(overlap)), len(questions))
    with console.stderr().bar("Counting tokens") as progress:
        data = Data(
            train=counting.count(train.conversations, tokenizer, progress),
            held_out=counting.count(held_out.conversations, tokenizer, progress) if held_out else None,
            prompts=counting.count(questions, tokenizer, progress).prompts if questions else (),
        )
    wish = wish_of(recipe)
    plan = make.make(wish, data, shape, hardware)
    return Prepared(
        recipe=recipe,
        wish=wish,
        train=train.conversations,
        held_out=held_out.conversations if held_out else (),
        test=questions,
        data_hashes=hashes,
        folder=folder,
        tokenizer=tokenizer,
        data=data,
        shape=shape,
        hardware=hardware,
        plan=dataclasses.replace(plan, notes=(*notes, *plan.notes)),
        data_splits=tuple(splits),
        contamination=overlap,
        facts=suggestions.facts_of(
            wish,
            Counter(map(suggestions.task_of, train.conversations)),
            sum(data.train.supervised),
            shape,
            rank=plan.lora_rank,
            steps=plan.total_steps,
        ),
    )


def wish_of(recipe: Recipe) -> Wish:
    """What of a recipe a plan is made from."""
    return Wish(
        model=recipe.model,
        lora=recipe.lora,
        train=recipe.train,
        budget=recipe.budget,
        seed=recipe.run.seed,
        report_to=tuple(recipe.run.report_to),
        max_overlong=recipe.data.max_overlong,
        repeats=max(source.weight for source in recipe.data.train),
    )


def _load(recipe: Recipe, sources: list[tuple[str, float]], mode: loading.DataMode | None = None) -> loading.Loaded:
    data = recipe.data
    return loading.load_conversations(
        sources, mode=mode or data.mode, system=data.system, format=data.format, seed=recipe.run.seed
    )


def _leak(seen: int, of: int) -> list[str]:
    """Said while there is time: what is trained on cannot be tested with."""
    if not seen:
        return []
    return [
        f"{seen} of {of} test questions are in the training data: the verdict will be 'contaminated'. "
        "Take them out of one of the two; the run's eval/contamination.json lists them."
    ]


def test_mode(evaluate: EvaluateSection) -> loading.DataMode:
    """Free-form data has no `meta.mode` to choose by."""
    return evaluate.mode if evaluate.kind == "multiple_choice" else "auto"
