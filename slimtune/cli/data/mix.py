"""`slimtune data mix`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from slimtune.cli.options import OutputOption, OverwriteOption
from slimtune.core import inputs
from slimtune.core.console import echo
from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.units import plural

if TYPE_CHECKING:
    from slimtune.datatools.mixing import Mixture

USUAL_SHARE = 0.15


def mix(
    files: Annotated[list[str], Argument(help="FILE or FILE=WEIGHT. 0.5 takes a random half of the rows.")],
    output: OutputOption,
    rows: Annotated[int | None, Option("--rows", min=1, help="Rows of the mixture. Default: all.")] = None,
    general: Annotated[str | None, Option("--general", help="General data, against forgetting.")] = None,
    general_share: Annotated[
        float | None,
        Option(
            "--general-share", min=0.01, max=0.9, help="Its share of the mixture. Default: 0.15; usual: 0.1 to 0.2."
        ),
    ] = None,
    cap: Annotated[
        list[str] | None,
        Option("--cap", metavar="N|SOURCE=N", help="Maximum rows per meta.source (or file), or of one source."),
    ] = None,
    overwrite: OverwriteOption = False,
    seed: Annotated[int, Option("--seed", min=0, help="Random seed for the choice and the order of rows.")] = 42,
) -> None:
    """Mix training files into one.

    Weights apply first, then caps, then --rows. General data is neither weighted nor capped.
    """
    from slimtune.core import console
    from slimtune.datatools import mixing, writing
    from slimtune.datatools.exchange import own_layout, to_rows

    problems: list[Problem] = []
    weighted = [_weighted(file, problems) for file in files]
    most, caps = _caps(cap or [], problems)
    if general_share is not None and general is None:
        problems.append(Problem("there is no general data", "--general-share", "add --general FILE"))
    if problems:
        raise SlimtuneError(problems)
    target = writing.target(output, [*(path for path, _ in weighted), *([general] if general else [])])
    share = USUAL_SHARE if general_share is None else general_share
    with console.stderr().bar("Reading rows") as progress:
        mixture = mixing.mix(
            weighted, general=general, share=share, rows=rows, cap=most, caps=caps, seed=seed, on_progress=progress
        )
    layout = own_layout(mixture.conversations)
    with console.stderr().bar("Writing rows"):
        state = writing.write_rows(target, to_rows(mixture.conversations, layout)[0], overwrite=overwrite)
    _show(mixture)
    echo(f"{output}: {plural(mixture.used.total(), 'row')} in the layout {layout}, {state}")
    if mixture.missing_general:
        echo(f"warning: {general} is {mixture.missing_general:,} rows short of its share", err=True)
    if general and not 0.1 <= share <= 0.2:
        echo("note: a general share of 0.1 to 0.2 is usual", err=True)


def _weighted(text: str, problems: list[Problem]) -> tuple[str, float]:
    """The path and the weight of FILE or FILE=WEIGHT."""
    path, equals, weight = text.rpartition("=")
    if not equals or inputs.exists(text):
        return text, 1.0
    try:
        number = float(weight)
    except ValueError:
        problems.append(Problem("what follows the last = is not a number", text, "write FILE=0.5"))
        return path, 1.0
    if number > 1:
        what = "a weight above 1 would repeat rows, which the loader refuses within one file"
        problems.append(Problem(what, text, "set the weight in the recipe instead: {path: …, weight: 2}"))
    elif not number > 0:
        problems.append(Problem(f"the weight {weight} takes no row", text, "write FILE=0.5, or remove the file"))
    return path, number


def _caps(texts: Sequence[str], problems: list[Problem]) -> tuple[int | None, dict[str, int]]:
    """The cap for all sources, or None, and the caps of single sources."""
    most: int | None = None
    caps: dict[str, int] = {}
    for text in texts:
        source, equals, number = text.rpartition("=")
        if not (re.fullmatch(r"\d{1,9}", number) and int(number)) or (equals and not source):
            problems.append(Problem(f"'{text}' is not a valid cap", "--cap", "write --cap 200 or --cap SOURCE=200"))
        elif source in caps or (not source and most is not None):
            problems.append(Problem(f"two caps for {source or 'all sources'}", "--cap", "keep one of them"))
        elif source:
            caps[source] = int(number)
        else:
            most = int(number)
    return most, caps


def _show(mixture: Mixture) -> None:
    echo("rows in  rows out   share  file")
    for report in mixture.files:
        path, rows = report.file.path, report.file.rows
        used = mixture.used[path]
        echo(f"{rows:7,}  {used:8,}  {used / mixture.used.total():6.1%}  {path}")
    for source, count in mixture.capped.items():
        echo(f"--cap leaves out {count:,} rows of {source}")
    for report in mixture.files:
        for note in report.notes:
            echo(f"note: {note}", err=True)
