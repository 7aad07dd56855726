"""`slimtune ollama create` and `slimtune ollama check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from slimtune.cli.options import CONTEXT

if TYPE_CHECKING:
    from slimtune.core.console import Console
    from slimtune.serve.ollama.create import Replayed

RunArgument = Annotated[Path, Argument(help="An exported run, e.g. outputs/direct/latest.")]
NameOption = Annotated[str | None, Option("--name", help="The model's name in Ollama, instead of the recipe's.")]

ollama = typer.Typer(
    no_args_is_help=True,
    context_settings=CONTEXT,
    help="Create an exported run in Ollama, and check its answers there.",
)


@ollama.command()
def create(
    run: RunArgument,
    name: NameOption = None,
    replace: Annotated[bool, Option("--replace", help="Replace an existing model of that name.")] = False,
) -> None:
    """Create a run's export in Ollama, and check that it answers there like the merged model.

    Exit code 1 if it does not, 2 if there is no Ollama or no complete export.
    """
    from slimtune.core.console import Console
    from slimtune.serve.ollama import create as creating

    console = Console()
    _show(creating.create(run, console, name=name, replace=replace), console)


@ollama.command()
def check(run: RunArgument, name: NameOption = None) -> None:
    """Ask the model that `create` made the golden prompts again, for example after an update of Ollama."""
    from slimtune.core.console import Console
    from slimtune.serve.ollama import create as creating

    console = Console()
    _show(creating.check(run, console, name=name), console)


def _show(replayed: Replayed, console: Console) -> None:
    """Show the answers, their file and the next command. Raises SlimtuneError (exit code 1) if they differ."""
    from slimtune.serve.ollama import replay

    console.table("Ollama's answers beside the merged model's", replay.table(replayed.found, replayed.export.needed))
    console.say(f"Written: {replayed.export.result}")
    replayed.require_alike()
    console.say(f"Use it:  ollama run {replayed.export.name}")
