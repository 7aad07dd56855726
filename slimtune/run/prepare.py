"""Read, encode and plan: everything that happens before a weight is loaded. No torch."""

import dataclasses
import importlib.util
from collections import Counter
from collections.abc import Sequence
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
from slimtune.plan import lengths, make
from slimtune.plan.explain import suggestions
from slimtune.plan.request import Data, PlanRequest
from slimtune.recipe.schema import EvaluateSection, Recipe
from slimtune.train import methods
from slimtune.train.methods import Method


@dataclasses.dataclass(frozen=True)
class _Read:
    """A recipe with its data read and compared, and the machine to plan for.

    train, held_out: the method's records. test: the questions. data_hashes: by file. data_splits: as
    `split_manifest.recorded` gives them. contamination: as `contamination.check` gives it, None without a test.
    """

    recipe: Recipe
    method: Method
    request: PlanRequest
    train: tuple[Any, ...]
    held_out: tuple[Any, ...]
    test: tuple[Conversation, ...]
    data_hashes: dict[str, str]
    data_splits: tuple[dict[str, Any], ...]
    contamination: dict[str, Any] | None
    hardware: machines.Hardware
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Prepared(_Read):
    """What was read, encoded once, and planned.

    folder, tokenizer: None where the base is on the hub and not in the cache yet. examples, held_out_examples: the
    records encoded for the trainer; empty without a tokenizer. facts: what suggestions are drawn from.
    """

    folder: Path | None
    tokenizer: ChatTokenizer | None
    examples: Sequence[Any]
    held_out_examples: Sequence[Any]
    data: Data
    shape: models.ModelShape
    plan: make.Plan
    facts: suggestions.PlanFacts

    def as_json(self) -> dict[str, Any]:
        """The plan with what it was made for."""
        return {
            "recipe": self.recipe.name,
            "model": {"base": self.recipe.model.base, "parameters": self.shape.total_parameters},
            "hardware": dataclasses.asdict(self.hardware),
            "examples": {"train": len(self.train), "eval": len(self.held_out), "test": len(self.test)},
            **self.plan.as_json(),
            "suggestions": [dataclasses.asdict(one) for one in suggestions.suggest(self.facts)],
        }


def prepare(recipe: Recipe, *, assume_card: bool = False, card: cards.Card | None = None) -> Prepared:
    """Read the data and plan the run, without torch and without a network.

    assume_card: on a machine without a GPU, plan for a card of `budget.vram_gb` (a dry run; a real run then trains
    on the CPU, and its plan says so). card: plan for this one, whatever the machine has.
    Raises SlimtuneError for bad data, an unknown method or model, or a plan that does not fit.
    """
    for reporter in recipe.run.report_to:
        if importlib.util.find_spec(reporter) is None:
            raise fail(f"{reporter} is not installed", where="run.report_to", fix=f"pip install {reporter}")
    method = methods.find(recipe.train.method)
    base = _base_of(recipe)  # before the data, which take longer
    return _plan(_read(recipe, method, assume_card=assume_card, card=card), *base)


def after_download(prepared: Prepared) -> Prepared:
    """Encode the examples with the base's own tokenizer, which is on this machine now, and plan again."""
    return _plan(prepared, *_base_of(prepared.recipe))


def _base_of(recipe: Recipe) -> tuple[Path | None, models.ModelShape, ChatTokenizer | None]:
    """The base's folder, shape and tokenizer, as far as they are on this machine."""
    base = recipe.model.base
    folder = base_model.locate(base, recipe.model.revision)
    shape = models.of_base(base, folder)
    if folder is not None:
        base_model.check_weights_at_hand(base, folder)
    if folder is None or not (folder / "tokenizer.json").is_file():
        return folder, shape, None
    tokenizer = ChatTokenizer(folder, recipe.model.thinking)
    families.require_template(families.get(shape.family), tokenizer, base)
    return folder, shape, tokenizer


def _read(recipe: Recipe, method: Method, *, assume_card: bool, card: cards.Card | None) -> _Read:
    data, evaluate = recipe.data, recipe.evaluate
    given: dict[str, Any] = {"system": data.system, "format": data.format, "seed": recipe.run.seed}
    train = method.read([(source.path, source.weight) for source in data.train], mode=data.mode, **given)
    held_out = method.read([(data.eval, 1.0)], mode=data.mode, **given) if data.eval else None
    questions: tuple[Conversation, ...] = ()
    test = overlap = None
    if evaluate:
        test = loading.load_conversations([(evaluate.data, 1.0)], mode=test_mode(evaluate), **given)
        questions = tuple(items.first(test.conversations, evaluate.max_items, evaluate.data))
    files = [file for loaded in (train, held_out, test) if loaded for file in loaded.files]
    hashes = {one.file.path: one.sha256 for one in files if one.sha256}
    splits = split_manifest.recorded(hashes)
    notes = [note for file in files for note in file.notes]
    notes += split_manifest.notes(splits, [source.path for source in data.train])

    hardware = machines.detect()
    if card is not None:
        hardware = machines.assumed(card, max(card.vram_gb, recipe.budget.vram_gb or 0))
    if hardware.kind == "cpu" and assume_card and recipe.budget.vram_gb:
        hardware = machines.card(recipe.budget.vram_gb)
        notes.append(f"This machine has no GPU. The plan is for a {hardware.name}.")
    if questions:
        from slimtune.evaluate import contamination  # numpy: not for a plan without a test

        overlap = contamination.check([method.as_conversation(record) for record in train.conversations], questions)
        if seen := contamination.contaminated_ids(overlap):
            notes.append(
                f"{len(seen)} of {len(questions)} test questions are in the training data, so the verdict will be "
                "'contaminated'. Remove them from one of the two. The run's eval/contamination.json lists them."
            )
    return _Read(
        recipe=recipe,
        method=method,
        request=request_of(recipe),
        train=train.conversations,
        held_out=held_out.conversations if held_out else (),
        test=questions,
        data_hashes=hashes,
        data_splits=tuple(splits),
        contamination=overlap,
        hardware=hardware,
        notes=tuple(notes),
    )


def _plan(read: _Read, folder: Path | None, shape: models.ModelShape, tokenizer: ChatTokenizer | None) -> Prepared:
    method, request = read.method, read.request
    examples: Sequence[Any] = ()
    held_out: Sequence[Any] = ()
    with console.stderr().bar("Counting tokens") as progress:
        if tokenizer is not None:
            examples = method.encode(read.train, tokenizer, progress)
            held_out = method.encode(read.held_out, tokenizer, progress)
        count = method.lengths if tokenizer else method.estimate
        prompts = lengths.of(tokenizer.examples_of(read.test, progress)) if tokenizer else lengths.estimate(read.test)
        data = Data(
            train=count(examples or read.train),
            held_out=count(held_out or read.held_out) if read.held_out else None,
            prompts=prompts.prompts,
        )
    plan = make.make(request, data, shape, read.hardware)
    return Prepared(
        **{field.name: getattr(read, field.name) for field in dataclasses.fields(_Read)},
        folder=folder,
        tokenizer=tokenizer,
        examples=examples,
        held_out_examples=held_out,
        data=data,
        shape=shape,
        plan=dataclasses.replace(plan, notes=(*read.notes, *plan.notes)),
        facts=suggestions.facts_of(
            request,
            Counter(suggestions.task_of(method.as_conversation(record)) for record in read.train),
            sum(data.train.supervised),
            shape,
            rank=plan.lora_rank,
            steps=plan.total_steps,
        ),
    )


def request_of(recipe: Recipe) -> PlanRequest:
    """What of a recipe a plan is made from."""
    return PlanRequest(
        model=recipe.model,
        lora=recipe.lora,
        train=recipe.train,
        budget=recipe.budget,
        seed=recipe.run.seed,
        report_to=tuple(recipe.run.report_to),
        max_overlong=recipe.data.max_overlong,
        repeats=max(source.weight for source in recipe.data.train),
        cost=methods.find(recipe.train.method).cost,
    )


def test_mode(evaluate: EvaluateSection) -> loading.DataMode:
    """How to filter the test data: free-form rows have no `meta.mode` to choose by."""
    return evaluate.mode if evaluate.kind == "multiple_choice" else "auto"
