"""The command line: parses, calls, prints. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from slimtune.errors import SlimtuneError

_CONTEXT = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=_CONTEXT,
    help="Fine-tune Qwen on the graphics card you own: proven to fit, proven to be better, shipped to Ollama.",
)

RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="The recipe, a YAML file (see recipes/).")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop: no weights, no GPU needed.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="Values over the recipe's: section.key=value, e.g. train.epochs=1")
]


@app.command()
def train(recipe: RecipeOption, overrides: OverridesArgument = None, dry_run: DryRunOption = False) -> None:
    """Train, judge and export as a recipe says."""
    from slimtune import prepare
    from slimtune import recipe as recipes
    from slimtune.console import Console

    loaded = recipes.load(recipe, overrides or [])
    console = Console()
    if dry_run:
        console.plan(prepare.prepare(loaded, assume_card=True))
        return
    from slimtune import pipeline

    pipeline.run(loaded, console)


@app.command()
def version() -> None:
    """Print Slimtune's version and those of the libraries that decide a run's result."""
    from slimtune import versions

    for name, found in versions.installed().items():
        typer.echo(f"{name} {found}")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 2 for bad input, 3 where nothing fits, 130 when interrupted."""
    _run(app, arguments)


def train_unsloth(arguments: list[str] | None = None) -> NoReturn:
    """`python train_unsloth.py --recipe …` is `slimtune train --recipe …`."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=_CONTEXT)
    alone.command()(train)
    _run(alone, arguments)


def _run(application: typer.Typer, arguments: list[str] | None) -> NoReturn:
    try:
        application(args=arguments)
    except SlimtuneError as error:
        from slimtune import console

        console.stderr().error(str(error))
        sys.exit(error.exit_code)
    sys.exit(0)


if __name__ == "__main__":
    main()
