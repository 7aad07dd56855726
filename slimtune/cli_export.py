"""The command that ships: export. Nothing heavy before it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from slimtune.errors import fail

if TYPE_CHECKING:
    from slimtune.recipe import GgufType


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, e.g. outputs/direct/latest.")],
    force: Annotated[bool, typer.Option("--force", help="Whatever the verdict is; the run records it.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace an export that is there.")] = False,
    gguf: Annotated[str | None, typer.Option("--gguf", help="Types instead of the recipe's, e.g. q4_k_m,q8_0.")] = None,
) -> None:
    """Export a run's adapter as its recipe says: merged weights, GGUF, Modelfile, parity check."""
    from slimtune import shipping
    from slimtune.console import Console

    shipping.export_again(run, Console(), force=force, fresh=fresh, kinds=_gguf_types(gguf))


def _gguf_types(text: str | None) -> list[GgufType] | None:
    from slimtune.recipe import GGUF_TYPES

    if text is None:
        return None
    named = [part.strip().lower() for part in text.split(",")]
    unknown = [name for name in dict.fromkeys(named) if name not in GGUF_TYPES]
    if unknown or len(set(named)) < len(named):
        what = f"no GGUF type: {', '.join(unknown)}" if unknown else "the same type is listed twice"
        raise fail(what, where="--gguf", fix=f"some of {', '.join(GGUF_TYPES)}, with commas between")
    return cast("list[GgufType]", named)


def register(app: typer.Typer) -> None:
    """Put the command on the command line."""
    app.command()(export)
