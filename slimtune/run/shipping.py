"""The last stage: what passed its verdict is exported. Works from a run's folder alone, so that it can be done again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from slimtune.core import memory
from slimtune.core.console import Console
from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.run_folder import as_dict, lines, mapping
from slimtune.core.run_lock import RunLock
from slimtune.core.run_record import RunRecord
from slimtune.data.chat_template import ChatTokenizer
from slimtune.evaluate import answer_file
from slimtune.export import model_card
from slimtune.export.proof import golden as goldens
from slimtune.export.proof import questions as verdicts_questions
from slimtune.models import files as base_model
from slimtune.models import shapes as models
from slimtune.recipe import schema as recipes
from slimtune.recipe.schema import ExportSection, GgufType, MergeBase, Recipe
from slimtune.run import experiment_log, judging, report

if TYPE_CHECKING:
    from slimtune.export.proof.questions import Questions

ROOM_FOR_ANSWER = 512
"""Tokens that Ollama's context gets beyond the longest training example."""
REFUSED = ("worse", "collapsed", "contaminated", "format failure")
"""Verdicts that `export.require_verdict` does not let pass."""

TorchDtype = Literal["bfloat16", "float16", "float32"]
_TORCH_NAMES: dict[str, TorchDtype] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
TORCH_DTYPES: dict[str, TorchDtype] = {name: name for name in _TORCH_NAMES.values()}


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for instead of the recipe's export section; None and False ask for nothing."""

    gguf: tuple[GgufType, ...] | None = None
    merge_base: MergeBase | None = None
    ollama_name: str | None = None
    lora_gguf: bool = False
    merged: Path | None = None

    def over(self, section: ExportSection) -> ExportSection:
        """The section with what is asked for in its place."""
        asked: dict[str, Any] = {"gguf": self.gguf and list(self.gguf), "merge_base": self.merge_base}
        asked |= {"ollama_name": self.ollama_name, "lora_gguf": self.lora_gguf or None}
        asked |= {"merged": self.merged and str(self.merged)}
        return section.model_copy(update={key: value for key, value in asked.items() if value is not None})


def export(
    record: RunRecord, folder: Path, console: Console, *, force: bool = False, wishes: Wishes | None = None
) -> None:
    """Merge, convert, write the Modelfile and prove it all (export/ship.py), where the recipe and the verdict let it.

    folder: the base model's. force: export whatever the verdict is; that is recorded with the reason it overrides.
    """
    from slimtune.export.proof import proof

    run = record.directory
    recipe = recipes.load(run / "recipe.yaml")
    if recipe.export is None:
        _refused("the recipe has no export section", record, console)
        return
    refused = refusal(recipe, mapping(run, "eval/verdict.json", []))
    if refused and not force:
        _refused(refused, record, console)
        console.say(f"to export it all the same: slimtune export {run} --force")
        return
    if refused:
        record.event("export_forced", refused)
        console.warn(f"exported by force: {refused}")
    console.step("Exporting")
    with record.phase("export"):
        exported = _ship(record, recipe, (wishes or Wishes()).over(recipe.export), folder, console)
    proof.show(run / "export", console)
    # Replaced whole: a forced export that is repeated without force is forced no longer.
    record.manifest.pop("export", None)
    record.update(export=exported | ({"forced": refused} if refused else {}))
    record.event("exported", ", ".join(exported["gguf"]) or "merged weights")


def refusal(recipe: Recipe, judged: dict[str, Any]) -> str | None:
    """Why `export.require_verdict` refuses; None where the export may go on. judged: verdict.json's content, or {}.

    A model of which nothing can be told is let through, unless the test cannot even tell it from a constant answer.
    """
    if recipe.export is None or not recipe.export.require_verdict:
        return None
    verdict = judged.get("verdict")
    if verdict in REFUSED:
        return f"the verdict is '{verdict}', and export.require_verdict is on"
    majority, interval = as_dict(judged.get("majority")), as_dict(judged.get("tuned")).get("interval")
    if verdict == "cannot tell" and majority and interval and interval[0] <= majority["share"]:
        constant = f"from always answering '{majority['label']}'"
        return (
            f"the test can tell the tuned model neither from its base nor {constant}, and export.require_verdict is on"
        )
    return None


def export_again(run: Path, console: Console, *, force: bool, fresh: bool, wishes: Wishes | None = None) -> None:
    """Export a finished run's adapter as its recipe says, and render its report anew.

    fresh: replace an export that is there, once the new one is proven. Raises SlimtuneError where the run has no adapter
    or no export section, where it is exported already, and where the verdict forbids it.
    """
    from slimtune.export import build as ship

    manifest = mapping(run, "manifest.json", [])
    if not manifest or not (run / "recipe.yaml").is_file():
        raise fail("no run", where=str(run), fix="name a run's folder, e.g. outputs/direct/latest")
    if not (run / "adapter" / "adapter_config.json").is_file():
        raise fail("the run has no adapter yet", where=str(run), fix="finish it with --resume")
    recipe = recipes.load(run / "recipe.yaml")
    if recipe.export is None:
        raise fail("the run's recipe has no export section", where=str(run / "recipe.yaml"), fix="train with one")
    refused = refusal(recipe, mapping(run, "eval/verdict.json", []))
    if refused and not force:
        raise fail(f"nothing is exported: {refused}", where=str(run), fix="see its report.html; --force exports it")
    record = RunRecord(run.resolve(), manifest, memory.Meter())
    with RunLock(record.directory, console.say):
        ship.require_free(record.directory / "export", fresh=fresh)
        folder = base_model.fetch(recipe.model.base, recipe.model.revision)
        export(record, folder, console, force=force, wishes=wishes)
        experiment_log.write(record.directory)
        report.write(record.directory)


def _refused(why: str, record: RunRecord, console: Console) -> None:
    record.event("not_exported", why)
    console.warn(f"nothing is exported: {why}")


def _ship(record: RunRecord, recipe: Recipe, wanted: ExportSection, folder: Path, console: Console) -> dict[str, Any]:
    from slimtune.export import build as ship

    run = record.directory
    shape = models.from_config(base_model.read_config(folder), recipe.model.base)
    precision = as_dict(as_dict(mapping(run, "plan.json", []).get("settings")).get("precision")).get("value")
    if precision not in _TORCH_NAMES:
        raise fail("does not say in which precision the run computed", where=str(run / "plan.json"))
    golden = goldens.read(lines(run, "eval/golden.jsonl", []))
    if not golden:
        raise fail(
            "the run did not record what its tuned model answers",
            where=str(run / "eval/golden.jsonl"),
            fix=f"export its adapter, which asks it first: slimtune export {run / 'adapter'}",
        )
    shipment = ship.Shipment(
        name=recipe.name,
        ollama_name=wanted.ollama_name or recipe.name,
        gguf_types=tuple(wanted.gguf),
        merge_base=wanted.merge_base,
        load_in_4bit=recipe.model.load_in_4bit,
        load_dtype=_TORCH_NAMES[precision],
        parameters=shape.total_parameters,
        family="qwen3" if shape.family == "qwen3" else "qwen2.5",
        thinking=recipe.model.thinking,
        system=recipe.data.system,
        num_ctx=wanted.num_ctx or recipe.model.max_seq_length + ROOM_FOR_ANSWER,
        temperature=wanted.temperature,
        base_model=recipe.model.base,
        **card_facts(folder, wanted),
        lora_gguf=wanted.lora_gguf,
        merged_dir=Path(wanted.merged).resolve() if wanted.merged else None,
    )
    twin, without_twin = twin_of(recipe.model.base, folder, wanted.merge_base, console)
    exported = ship.ship(
        shipment,
        adapter=run / "adapter",
        base=folder,
        twin=twin,
        chat_template=ChatTokenizer(folder, recipe.model.thinking).template,
        directory=run / "export",
        golden=golden,
        asked=_asked(run, recipe, wanted),
        console=console,
    )
    return exported | ({"without_16bit_twin": without_twin} if without_twin else {})


def card_facts(folder: Path, wanted: ExportSection) -> dict[str, Any]:
    """License and languages for the model card: what is wished for, else what the base's own card states."""
    languages = wanted.languages or model_card.languages_of(folder)
    return {"license": wanted.license or model_card.licence_of(folder), "languages": tuple(languages)}


def twin_of(base: str, folder: Path, merge_base: MergeBase, console: Console) -> tuple[Path | None, str]:
    """The base's 16-bit weights where merge_base wants them, and why "auto" has to do without.

    folder: what was trained on; 16-bit weights that were quantised at load are their own twin.
    """
    from slimtune.export import build as ship

    if merge_base == "dequantised":
        return None, ""
    if not base_model.read_config(folder).get("quantization_config"):
        return folder, ""
    if merge_base == "16bit":
        return ship.sixteen_bit_base(base), ""
    try:
        return ship.sixteen_bit_base(base), ""
    except SlimtuneError as error:
        why = error.problems[0].what
        console.warn(f"merge_base: auto keeps the dequantised base, since there is nothing to compare it with: {why}")
        return None, why


def _asked(run: Path, recipe: Recipe, wanted: ExportSection) -> Questions | None:
    """The verdict's questions that each GGUF answers again; None where the run asked none of that kind."""
    evaluate = recipe.evaluate
    if evaluate is None or evaluate.kind != "multiple_choice":
        return None
    settings = judging.settings_of(evaluate, recipe.run.seed)
    count = wanted.parity_questions
    if count is None:
        count = verdicts_questions.WHERE_LETTERS_ANSWER if settings.by_letters else 0
    items = verdicts_questions.items_of(lines(run, "eval/items.jsonl", []))
    tuned = answer_file.read(run / "eval" / "tuned.jsonl") if items else []
    if not count or not items:
        return None
    return verdicts_questions.Questions.first(count, items, tuned, settings)
