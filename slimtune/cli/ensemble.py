"""`slimtune ensemble`."""

from typing import Annotated

from typer import Argument, Option

from slimtune.cli import asking
from slimtune.core.errors import fail


def ensemble(
    members: Annotated[list[str], Argument(help="Two or more runs, adapters or checkpoints on one base model.")],
    data: asking.DataOption = None,
    weights: Annotated[
        str | None,
        Option("--weights", help="One weight per member, e.g. 2,1,1. Do not choose them on these questions."),
    ] = None,
    mode: asking.ModeOption = "direct",
    permutations: asking.PermutationsOption = 1,
    votes: asking.VotesOption = 1,
    temperature: asking.TemperatureOption = 0.7,
    max_new_tokens: asking.TokensOption = 512,
    max_items: asking.ItemsOption = None,
    out: asking.OutOption = None,
    fresh: asking.FreshOption = False,
    max_length: asking.LengthOption = None,
    batch_size: asking.BatchOption = None,
    load_in_4bit: asking.FourBitOption = None,
    vram_gb: asking.VramOption = None,
    seed: asking.SeedOption = 42,
) -> None:
    """Ask several adapters of one base model, and combine their answers by vote and by mean probability."""
    from slimtune.core.console import Console
    from slimtune.evaluate import ensemble as ensembles
    from slimtune.evaluate import evaluation
    from slimtune.evaluate.targets import target_spec
    from slimtune.evaluate.targets.opening import Loading
    from slimtune.run import screen

    specs = [target_spec.parse(member) for member in members]
    request = evaluation.Request(
        spec=specs[0],
        settings=asking.settings_of("multiple_choice", mode, permutations, votes, temperature, max_new_tokens, seed),
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
