"""The last stage: what passed its verdict is exported. Works from a run's folder alone, so that it can be done again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from slimtune import base_model, experiment_log, memory, report
from slimtune import recipe as recipes
from slimtune.console import Console
from slimtune.data.chat import ChatTokenizer
from slimtune.errors import fail
from slimtune.plan import models
from slimtune.recipe import GgufType, Recipe
from slimtune.run_folder import as_dict, lines, mapping
from slimtune.run_lock import RunLock
from slimtune.run_record import RunRecord

ROOM_FOR_ANSWER = 512
"""Tokens that Ollama's context gets beyond the longest training example."""
REFUSED = ("worse", "collapsed", "contaminated", "format failure")
"""Verdicts that `export.require_verdict` does not let pass."""

_TORCH_NAMES: dict[str, Literal["bfloat16", "float16", "float32"]] = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
}


def export(
    record: RunRecord, folder: Path, console: Console, *, force: bool = False, kinds: Sequence[GgufType] | None = None
) -> None:
    """Merge, convert, write the Modelfile and compare (export/ship.py), where the recipe and the verdict let it.

    folder: the base model's. force: export whatever the verdict is; that is recorded with the reason it overrides.
    kinds: GGUF types instead of the recipe's.
    """
    from slimtune.export import ship

    run = record.directory
    recipe = recipes.load(run / "recipe.yaml")
    if recipe.export is None:
        _refused("the recipe has no export section", record, console)
        return
    refused = refusal(recipe, mapping(run, "eval/verdict.json", []))
    if refused and not force:
        _refused(refused, record, console)
        console.say(f"to export it all the same: python -m slimtune.cli export {run} --force")
        return
    if refused:
        record.event("export_forced", refused)
        console.warn(f"exported by force: {refused}")
    console.step("Exporting")
    with record.phase("export"):
        exported = _ship(record, recipe, folder, console, kinds)
    table = ship.parity_table(run / "export")
    if table:
        console.table("Parity of what ships with the merged model", table)
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


def export_again(
    run: Path, console: Console, *, force: bool, fresh: bool, kinds: Sequence[GgufType] | None = None
) -> None:
    """Export a finished run's adapter as its recipe says, and render its report anew.

    fresh: replace an export that is there. kinds: GGUF types instead of the recipe's. Raises SlimtuneError where the run has no adapter or no export section, where
    it is exported already, and where the verdict forbids it.
    """
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
    place = run / "export"
    with RunLock(record.directory, console.say):
        if place.is_dir() and any(place.iterdir()):
            if not fresh:
                raise fail("there is an export already", where=str(place), fix="--fresh replaces it")
            shutil.rmtree(place)
        place.mkdir(exist_ok=True)
        export(record, base_model.fetch(recipe.model.base, recipe.model.revision), console, force=force, kinds=kinds)
        experiment_log.write(record.directory)
        report.write(record.directory)


def _refused(why: str, record: RunRecord, console: Console) -> None:
    record.event("not_exported", why)
    console.warn(f"nothing is exported: {why}")


def _ship(
    record: RunRecord, recipe: Recipe, folder: Path, console: Console, kinds: Sequence[GgufType] | None
) -> dict[str, Any]:
    from slimtune.export import ship

    run, wanted = record.directory, recipe.export
    assert wanted is not None  # `export` has looked
    shape = models.from_config(base_model.read_config(folder), recipe.model.base)
    precision = as_dict(as_dict(mapping(run, "plan.json", []).get("settings")).get("precision")).get("value")
    if precision not in _TORCH_NAMES:
        raise fail("does not say in which precision the run computed", where=str(run / "plan.json"))
    shipment = ship.Shipment(
        name=recipe.name,
        ollama_name=wanted.ollama_name or recipe.name,
        gguf_types=tuple(kinds or wanted.gguf),
        merge_base=wanted.merge_base,
        load_in_4bit=recipe.model.load_in_4bit,
        load_dtype=_TORCH_NAMES[precision],
        parameters=shape.total_parameters,
        family="qwen3" if shape.family == "qwen3" else "qwen2.5",
        thinking=recipe.model.thinking,
        system=recipe.data.system,
        num_ctx=wanted.num_ctx or recipe.model.max_seq_length + ROOM_FOR_ANSWER,
        temperature=wanted.temperature,
    )
    golden = [
        ship.Golden(
            row["id"], row["prompt"], tuple(row["prompt_ids"]), row["greedy_token"], tuple(row.get("messages", ()))
        )
        for row in lines(run, "eval/golden.jsonl", [])
    ]
    return ship.ship(
        shipment,
        adapter=run / "adapter",
        base=ship.sixteen_bit_base(recipe.model.base) if wanted.merge_base == "16bit" else folder,
        chat_template=ChatTokenizer(folder, recipe.model.thinking).template,
        directory=run / "export",
        golden=golden,
        say=console.say,
    )
