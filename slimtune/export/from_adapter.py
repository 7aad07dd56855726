"""Export a standalone adapter or checkpoint. Its reference answers were not recorded, so they are collected first."""

import re
from pathlib import Path
from typing import Any

from slimtune.core import output_folders, outputs, run_record, versions
from slimtune.core.errors import Gathered
from slimtune.core.progress import OnProgress
from slimtune.data import loading as data_loading
from slimtune.data.chat_template import ChatTokenizer
from slimtune.evaluate import asking, items
from slimtune.evaluate.kinds.kind import Item, Settings
from slimtune.evaluate.targets import opening
from slimtune.evaluate.targets.opening import Loading
from slimtune.export import build, folders, preflight
from slimtune.export.proof import golden as goldens
from slimtune.export.proof.golden import Golden
from slimtune.export.proof.questions import WHERE_LETTERS_ANSWER, Questions
from slimtune.export.request import ExportRequest
from slimtune.export.shipment import Shipment
from slimtune.models import files as base_model
from slimtune.models.settings import TorchDtype
from slimtune.recipe.names import KindName
from slimtune.recipe.schema import ExportSection

_NOT_IN_A_NAME = re.compile(r"[^a-z0-9._-]+")


def export(
    adapter: Path,
    wanted: ExportSection,
    loading: Loading,
    on_progress: OnProgress,
    *,
    out: Path | None = None,
    data: str | None = None,
    system: str | None = None,
    fresh: bool = False,
) -> Path:
    """Merge, convert, write the Modelfile and prove it all against the adapter itself; returns the folder that was made.

    data: held-out rows to compare on; None compares on generated conversations. system: the training's system prompt.
    fresh: replace `out`, once the new export is proven. There is no verdict on such an adapter, and no gate.
    Raises SlimtuneError where the adapter or its base cannot be loaded, where `out` or `wanted.merged` holds something
    else or is an input, and as `build.ship` does.
    """
    spec = opening.spec_of(str(adapter))
    weights = opening.weights_of(spec, loading)
    name = wanted.ollama_name or _NOT_IN_A_NAME.sub("-", spec.slug.lower()).strip("-._")[:64] or "adapter"
    option, directory = ("--out", out) if out else ("the export", Path("outputs") / "exports" / name)
    read = {
        "the adapter": adapter,
        "its run": _run_of(adapter),
        "the base model": base_model.locate(weights.base, weights.revision),
        "the data": data,
    }
    folders.require_apart({option: directory, "--merged": wanted.merged}, read)
    output_folders.remove_leftovers(outputs.named(directory, option))
    found = Gathered()
    with found:
        directory = folders.require_free(directory, option, fresh=fresh)
    if wanted.merged:
        with found:
            folders.require_merged_free(wanted.merged, "--merged", adapter=adapter, fresh=fresh)
    found.require_none()
    held_out = _held_out(data, system)
    place, folder = Path(spec.place), base_model.fetch(weights.base, weights.revision)
    # An adapter carries the tokenizer and the template that it was trained with.
    own = ChatTokenizer(place if (place / "tokenizer.json").is_file() else folder, weights.thinking)
    request: dict[str, Any] = {
        "name": name,
        "base": weights.base,
        "base_folder": folder,
        "load_in_4bit": weights.load_in_4bit,
        "thinking": weights.thinking,
        "system": system,
        "max_length": weights.max_length,
        "chat_template": own.template,
        "tokenizer_folder": own.directory,
        "wanted": wanted,
    }
    found = Gathered()
    with found:
        preflight.require_possible(ExportRequest(**request))
    with found:
        preflight.require_mergeable(place, folder, lora_gguf=wanted.lora_gguf)
    with found:
        settings = Settings() if held_out and held_out[0].labels else Settings(kind="perplexity")
        items.require_askable(held_out, settings, own, weights.max_length)
    found.require_none()
    on_progress.step(f"Asking the adapter {place}")
    golden, questions, precision = _asked(spec, loading, held_out, weights.max_length)

    from slimtune.train import trainer  # imports Unsloth, which loading the adapter needed anyway

    trainer.release_memory()
    shipment = Shipment(**request, adapter=place, load_dtype=precision, golden=golden, questions=questions)
    facts: dict[str, Any] = {"adapter": str(adapter), "base": weights.base, "revision": weights.revision, "data": data}

    def record(made: dict[str, Any]) -> dict[str, Any]:
        of_it = {**facts, "load_in_4bit": weights.load_in_4bit, "export": made}
        return of_it | {"versions": versions.installed(), "finished": run_record.now()}

    on_progress.step("Exporting")
    build.ship(shipment, directory, on_progress, more={"export.json": record})
    return directory


def _run_of(adapter: Path) -> Path | None:
    """The folder of the run that has the adapter, or the checkpoint; None for one of its own."""
    near = adapter.resolve().parents[:2]
    return next((folder for folder in near if (folder / "manifest.json").is_file()), None)


def _held_out(data: str | None, system: str | None) -> list[Item]:
    """Questions where the rows have choices, else prompts with their references."""
    if data is None:
        return []
    rows = data_loading.load_conversations([(data, 1.0)], system=system).conversations
    kind: KindName = "multiple_choice" if rows and all(row.meta.get("choices") for row in rows) else "perplexity"
    return items.read(rows, kind)


def _asked(
    spec: opening.Spec, loading: Loading, held_out: list[Item], max_length: int
) -> tuple[list[Golden], Questions | None, TorchDtype]:
    """What the adapter answers on its base, loaded as it was trained, and the precision that it computes in."""
    with opening.open_target(spec, loading) as opened:
        local, questions = opened.local, None
        if held_out and held_out[0].labels:
            asked = held_out[:WHERE_LETTERS_ANSWER]
            questions = Questions.first(len(asked), held_out, asking.ask(local, asked, Settings()), Settings())
        golden = goldens.ask(local, held_out or goldens.made_up(local.tokenizer, max_length))
        return golden, questions, local.facts().values["precision"]
