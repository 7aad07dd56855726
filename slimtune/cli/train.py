"""`slimtune train`, which is also `train_unsloth.py`."""

from typing import Annotated

from typer import Option

from slimtune.cli.options import OverridesArgument


def train(
    recipe: Annotated[str, Option("--recipe", "-r", help="The recipe, a YAML file (see recipes/).")],
    overrides: OverridesArgument = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Print the plan and stop: no weights, no GPU.")] = False,
    resume: Annotated[
        str | None, Option(metavar="auto|FOLDER", help="Resume the latest run of this recipe, or the given run.")
    ] = None,
) -> None:
    """Train, judge and export as a recipe says."""
    from slimtune.core.console import Console
    from slimtune.recipe import loading as recipes
    from slimtune.recipe import places
    from slimtune.run import prepare, screen
    from slimtune.train import methods

    loaded, sources = recipes.load_with_sources(recipe, overrides or [], methods.names())
    console = Console()
    with places.naming(loaded, recipe, sources):
        if dry_run:
            screen.plan(console, prepare.prepare(loaded, assume_card=True))
            return
        from slimtune.run import pipeline

        pipeline.run(loaded, console, resume, sources=sources)
