"""An adapter that is no run, or a checkpoint of one, is exported: it is loaded and asked first, since nobody recorded it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core import run_record, versions
from slimtune.core.console import Console
from slimtune.core.files import write_json
from slimtune.data import loading as data_loading
from slimtune.data.chat_template import ChatTokenizer
from slimtune.evaluate import asking, items
from slimtune.evaluate.asking import Row, Settings
from slimtune.evaluate.items import Item, Kind
from slimtune.evaluate.targets import opening, target_spec
from slimtune.evaluate.targets.opening import Loading, Weights
from slimtune.export.proof import golden as goldens
from slimtune.export.proof.golden import Golden
from slimtune.export.proof.questions import WHERE_LETTERS_ANSWER, Questions
from slimtune.models import files as base_model
from slimtune.models import shapes as models
from slimtune.recipe.schema import ExportSection
from slimtune.run import shipping
from slimtune.run.shipping import ROOM_FOR_ANSWER, TORCH_DTYPES, Wishes

_NOT_IN_A_NAME = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True)
class _Asked:
    """What the loaded adapter answered, and the precision it computed in."""

    golden: list[Golden]
    questions: Questions | None
    precision: str


def export(
    adapter: Path,
    wishes: Wishes,
    loading: Loading,
    console: Console,
    *,
    out: Path | None = None,
    data: str | None = None,
    system: str | None = None,
    fresh: bool = False,
) -> Path:
    """Merge, convert, write the Modelfile and prove it all against the adapter itself; the folder that was made.

    data: held-out rows to compare on; None compares on made-up conversations. system: the training's system prompt.
    fresh: replace `out`, once the new one is proven. There is no verdict on such an adapter, and no gate.
    Raises SlimtuneError where the adapter or its base cannot be loaded, and as `ship.ship` does.
    """
    from slimtune.export import build as ship
    from slimtune.export.proof import proof

    spec = target_spec.parse(str(adapter))
    weights = opening.weights_of(spec, loading)
    name = wishes.ollama_name or _name(spec.slug)
    directory = (out or Path("outputs") / "exports" / name).resolve()
    ship.require_free(directory, fresh=fresh)
    held_out = _items(data, system)
    folder = base_model.fetch(weights.base, weights.revision)
    asked = _ask(spec, loading, weights, held_out, console)
    console.step("Exporting")
    wanted = wishes.over(ExportSection())
    config = base_model.read_config(folder)
    shape = models.from_config(config, weights.base)
    twin, without_twin = shipping.twin_of(weights.base, folder, wanted.merge_base, console)
    exported = ship.ship(
        ship.Shipment(
            name=name,
            ollama_name=name,
            gguf_types=tuple(wanted.gguf),
            merge_base=wanted.merge_base,
            load_in_4bit=weights.load_in_4bit,
            load_dtype=TORCH_DTYPES[asked.precision],
            parameters=shape.total_parameters,
            family="qwen3" if shape.family == "qwen3" else "qwen2.5",
            thinking=weights.thinking,
            system=system,
            num_ctx=weights.max_length + ROOM_FOR_ANSWER,
            temperature=wanted.temperature,
            base_model=weights.base,
            **shipping.card_facts(folder, wanted),
            lora_gguf=wanted.lora_gguf,
            merged_dir=Path(wanted.merged).resolve() if wanted.merged else None,
        ),
        adapter=adapter,
        base=folder,
        twin=twin,
        chat_template=ChatTokenizer(_with_template(adapter, folder), weights.thinking).template,
        directory=directory,
        golden=asked.golden,
        asked=asked.questions,
        console=console,
    )
    facts: dict[str, Any] = {"adapter": str(adapter), "base": weights.base, "revision": weights.revision, "data": data}
    facts |= {"load_in_4bit": weights.load_in_4bit, "without_16bit_twin": without_twin or None}
    record = {**facts, "export": exported, "versions": versions.installed(), "finished": run_record.now()}
    write_json(directory / "export.json", record)
    proof.show(directory, console)
    console.paths([("export", directory)])
    return directory


def _name(slug: str) -> str:
    """A model's name out of a folder's."""
    return _NOT_IN_A_NAME.sub("-", slug.lower()).strip("-._")[:64] or "adapter"


def _with_template(adapter: Path, folder: Path) -> Path:
    """An adapter carries the tokenizer and the template that it was trained with."""
    return adapter if (adapter / "tokenizer.json").is_file() else folder


def _items(data: str | None, system: str | None) -> list[Item]:
    """Questions where the rows have choices, else prompts with their references."""
    if data is None:
        return []
    rows = data_loading.load_conversations([(data, 1.0)], system=system).conversations
    kind: Kind = "multiple_choice" if rows and all(row.meta.get("choices") for row in rows) else "perplexity"
    return items.read(rows, kind)


def _ask(spec: target_spec.Spec, loading: Loading, weights: Weights, held_out: list[Item], console: Console) -> _Asked:
    """Load the adapter on its base, as it was trained, and let go of it again."""
    console.step(f"Asking the adapter {spec.place}")
    with opening.open_target(spec, loading) as opened:
        local = opened.local
        chosen = held_out or goldens.made_up(local.tokenizer, weights.max_length)
        golden = goldens.read(goldens.ask(local, chosen))
        questions = None
        if held_out and held_out[0].labels:
            settings = Settings()
            asked = held_out[:WHERE_LETTERS_ANSWER]
            rows: list[Row] = asking.ask(local, asked, settings)
            questions = Questions.first(len(asked), held_out, rows, settings)
        precision = str(local.facts().values["precision"])
        del local, opened
    from slimtune.train import training

    training.release_memory()
    return _Asked(golden, questions, precision)
