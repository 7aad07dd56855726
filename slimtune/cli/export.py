"""`slimtune export`."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from slimtune.cli import options
from slimtune.core import inputs
from slimtune.core.errors import fail
from slimtune.recipe.names import GGUF_TYPES, MergeBase


def export(
    target: Annotated[Path | None, Argument(help="A run, e.g. outputs/direct/latest, or an adapter folder.")] = None,
    gguf: Annotated[str | None, Option(help="GGUF types instead of the recipe's, e.g. q4_k_m,q8_0.")] = None,
    lora_gguf: Annotated[bool, Option("--lora-gguf", help="Also export the adapter alone as a GGUF.")] = False,
    merged: Annotated[Path | None, Option(help="Folder for the merged weights.")] = None,
    merge_base: Annotated[
        Literal[MergeBase, "auto"] | None, Option(help="Base to merge the adapter into; auto measures both.")
    ] = None,
    ollama: Annotated[str | None, Option(help="The model's name in Ollama.")] = None,
    force: Annotated[bool, Option("--force", help="Export whatever the verdict is; the run records it.")] = False,
    fresh: Annotated[bool, Option("--fresh", help="Replace an existing export once the new one is proven.")] = False,
    out: Annotated[Path | None, Option(help="Adapter only: the folder to create.")] = None,
    data: Annotated[str | None, Option(help="Adapter only: held-out rows to compare on.")] = None,
    system: Annotated[str | None, Option(help="Adapter only: the system prompt of its training.")] = None,
    load_in_4bit: Annotated[
        bool | None, Option("--load-in-4bit/--load-in-16bit", help="Adapter only: as its base was trained.")
    ] = None,
    thinking: Annotated[
        bool | None, Option("--thinking/--no-thinking", help="Adapter only: trained with thinking or not.")
    ] = None,
    max_length: Annotated[int | None, Option(min=64, help="Adapter only: longest prompt plus reply.")] = None,
    check: Annotated[
        Path | None, Option(metavar="FILE", help="Only check a Modelfile or GGUF, whoever made it.")
    ] = None,
) -> None:
    """Export an adapter: merged weights, GGUF, Modelfile, and the proof that they are the model that was trained.

    A run is exported as its recipe says, if its verdict allows it.
    """
    if check is not None:
        from slimtune.export.check.check_modelfile import check_file

        options.report(check_file(check))
        return
    if target is None:
        fix = "name a run's folder or an adapter's, or --check FILE"
        raise fail("nothing to export was named", where="export", fix=fix)
    from slimtune.core.console import Console
    from slimtune.recipe.schema import NAME, ExportSection
    from slimtune.run import shipping

    if ollama is not None and not re.fullmatch(NAME, ollama):
        fix = "use lower-case letters, digits, '.', '_' and '-'"
        raise fail(f"{ollama!r} is not a usable name", where="--ollama", fix=fix)
    wanted: dict[str, Any] = {"gguf": _gguf_types(gguf), "merge_base": merge_base, "ollama_name": ollama}
    wanted |= {"lora_gguf": lora_gguf or None, "merged": _path(merged, "--merged")}
    asked = {key: value for key, value in wanted.items() if value is not None}
    console = Console()
    if inputs.exists(target / "adapter_config.json"):
        from slimtune.evaluate.targets.opening import Loading
        from slimtune.export import from_adapter

        section, loading = ExportSection(**asked), Loading(load_in_4bit, max_length, thinking)
        made = from_adapter.export(target, section, loading, console, out=out, data=data, system=system, fresh=fresh)
        shipping.show(made, console)
        console.paths([("export", made)])
        return
    of_adapter: dict[str, Any] = {"--out": out, "--data": data, "--system": system, "--load-in-4bit": load_in_4bit}
    of_adapter |= {"--thinking": thinking, "--max-length": max_length}
    given = [option for option, value in of_adapter.items() if value is not None]
    if given:
        raise fail(f"{', '.join(given)}: a run knows this itself", where=str(target), fix="leave it out")
    shipping.export_again(target, console, force=force, fresh=fresh, asked=asked)


def _path(path: Path | None, option: str) -> str | None:
    from slimtune.recipe.paths import usable

    if path is None:
        return None
    try:
        return usable(str(path))
    except ValueError as error:
        raise fail(str(error), where=option, fix="name another path") from None


def _gguf_types(text: str | None) -> list[str] | None:
    if text is None:
        return None
    named = [part.strip().lower() for part in text.split(",")]
    unknown = [name for name in dict.fromkeys(named) if name not in GGUF_TYPES]
    if unknown or len(set(named)) < len(named):
        what = f"not a GGUF type: {', '.join(unknown)}" if unknown else "the same type is listed twice"
        raise fail(what, where="--gguf", fix=f"choose from {', '.join(GGUF_TYPES)}, separated by commas")
    return named
