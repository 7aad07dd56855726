"""The command line: parses, calls, prints. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from slimtune.cli import chat as cli_chat
from slimtune.cli import data as cli_data
from slimtune.cli import evaluate as cli_evaluate
from slimtune.cli import export as cli_export
from slimtune.cli import ollama as cli_ollama
from slimtune.core.errors import INTERRUPTED, SlimtuneError, fail

if TYPE_CHECKING:
    from slimtune.run.prepare import Prepared

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


ResumeOption = Annotated[
    str | None,
    typer.Option("--resume", metavar="auto|FOLDER", help="Go on with the latest run of this recipe, or with this one."),
]


@app.command()
def train(
    recipe: RecipeOption,
    overrides: OverridesArgument = None,
    dry_run: DryRunOption = False,
    resume: ResumeOption = None,
) -> None:
    """Train, judge and export as a recipe says."""
    from slimtune.core.console import Console
    from slimtune.recipe import schema as recipes
    from slimtune.run import prepare

    loaded = recipes.load(recipe, overrides or [])
    from slimtune.run import screen

    console = Console()
    if dry_run:
        screen.plan(console, prepare.prepare(loaded, assume_card=True))
        return
    from slimtune.run import pipeline

    pipeline.run(loaded, console, resume, sources=recipes.sources(recipe, overrides or []))


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="The recipe, a YAML file (see recipes/).")],
    overrides: OverridesArgument = None,
    vram_gb: Annotated[
        float | None, typer.Option("--vram-gb", help="The card's memory as sold: 8, 10, 12, 16, 24.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="Plan for this card: rtx3080, rtx4090, a100, h200, …")
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option("--price-per-hour", help="Of the machine; shows the cost.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw where the memory goes (PNG).")] = None,
) -> None:
    """Show what a run would do and why, whether it fits, how long it takes. No weights, no GPU needed."""
    from slimtune.core.console import Console
    from slimtune.models import cards
    from slimtune.recipe import schema as recipes
    from slimtune.run import prepare

    card = cards.find(gpu) if gpu else None
    size = vram_gb or (card.vram_gb if card else None)
    given = [f"budget.vram_gb={size:g}"] if size else []
    given += [f"budget.price_per_hour={price_per_hour}"] if price_per_hour is not None else []
    prepared = prepare.prepare(recipes.load(recipe, [*(overrides or []), *given]), assume_card=True, card=card)
    if as_json:
        typer.echo(json.dumps(prepared.as_json(), ensure_ascii=False, indent=2))
    else:
        from slimtune.run import screen

        screen.plan(Console(), prepared)
    if plot is not None:
        _draw(prepared, plot)
        typer.echo(f"Picture: {plot}", err=as_json)


def _draw(prepared: Prepared, path: Path) -> None:
    from slimtune.core.units import GIB
    from slimtune.plan.explain import alternatives, picture
    from slimtune.plan.memory import vram

    hardware, made = prepared.hardware, prepared.plan
    if made.memory is None or made.budget_bytes is None or made.estimate is None:
        raise fail(
            "this plan is for the CPU; the picture is of a card's memory", where="--plot", fix="add --vram-gb 10"
        )
    picture.plot(
        path,
        alternatives.bars(prepared.recipe, prepared.data, prepared.shape, hardware, made),
        title=f"{prepared.recipe.name}: LoRA of {prepared.shape.name}, rank {made.lora_rank}",
        subtitle=alternatives.subtitle(made, hardware.name),
        budget_bytes=made.budget_bytes,
        visible_bytes=vram.visible_bytes(hardware.memory_bytes / GIB),
        card=hardware.name.removeprefix("NVIDIA ").removeprefix("GeForce ").removesuffix(" (assumed)"),
    )


@app.command()
def doctor(
    run: Annotated[
        Path | None, typer.Argument(help="A run's folder, e.g. outputs/direct/latest; without one, the machine.")
    ] = None,
    online: Annotated[bool, typer.Option("--online", help="Also ask whether the hub answers.")] = False,
) -> None:
    """Check this machine or a run's folder, and say what to do. Changes nothing; exit code 1 for an error."""
    from slimtune.core.findings import render
    from slimtune.run import doctor as doctors
    from slimtune.run import doctor_run

    findings = doctors.machine(online=online) if run is None else doctor_run.run(run)
    typer.echo(render(findings))
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


@app.command()
def version() -> None:
    """Print Slimtune's version and those of the libraries that decide a run's result."""
    from slimtune.core import versions

    for name, found in versions.installed().items():
        typer.echo(f"{name} {found}")


cli_data.register(app)
cli_evaluate.register(app)
cli_export.register(app)
cli_chat.register(app)
cli_ollama.register(app)


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
        from slimtune.core import console

        console.stderr().error(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)
