"""`slimtune train`, which is also `train_unsloth.py`."""

from typing import Annotated

from typer import Option

from slimtune.cli.options import OverridesArgument
from slimtune.core.errors import fail


def train(
    overrides: OverridesArgument = None,
    recipe: Annotated[str | None, Option("--recipe", "-r", help="The recipe, a YAML file (see recipes/).")] = None,
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

    if recipe is None:
        named = next((text for text in overrides or () if text.endswith((".yaml", ".yml"))), "recipes/quickstart.yaml")
        raise fail("the recipe is missing", where="--recipe", fix=f"write --recipe {named}")
    loaded, sources = recipes.load_with_sources(recipe, overrides or [], methods.names())
    console = Console()
    with places.naming(loaded, recipe, sources):
        if dry_run:
            screen.plan(console, prepare.prepare(loaded, assume_card=True))
            return
        from slimtune.run import pipeline

        pipeline.run(loaded, console, resume, sources=sources)
