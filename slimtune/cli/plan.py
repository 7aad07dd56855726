"""`slimtune plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from slimtune.cli.options import OverridesArgument, OverwriteOption, picture_file
from slimtune.core.console import echo, echo_json
from slimtune.core.errors import fail

if TYPE_CHECKING:
    from slimtune.run.prepare import Prepared


def plan(
    recipe: Annotated[str, Argument(help="The recipe, a YAML file (see recipes/).")],
    overrides: OverridesArgument = None,
    vram_gb: Annotated[float | None, Option(help="Memory of the card, as sold: 8, 10, 12, 16, 24.")] = None,
    gpu: Annotated[str | None, Option(help="Plan for this card: rtx3080, rtx4090, a100, h200, …")] = None,
    price_per_hour: Annotated[float | None, Option(help="Price of the machine; the plan then shows the cost.")] = None,
    as_json: Annotated[bool, Option("--json", help="Print the plan as JSON.")] = False,
    plot: Annotated[Path | None, Option(help="Draw where the memory goes (PNG).")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Show what a run would do and why, whether it fits, and how long it takes. Needs no weights and no GPU."""
    from slimtune.core.console import Console
    from slimtune.models import cards
    from slimtune.recipe import loading as recipes
    from slimtune.recipe import places
    from slimtune.run import prepare, screen
    from slimtune.train import methods

    card = cards.find(gpu) if gpu else None
    size = vram_gb or (card.vram_gb if card else None)
    given = [f"budget.vram_gb={size:g}"] if size else []
    given += [f"budget.price_per_hour={price_per_hour}"] if price_per_hour is not None else []
    loaded, sources = recipes.load_with_sources(recipe, [*(overrides or []), *given], methods.names())
    picture = picture_file(plot, places.files_of(loaded, recipe), "plan", overwrite=overwrite) if plot else None
    with places.naming(loaded, recipe, sources):
        prepared = prepare.prepare(loaded, assume_card=True, card=card)
    if as_json:
        echo_json(prepared.as_json())
    else:
        screen.plan(Console(), prepared)
    if picture is not None:
        _draw(prepared, picture, overwrite=overwrite)
        echo(f"Picture: {plot}", err=as_json)


def _draw(prepared: Prepared, path: Path, *, overwrite: bool) -> None:
    from slimtune.core.units import GIB
    from slimtune.plan.explain import picture
    from slimtune.plan.memory import vram
    from slimtune.plan.request import Job

    hardware, made = prepared.hardware, prepared.plan
    if made.estimate is None:
        what = "this plan is for the CPU, and the picture shows the memory of a card"
        raise fail(what, where="--plot", fix="add --vram-gb 10")
    picture.plot(
        path,
        picture.bars_of(Job(prepared.request, prepared.data, prepared.shape, hardware), made),
        title=f"{prepared.recipe.name}: LoRA of {prepared.shape.name}, rank {made.lora_rank}",
        subtitle=picture.subtitle_of(made, hardware.name),
        budget_bytes=made.budget_bytes,
        visible_bytes=vram.visible_bytes(hardware.memory_bytes / GIB),
        card=hardware.name.removeprefix("NVIDIA ").removeprefix("GeForce ").removesuffix(" (assumed)"),
        overwrite=overwrite,
    )
