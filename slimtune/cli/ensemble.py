"""`slimtune ensemble`."""

from typing import Annotated

from typer import Argument, Option

from slimtune.cli import options
from slimtune.core.errors import fail


def ensemble(
    members: Annotated[list[str], Argument(help="Two or more runs, adapters or checkpoints on one base model.")],
    data: options.DataOption = None,
    weights: Annotated[
        str | None, Option(help="One weight per member, e.g. 2,1,1. Do not choose them on these questions.")
    ] = None,
    mode: options.ModeOption = "direct",
    permutations: options.PermutationsOption = 1,
    votes: options.VotesOption = 1,
    temperature: options.TemperatureOption = 0.7,
    max_new_tokens: options.TokensOption = 512,
    max_items: options.ItemsOption = None,
    out: options.OutOption = None,
    fresh: options.FreshOption = False,
    max_length: options.LengthOption = None,
    batch_size: options.BatchOption = None,
    load_in_4bit: options.FourBitOption = None,
    vram_gb: options.VramOption = None,
    seed: options.SeedOption = 42,
) -> None:
    """Ask several adapters of one base model, and combine their answers by vote and by mean probability."""
    from slimtune.core.console import Console
    from slimtune.evaluate import ensemble as ensembles
    from slimtune.evaluate import evaluation
    from slimtune.evaluate.targets.opening import Loading, spec_of
    from slimtune.run import screen

    specs = [spec_of(member) for member in members]
    request = evaluation.Request(
        spec=specs[0],
        settings=options.settings_of("multiple_choice", mode, permutations, votes, temperature, max_new_tokens, seed),
        loading=Loading(load_in_4bit, max_length, None, batch_size, vram_gb),
        data=data,
        max_items=max_items,
        out=out,
        fresh=fresh,
    )
    console = Console()
    folder, result = ensembles.evaluate(specs, _numbers(weights), request, console)
    screen.ensemble(console, result, folder)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise fail(f"'{text}' is not a list of numbers", where="--weights", fix="write them as 2,1,1") from None
