"""The command that ships: export. Nothing heavy before it is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from slimtune.core.errors import fail

if TYPE_CHECKING:
    from slimtune.recipe.schema import GgufType

MergeBase = Literal["dequantised", "16bit", "auto"]


def export(
    target: Annotated[
        Path | None, typer.Argument(help="A run's folder, e.g. outputs/direct/latest, or an adapter's.")
    ] = None,
    gguf: Annotated[str | None, typer.Option("--gguf", help="Types instead of the recipe's, e.g. q4_k_m,q8_0.")] = None,
    lora_gguf: Annotated[bool, typer.Option("--lora-gguf", help="Also the adapter alone, as a GGUF.")] = False,
    merged: Annotated[Path | None, typer.Option("--merged", help="The folder of the merged weights.")] = None,
    merge_base: Annotated[
        MergeBase | None, typer.Option("--merge-base", help="What the adapter is added to; auto measures both.")
    ] = None,
    ollama: Annotated[str | None, typer.Option("--ollama", help="The model's name in Ollama.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Whatever the verdict is; the run records it.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace an export that is there, once it is proven.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Of an adapter: the folder to make.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Of an adapter: held-out rows to compare on.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="Of an adapter: its training's system prompt.")] = None,
    load_in_4bit: Annotated[
        bool | None, typer.Option("--load-in-4bit/--load-in-16bit", help="Of an adapter: how its base was trained on.")
    ] = None,
    thinking: Annotated[
        bool | None, typer.Option("--thinking/--no-thinking", help="Of an adapter: trained with Qwen3's <think> block.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=64, help="Of an adapter: tokens of prompt and reply.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Only look at a Modelfile or GGUF, from anywhere.")
    ] = None,
) -> None:
    """Export an adapter: merged weights, GGUF, Modelfile, and the proof that they are the model that was trained.

    A run is exported as its recipe says, where its verdict lets it.
    """
    if check is not None:
        _check(check)
        return
    if target is None:
        raise fail(
            "what is to be exported?", where="export", fix="name a run's folder or an adapter's, or --check FILE"
        )
    from slimtune.core.console import Console
    from slimtune.evaluate.targets.opening import Loading
    from slimtune.export import from_adapter as shipping_adapter
    from slimtune.run import shipping

    name = _ollama_name(ollama)
    wishes = shipping.Wishes(_gguf_types(gguf), merge_base, name, lora_gguf, merged)
    of_adapter: dict[str, object] = {"--out": out, "--data": data, "--system": system, "--load-in-4bit": load_in_4bit}
    of_adapter |= {"--thinking": thinking, "--max-length": max_length}
    if (target / "adapter_config.json").is_file():
        loading = Loading(load_in_4bit, max_length, thinking)
        shipping_adapter.export(target, wishes, loading, Console(), out=out, data=data, system=system, fresh=fresh)
        return
    given = [option for option, value in of_adapter.items() if value is not None]
    if given:
        raise fail(f"{', '.join(given)}: a run knows this itself", where=str(target), fix="leave it out")
    shipping.export_again(target, Console(), force=force, fresh=fresh, wishes=wishes)


def _check(path: Path) -> None:
    """Print what is wrong with a file; exit code 1 where something is."""
    from slimtune.export.check import check

    findings = check.check_file(path)
    typer.echo(check.render(findings))
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


def _ollama_name(text: str | None) -> str | None:
    from slimtune.recipe.schema import NAME

    if text is not None and not re.fullmatch(NAME, text):
        raise fail(
            f"{text!r} is not a usable name", where="--ollama", fix="lower-case letters, digits, '.', '_' and '-'"
        )
    return text


def _gguf_types(text: str | None) -> tuple[GgufType, ...] | None:
    from slimtune.recipe.schema import GGUF_TYPES

    if text is None:
        return None
    named = [part.strip().lower() for part in text.split(",")]
    unknown = [name for name in dict.fromkeys(named) if name not in GGUF_TYPES]
    if unknown or len(set(named)) < len(named):
        what = f"no GGUF type: {', '.join(unknown)}" if unknown else "the same type is listed twice"
        raise fail(what, where="--gguf", fix=f"some of {', '.join(GGUF_TYPES)}, with commas between")
    return cast("tuple[GgufType, ...]", tuple(named))
