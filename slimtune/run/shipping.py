"""The last stage: export a run that passed its verdict. It needs the run's folder alone, so it can be repeated later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimtune.core import memory, output_folders, run_folder
from slimtune.core.console import Console
from slimtune.core.errors import Gathered, fail
from slimtune.core.run_folder import as_dict, at, mapping, required
from slimtune.core.run_lock import RunLock
from slimtune.core.run_record import RunRecord
from slimtune.data.chat_template import ChatTokenizer
from slimtune.evaluate import answer_file, kinds
from slimtune.evaluate.kinds.kind import Item
from slimtune.export import folders
from slimtune.export.proof import golden, parity_text
from slimtune.export.proof.questions import WHERE_LETTERS_ANSWER, Questions
from slimtune.export.shipment import Shipment
from slimtune.models import files
from slimtune.models.settings import TORCH_NAMES
from slimtune.recipe import loading as recipes
from slimtune.recipe import places
from slimtune.recipe.schema import ExportSection, Recipe
from slimtune.run import stages
from slimtune.run.prepare import settings_of

REFUSED = ("worse", "collapsed", "contaminated", "format failure")
"""Verdicts that `export.require_verdict` does not let pass."""


def export(record: RunRecord, recipe: Recipe, folder: Path, console: Console, *, force: bool = False) -> None:
    """Merge, convert, write the Modelfile and prove it all (export/build.py), where the recipe and the verdict allow it.

    folder: the base model's. force: export whatever the verdict is; the run records the reason that this overrides.
    """
    from slimtune.export import build

    run = record.path()
    if recipe.export is None:
        _refused("the recipe has no export section", record, console)
        return
    refused = refusal(recipe, run)
    if refused and not force:
        _refused(refused, record, console)
        console.say(f"to export it nevertheless: slimtune export {run} --force")
        return
    if refused:
        record.event("export_forced", refused)
        console.warn(f"exported by force: {refused}")
    console.step("Exporting")
    with record.phase("export"):
        exported = build.ship(_shipment(run, recipe, recipe.export, folder), run / "export", console)
    show(run / "export", console)
    # Replaced whole: a forced export that is repeated without force is no longer marked as forced.
    record.manifest.pop("export", None)
    record.update(export=exported | ({"forced": refused} if refused else {}))
    record.event("exported", ", ".join(exported["gguf"]) or "merged weights")


def refusal(recipe: Recipe, run: Path) -> str | None:
    """Why `export.require_verdict` refuses; None where the export may go on.
    "cannot tell" passes, unless the test cannot even tell the model from a constant answer."""
    if recipe.export is None or not recipe.export.require_verdict:
        return None
    judged = required(run, "eval/verdict.json")
    verdict = judged.get("verdict")
    if verdict in REFUSED:
        return f"the verdict is '{verdict}', and export.require_verdict is on"
    majority, interval = as_dict(judged.get("majority")), as_dict(judged.get("tuned")).get("interval")
    if verdict == "cannot tell" and majority and interval and interval[0] <= majority["share"]:
        constant = f"from always answering '{majority['label']}'"
        what = f"the test can tell the tuned model neither from its base nor {constant}"
        return f"{what}, and export.require_verdict is on"
    return None


def export_again(
    run: Path, console: Console, *, force: bool, fresh: bool, asked: Mapping[str, Any] | None = None
) -> None:
    """Export a finished run's adapter as its recipe says, and render its report again.

    fresh: replace an export that is there, once the new one is proven. asked: values of the export section that count
    instead of the recipe's. Raises SlimtuneError where the run has no adapter or no export section, where it is exported
    already, and where the verdict forbids it.
    """
    from slimtune.export import preflight

    manifest = run_folder.read_own(run).manifest
    if not (run / "adapter" / "adapter_config.json").is_file():
        raise fail("the run has no adapter yet", where=str(run), fix="finish it with --resume")
    recipe, sources = recipes.load_with_sources(run / "recipe.yaml")
    if recipe.export is None:
        raise fail("the run's recipe has no export section", where=str(run / "recipe.yaml"), fix="train with one")
    refused = refusal(recipe, run)
    if refused and not force:
        raise fail(f"nothing is exported: {refused}", where=str(run), fix="see its report.html; --force exports it")
    wanted = recipe.export.model_copy(update=dict(asked or {}))
    recipe = recipe.model_copy(update={"export": wanted})
    sources |= {f"export.{key}": "command line" for key in asked or {}}
    record = RunRecord(run.resolve(), manifest, memory.Meter())
    with RunLock(record.directory, console.say), places.naming(recipe, run / "recipe.yaml", sources):
        option = "--merged" if "merged" in (asked or {}) else "export.merged"
        _require_folders(record.directory, recipe, wanted, option, fresh)
        folder = files.fetch(recipe.model.base, recipe.model.revision)
        found = Gathered()
        with found:
            preflight.require_possible(_shipment(record.directory, recipe, wanted, folder))
        with found:
            preflight.require_mergeable(record.directory / "adapter", folder, lora_gguf=wanted.lora_gguf)
        found.require_none()
        export(record, recipe, folder, console, force=force)
        stages.render(record.directory, console)


def _require_folders(run: Path, recipe: Recipe, wanted: ExportSection, option: str, fresh: bool) -> None:
    """Raise SlimtuneError where the export or its merged weights would replace what is not theirs, or an input."""
    export = (run / "export").resolve()
    output_folders.remove_leftovers(export)
    folders.require_free(export, fresh=fresh)
    if wanted.merged is None:
        return
    base = files.locate(recipe.model.base, recipe.model.revision)
    folders.require_apart(
        {option: wanted.merged}, {"the run": run, "the base model": base, **places.data_files(recipe)}
    )
    folders.require_merged_free(wanted.merged, option, adapter=run / "adapter", fresh=fresh)


def show(directory: Path, console: Console) -> None:
    """What an export's parity.json holds, on the screen."""
    content = mapping(directory, "parity.json", [])
    if rows := parity_text.rows(content):
        console.table(parity_text.TITLE, [parity_text.HEADING, *rows])
    for sentence in parity_text.sentences(content):
        console.say(sentence)


def _refused(why: str, record: RunRecord, console: Console) -> None:
    record.event("not_exported", why)
    console.warn(f"nothing is exported: {why}")


def _shipment(run: Path, recipe: Recipe, wanted: ExportSection, folder: Path) -> Shipment:
    precision = at(required(run, "plan.json"), "settings.precision.value")
    if precision not in TORCH_NAMES:
        what = "the plan does not say in which precision the run computed"
        raise fail(what, where=str(run / "plan.json"), fix="put the file back as the run wrote it")
    prompts = golden.read(run)
    if not prompts:
        raise fail(
            "the run did not record what its tuned model answers",
            where=str(run / "eval" / golden.FILE_NAME),
            fix=f"export its adapter, which is asked first: slimtune export {run / 'adapter'}",
        )
    return Shipment(
        name=recipe.name,
        adapter=run / "adapter",
        base=recipe.model.base,
        base_folder=folder,
        load_in_4bit=recipe.model.load_in_4bit,
        load_dtype=TORCH_NAMES[precision],
        thinking=recipe.model.thinking,
        system=recipe.data.system,
        max_length=recipe.model.max_seq_length,
        chat_template=ChatTokenizer(folder, recipe.model.thinking).template,
        tokenizer_folder=run / "adapter" if (run / "adapter" / "tokenizer_config.json").is_file() else folder,
        golden=prompts,
        questions=_questions(run, recipe, wanted),
        wanted=wanted,
    )


def _questions(run: Path, recipe: Recipe, wanted: ExportSection) -> Questions | None:
    """The verdict's questions that each GGUF answers again; None where the run asked none of that kind."""
    evaluate = recipe.evaluate
    if evaluate is None or evaluate.kind != "multiple_choice":
        return None
    settings = settings_of(evaluate, recipe.run.seed)
    count = wanted.parity_questions
    if count is None:
        count = WHERE_LETTERS_ANSWER if kinds.by_letters(settings) else 0
    stored = run / "eval" / "items.jsonl"
    items = [Item.from_json(row) for row in answer_file.read(stored)] if count and stored.exists() else []
    tuned = answer_file.read(run / "eval" / "tuned.jsonl") if count and items else []
    return Questions.first(count, items, tuned, settings)
