"""`slimtune compare`."""

from typing import Annotated

from typer import Argument, Option

from slimtune.cli import options


def compare(
    contenders: Annotated[
        list[str],
        Argument(
            help="Runs, RUN:base, results of evaluate, or .jsonl files; with --data also targets. "
            "The first is the reference."
        ),
    ],
    data: Annotated[str | None, Option(help="Ask each target the questions of this file first.")] = None,
    kind: options.KindOption = "multiple_choice",
    mode: options.ModeOption = "direct",
    permutations: options.PermutationsOption = 1,
    votes: options.VotesOption = 1,
    temperature: options.TemperatureOption = 0.7,
    max_new_tokens: options.TokensOption = 512,
    max_items: options.ItemsOption = None,
    judge: Annotated[
        str | None, Option(metavar="URL#MODEL", help="Let this model judge free answers in pairs.")
    ] = None,
    out: options.OutOption = None,
    seed: options.SeedOption = 42,
) -> None:
    """Compare runs or models: differences with intervals, and the items on which they differ."""
    from slimtune.core.console import Console
    from slimtune.evaluate import comparison
    from slimtune.run import screen
    from slimtune.run.report.comparison import as_html

    settings = options.settings_of(kind, mode, permutations, votes, temperature, max_new_tokens, seed)
    console = Console()
    folder, result = comparison.write(
        contenders, data, settings, max_items=max_items, judge=judge, out=out, as_html=as_html, on_progress=console
    )
    screen.comparison(console, result, folder)
