"""`slimtune data mix`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimtune.errors import fail


def mix(
    files: Annotated[list[str], typer.Argument(help="FILE or FILE=WEIGHT; 0.5 takes a seeded half of its rows.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write, JSONL.")],
    general: Annotated[str | None, typer.Option("--general", help="General data, against forgetting.")] = None,
    general_share: Annotated[
        float, typer.Option("--general-share", min=0.01, max=0.9, help="Of the mixed rows; 0.1 to 0.2 is usual.")
    ] = 0.15,
    cap: Annotated[int | None, typer.Option("--cap", min=1, help="Most rows of one meta.source (else file).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another file of that name.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 42,
) -> None:
    """Mix training files into one."""
    from slimtune.data import mixing
    from slimtune.data.exchange.converting import to_rows
    from slimtune.data.exchange.layouts import own_layout
    from slimtune.data.writing import write_rows

    mixture = mixing.mix([_weighted(file) for file in files], general=general, share=general_share, cap=cap, seed=seed)
    layout = own_layout(mixture.conversations)
    written = write_rows(output, to_rows(mixture.conversations, layout).rows, overwrite=overwrite)
    typer.echo("rows in  rows out   share  file")
    for file in mixture.files:
        used = mixture.used.get(file.path, 0)
        typer.echo(f"{file.rows:7,}  {used:8,}  {used / written.rows:6.1%}  {file.path}")
    typer.echo(f"{output}: {written.rows:,} rows in the layout {layout}")
    if mixture.missing_general:
        typer.echo(f"warning: {general} has {mixture.missing_general:,} rows too few for its share", err=True)
    if general and not 0.1 <= general_share <= 0.2:
        typer.echo("note: a general share of 0.1 to 0.2 is usual", err=True)


def _weighted(text: str) -> tuple[str, float]:
    path, equals, weight = text.rpartition("=")
    if not equals or Path(text).exists():
        return text, 1.0
    try:
        number = float(weight)
    except ValueError:
        raise fail(f"the weight {weight!r} is not a number", where=text, fix="write FILE=0.5") from None
    if number > 1:
        fix = "set the weight in the recipe instead: {path: …, weight: 2}"
        raise fail("a weight above 1 repeats rows, which the loader refuses within one file", where=text, fix=fix)
    return path, number
