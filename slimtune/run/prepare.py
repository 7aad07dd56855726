"""Read, encode and plan: everything that happens before a weight is loaded. No torch."""

import dataclasses
import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slimtune.core import console, inputs
from slimtune.core.errors import Gathered, Problem, SlimtuneError, bad_data, fail
from slimtune.core.findings import Finding
from slimtune.data import loading, split_manifest, text
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation
from slimtune.evaluate import items
from slimtune.evaluate.kinds.kind import Item, Settings
from slimtune.export import preflight
from slimtune.export.request import ExportRequest
from slimtune.models import cards, families
from slimtune.models import files as base_model
from slimtune.models import hardware as machines
from slimtune.models import shapes as models
from slimtune.plan import lengths, make
from slimtune.plan.explain import suggestions
from slimtune.plan.request import Data, PlanRequest
from slimtune.recipe.schema import EvaluateSection, Recipe
from slimtune.run import folders, suitability
from slimtune.train import methods
from slimtune.train.methods import Method


@dataclasses.dataclass(frozen=True)
class _Read:
    """A recipe with its data read and compared, and the machine to plan for.

    findings: what of the evaluation does not suit the training data. train, held_out: the method's records. test: the questions; items: the same, ready to ask. data_hashes: by file. data_splits: as
    `split_manifest.recorded` gives them. contamination: as `contamination.check` gives it, None without a test.
    """

    recipe: Recipe
    method: Method
    request: PlanRequest
    train: tuple[Any, ...]
    held_out: tuple[Any, ...]
    test: tuple[Conversation, ...]
    items: tuple[Item, ...]
    data_hashes: dict[str, str]
    data_splits: tuple[dict[str, Any], ...]
    contamination: dict[str, Any] | None
    hardware: machines.Hardware
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclasses.dataclass(frozen=True)
class Prepared(_Read):
    """What was read, encoded once, and planned.

    folder, tokenizer: None where the base is on the hub and not in the cache yet. examples, held_out_examples: the
    records encoded for the trainer; empty without a tokenizer. warnings: the findings, and answers that would be cut off.
    facts: what suggestions are drawn from.
    """

    folder: Path | None
    tokenizer: ChatTokenizer | None
    examples: Sequence[Any]
    held_out_examples: Sequence[Any]
    data: Data
    shape: models.ModelShape
    plan: make.Plan
    facts: suggestions.PlanFacts
    warnings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """The plan with what it was made for."""
        return {
            "recipe": self.recipe.name,
            "model": {"base": self.recipe.model.base, "parameters": self.shape.total_parameters},
            "hardware": dataclasses.asdict(self.hardware),
            "examples": {"train": len(self.train), "eval": len(self.held_out), "test": len(self.test)},
            **self.plan.as_json(),
            "findings": [dataclasses.asdict(one) for one in self.warnings],
            "suggestions": [dataclasses.asdict(one) for one in suggestions.suggest(self.facts)],
        }


def prepare(
    recipe: Recipe, *, assume_card: bool = False, card: cards.Card | None = None, resumed: Path | None = None
) -> Prepared:
    """Read the data and plan the run, without torch and without a network.

    assume_card: on a machine without a GPU, plan for a card of `budget.vram_gb` (a dry run; a real run then trains
    on the CPU, and its plan says so). card: plan for this one, whatever the machine has. resumed: the run that goes on.
    Raises SlimtuneError with everything at once that is wrong with the recipe's values, the data, the evaluation set, the
    base, the places to write to and what is to be exported; and for a plan that does not fit.
    """
    found = Gathered()
    with found:
        _require_reporters(recipe)
    method = methods.find(recipe.train.method)
    base = read = prepared = None
    with found:
        base = _base_of(recipe)
    with found:
        folders.require(recipe, base.folder if base else None, resumed)
    with found, text.tokens_of(base.tokenizer.control_tokens if base and base.tokenizer else None):
        read = _read(recipe, method, assume_card=assume_card, card=card)
    if base and read:
        with found:
            prepared = _plan(read, base)
    elif base:
        with found:
            _require_exportable(recipe, base)
    found.require_none()
    assert prepared is not None  # or something would have been found
    return prepared


def after_download(prepared: Prepared) -> Prepared:
    """Encode the examples with the base's own tokenizer, which is on this machine now, and plan again.

    Raises SlimtuneError as `prepare` does, for what only the base's files tell.
    """
    base = _base_of(prepared.recipe)
    if base.tokenizer:
        _require_no_tokens(prepared, base.tokenizer)
    return _plan(prepared, base)


def _require_no_tokens(read: _Read, tokenizer: ChatTokenizer) -> None:
    """Raise SlimtuneError for texts with tokens of the model, which the data were read without."""
    records = (*read.train, *read.held_out, *read.test)
    conversations = [one if isinstance(one, Conversation) else read.method.as_conversation(one) for one in records]
    problems: dict[str, list[Problem]] = {}
    with text.tokens_of(tokenizer.control_tokens):
        for one in {conversation.where: conversation for conversation in conversations}.values():
            found: list[tuple[str, tuple[str, str]]] = [
                (turn.role, fault)
                for turn in one.messages
                for fault in text.faults(turn.content, turn.role, calls=bool(turn.tool_calls))
            ]
            found += [("tools", fault) for fault in (text.faults(one.tools, "tool") if one.tools else ())]
            told = [Problem(f"the text ({role}) {what}", one.where, fix) for role, (what, fix) in found]
            problems.setdefault(one.path, []).extend(told)
    if any(problems.values()):
        raise bad_data(problems)


class _Base(NamedTuple):
    """The base's folder, shape and tokenizer, as far as they are on this machine."""

    folder: Path | None
    shape: models.ModelShape
    tokenizer: ChatTokenizer | None


def _require_reporters(recipe: Recipe) -> None:
    def installed(name: str) -> bool:
        # A folder that a tool has left in the working directory can be found, too, but has no file of its own.
        found = importlib.util.find_spec(name)
        return found is not None and found.origin is not None

    missing = [name for name in recipe.run.report_to if not installed(name)]
    if missing:
        problems = [Problem(f"{name} is not installed", "run.report_to", f"pip install {name}") for name in missing]
        raise SlimtuneError(problems)


def _base_of(recipe: Recipe) -> _Base:
    """Raises SlimtuneError for a base that cannot be trained, and settings that it does not have."""
    model = recipe.model
    folder = base_model.locate(model.base, model.revision)
    shape = models.of_base(model.base, folder)
    found = Gathered()
    if model.revision is not None and base_model.is_here(model.base):
        what = f"'{model.base}' is on this machine and has no revisions"
        found.add([Problem(what, "model.revision", "leave it out, or set model.base to the hub's repository")])
    with found:
        request_of(recipe).require_possible(shape)
    if folder is not None:
        with found:
            base_model.check_weights_at_hand(model.base, folder)
        with found:
            models.require_loadable(base_model.read_config(folder), model.base, load_in_4bit=model.load_in_4bit)
    tokenizer = None
    if folder is not None and (folder / "tokenizer.json").is_file():
        with found:
            tokenizer = ChatTokenizer(folder, model.thinking)
            families.require_template(families.get(shape.family), tokenizer, model.base)
            if tokenizer.vocabulary > shape.vocab_size:
                what = f"the tokenizer has {tokenizer.vocabulary:,} tokens, and the model {shape.vocab_size:,} (vocab_size)"
                fix = "use the tokenizer.json that belongs to the model"
                raise fail(what, where=str(folder / "tokenizer.json"), fix=fix)
    elif folder is not None and folder == inputs.at(model.base):  # a folder that no download completes
        what = f"{folder} has no tokenizer.json"
        found.add([Problem(what, "model.base", "use a model folder saved with its fast tokenizer")])
    found.require_none()
    return _Base(folder, shape, tokenizer)


def export_request(recipe: Recipe, folder: Path | None, tokenizer: ChatTokenizer | None) -> ExportRequest | None:
    """What the recipe wants to be made of the tuned model; None for nothing. folder, tokenizer: as in `Prepared`."""
    if recipe.export is None:
        return None
    return ExportRequest(
        name=recipe.name,
        base=recipe.model.base,
        base_folder=folder,
        load_in_4bit=recipe.model.load_in_4bit,
        thinking=recipe.model.thinking,
        system=recipe.data.system,
        max_length=recipe.model.max_seq_length,
        chat_template=tokenizer.template if tokenizer else None,
        tokenizer_folder=tokenizer.directory if tokenizer else None,
        wanted=recipe.export,
    )


def _require_exportable(recipe: Recipe, base: _Base) -> None:
    """Raise SlimtuneError for an export that would fail after training."""
    if request := export_request(recipe, base.folder, base.tokenizer):
        preflight.require_possible(request)


def _read(recipe: Recipe, method: Method, *, assume_card: bool, card: cards.Card | None) -> _Read:
    """Raises SlimtuneError with every problem of every data file and of the evaluation set."""
    data, evaluate, found = recipe.data, recipe.evaluate, Gathered()
    wrong = text.system_problems(data.system, "data.system")
    found.add(wrong)
    given: dict[str, Any] = {"system": None if wrong else data.system, "format": data.format, "seed": recipe.run.seed}
    train = held_out = whole = test = overlap = None
    questions: tuple[Conversation, ...] = ()
    asked: list[Item] = []
    with found:
        train = method.read([(source.path, source.weight) for source in data.train], mode=data.mode, **given)
    if data.eval:
        with found:
            held_out = method.read([(data.eval, 1.0)], mode=data.mode, **given)
    if evaluate:
        with found:
            whole = loading.load_conversations([(evaluate.data, 1.0)], **given)
            test = items.of_mode(whole, evaluate.kind, evaluate.mode)
        if test:
            with found:
                questions = tuple(items.first(test.conversations, evaluate.max_items, evaluate.data))
            with found:
                asked = items.read(questions or test.conversations, evaluate.kind, permutations=evaluate.permutations)
    files = [file for loaded in (train, held_out, test) if loaded for file in loaded.files]
    hashes = {one.file.path: one.sha256 for one in files if one.sha256}
    found.add(_same_files(recipe, hashes))
    splits: list[dict[str, Any]] = []
    with found:
        splits = split_manifest.recorded(hashes)
    found.require_none()
    assert train is not None  # or something would have been found
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
    compared = suitability.Evaluated(
        suitability.setup_of(recipe, whole, test),
        questions,
        list(map(method.as_conversation, held_out.conversations if held_out else ())),
    )
    conversations = list(map(method.as_conversation, train.conversations))
    findings = suitability.find(conversations, compared)
    with_tools = sum(bool(one.tools) or any(turn.tool_calls for turn in one.messages) for one in conversations)
    if with_tools and recipe.export is not None:
        notes.append(
            f"{with_tools} of {len(conversations)} training rows use tools. The exported TEMPLATE for Ollama renders no "
            "tools, so the model is not shown them there."
        )
    return _Read(
        recipe=recipe,
        method=method,
        request=request_of(recipe),
        train=train.conversations,
        held_out=held_out.conversations if held_out else (),
        test=questions,
        items=tuple(asked),
        data_hashes=hashes,
        data_splits=tuple(splits),
        contamination=overlap,
        hardware=hardware,
        notes=tuple(notes),
        findings=suitability.require_none_wrong(findings),
    )


def _same_files(recipe: Recipe, hashes: Mapping[str, str]) -> list[Problem]:
    """Held-out files that are training files, by name or by content: what is measured on them says nothing."""
    train = [source.path for source in recipe.data.train]
    held_out = [("data.eval", recipe.data.eval), ("evaluate.data", recipe.evaluate.data if recipe.evaluate else None)]
    problems = []
    for key, path in held_out:
        same = [
            other for other in train if path and (other == path or hashes.get(other, other) == hashes.get(path, ""))
        ]
        if same:
            what = f"{path} is also trained on" + ("" if same[0] == path else f", as {same[0]}")
            problems.append(Problem(what, key, "name a file of held-out rows; slimtune data split makes one"))
    return problems


def _plan(read: _Read, base: _Base) -> Prepared:
    method, request, found = read.method, read.request, Gathered()
    folder, shape, tokenizer = base
    examples: Sequence[Any] = ()
    held_out: Sequence[Any] = ()
    with found:
        _require_exportable(read.recipe, base)
    if tokenizer is not None and read.recipe.evaluate is not None:
        with found:
            settings = settings_of(read.recipe.evaluate, request.seed)
            items.require_askable(read.items, settings, tokenizer, request.model.max_seq_length)
    with found, console.stderr().bar("Counting tokens") as progress:
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
    found.require_none()
    warnings = read.findings
    if read.recipe.evaluate is not None:
        rows, limits = (
            list(map(method.as_conversation, read.train)),
            (read.recipe.evaluate, request.model.max_seq_length),
        )
        warnings += tuple(suitability.cut_replies(prompts, data.train, rows, read.test, *limits))
    said = tuple(map(suitability.sentence, warnings))
    return Prepared(
        **{field.name: getattr(read, field.name) for field in dataclasses.fields(_Read)},
        folder=folder,
        tokenizer=tokenizer,
        examples=examples,
        held_out_examples=held_out,
        data=data,
        shape=shape,
        plan=dataclasses.replace(plan, notes=(*said, *read.notes, *plan.notes)),
        facts=suggestions.facts_of(
            request,
            Counter(suggestions.task_of(method.as_conversation(record)) for record in read.train),
            sum(data.train.supervised),
            shape,
            rank=plan.lora_rank,
            steps=plan.total_steps,
        ),
        warnings=warnings,
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


def settings_of(evaluate: EvaluateSection, seed: int) -> Settings:
    """The settings of the evaluation, from the recipe's section."""
    shared = {field.name for field in dataclasses.fields(Settings)}
    return Settings(**evaluate.model_dump(include=shared), seed=seed)
