"""The commands that hand an export to Ollama: create, check. Nothing heavy before it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimtune.cli.options import CONTEXT

if TYPE_CHECKING:
    from slimtune.core.console import Console
    from slimtune.serve.ollama.create import Replayed

RunArgument = Annotated[Path, typer.Argument(help="An exported run's folder, e.g. outputs/direct/latest.")]
NameOption = Annotated[str | None, typer.Option("--name", help="The model's name in Ollama, instead of the recipe's.")]


def create(
    run: RunArgument,
    name: NameOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a model of that name that is there.")] = False,
) -> None:
    """Create a run's export in Ollama, and see that it answers there as the merged model does.

    Exit code 1 where it does not, 2 where there is no Ollama or no whole export.
    """
    from slimtune.core.console import Console
    from slimtune.serve.ollama import create as creating

    console = Console()
    _show(creating.create(run, console, name=name, replace=replace), console)


def check(run: RunArgument, name: NameOption = None) -> None:
    """Put the golden prompts once more to the model that `create` made, e.g. after an update of Ollama."""
    from slimtune.core.console import Console
    from slimtune.serve.ollama import create as creating

    console = Console()
    _show(creating.check(run, console, name=name), console)


def _show(replayed: Replayed, console: Console) -> None:
    """The answers, where they are written, and how to go on. Raises SlimtuneError, exit code 1, where they differ."""
    from slimtune.serve.ollama import replay

    console.table("Ollama's answers beside the merged model's", replay.table(replayed.found, replayed.export.needed))
    console.say(f"Written: {replayed.export.result}")
    replayed.require_alike()
    console.say(f"Use it:  ollama run {replayed.export.name}")


ollama = typer.Typer(
    no_args_is_help=True,
    context_settings=CONTEXT,
    help="Create an exported run in Ollama, and check that it answers there as it should.",
)
ollama.command()(create)
ollama.command()(check)
