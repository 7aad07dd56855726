"""`slimtune data export` and `slimtune data import`."""

from collections.abc import Sequence
from typing import Annotated, Literal

from typer import Argument, Option

from slimtune.cli.options import OutputOption, OverwriteOption, TrainingFilesArgument
from slimtune.core.console import echo
from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.units import plural
from slimtune.recipe.names import FormatName, Layout


def export(
    files: TrainingFilesArgument,
    output: OutputOption,
    to: Annotated[Layout, Option("--to", help="Layout to write. openai: for OpenAI's fine-tuning.")],
    system: Annotated[str | None, Option("--system", help="System prompt for rows without one.")] = None,
    overwrite: OverwriteOption = False,
    price_per_million: Annotated[
        float | None, Option("--price-per-million", min=0, help="Price of the service in USD; shows the cost.")
    ] = None,
    epochs: Annotated[int, Option("--epochs", min=1, help="Epochs for the cost.")] = 3,
    max_example_tokens: Annotated[
        int | None,
        Option("--max-example-tokens", min=1, help="Longest example that OpenAI's model takes. Default: 65,536."),
    ] = None,
) -> None:
    """Convert training files to the layout of another tool, and report what is lost."""
    from slimtune.core import console
    from slimtune.datatools import writing
    from slimtune.datatools.exchange import LONGEST_EXAMPLE, broken_rules, cost, read_files, to_rows
    from slimtune.plan import lengths

    for option, value in (("--price-per-million", price_per_million), ("--max-example-tokens", max_example_tokens)):
        if value is not None and to != "openai":
            raise fail("this option has no effect without --to openai", where=option, fix="remove it")
    target = writing.target(output, files)
    with console.stderr().bar("Reading rows") as progress:
        conversations, losses = read_files(files, system=system, on_progress=progress)
    estimated = None
    with console.stderr().bar("Writing rows"):
        rows, dropped = to_rows(conversations, to)
        if to == "openai":
            estimated = lengths.estimate(conversations)
            most = max_example_tokens or LONGEST_EXAMPLE
            if problems := broken_rules(conversations, rows, estimated, most):
                raise SlimtuneError(problems)
        state = writing.write_rows(target, rows, overwrite=overwrite)
    _say([*losses, *dropped], f"{output}: {plural(len(rows), 'row')} in the layout {to}, {state}")
    if estimated:
        tokens, longest = estimated.total, estimated.longest
        echo(f"about {tokens:,} tokens per epoch (estimated), the longest example about {longest:,}")
        if price_per_million is not None:
            amount = cost(tokens, epochs, price_per_million)
            what = f"{plural(epochs, 'epoch')} at {price_per_million:g} USD per million tokens"
            echo(f"about {amount:,.2f} USD (estimated) for {what}")


def import_(
    files: Annotated[list[str], Argument(help="Files from another tool, or hub ids.")],
    output: OutputOption,
    origin: Annotated[
        Literal["auto", "openai", FormatName], Option("--from", help="Layout of the files. auto: detect it.")
    ] = "auto",
    to: Annotated[
        Literal["input_output", "messages"] | None,
        Option("--to", help="Default: input_output if every conversation has one turn, else messages."),
    ] = None,
    chosen: Annotated[
        bool, Option("--chosen", help="From preferences or rated answers, take the chosen or good answers.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Convert files from other tools to training files, and report what is lost."""
    from slimtune.core import console
    from slimtune.datatools import chosen_answers, writing
    from slimtune.datatools.exchange import own_layout, read_files, to_rows

    if chosen and origin != "auto":
        raise fail("--chosen and --from exclude each other", where="--from", fix="leave out --from")
    target = writing.target(output, files)
    layout_asked = "messages" if origin == "openai" else origin
    with console.stderr().bar("Reading rows") as progress:
        if chosen:
            conversations, losses = chosen_answers.read_files(files, on_progress=progress)
        else:
            conversations, losses = read_files(
                files, format=layout_asked, setting=("--from", origin), on_progress=progress
            )
    layout = to or own_layout(conversations)
    with console.stderr().bar("Writing rows"):
        rows, dropped = to_rows(conversations, layout)
        state = writing.write_rows(target, rows, overwrite=overwrite)
    _say([*losses, *dropped], f"{output}: {plural(len(rows), 'row')} in the layout {layout}, {state}")


def _say(losses: Sequence[str], result: str) -> None:
    for loss in losses:
        echo(loss, err=True)
    echo(result)
