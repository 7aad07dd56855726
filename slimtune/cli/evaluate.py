"""`slimtune evaluate`."""

from typing import Annotated

from typer import Argument, Option

from slimtune.cli import options
from slimtune.data.records import Mode
from slimtune.recipe.names import KindName

_TARGET = "The folder of a run, an adapter or a model; a hub id; a .gguf; or URL#MODEL of an OpenAI-compatible server."


def evaluate(
    target: Annotated[str, Argument(help=_TARGET)],
    data: options.DataOption = None,
    kind: Annotated[
        KindName | None, Option(help="Kind of evaluation. Default: the run's own, else multiple_choice.")
    ] = None,
    mode: Annotated[Mode | None, Option(help="direct: only a letter. cot: reasoning, then a letter.")] = None,
    permutations: options.PermutationsOption = 1,
    votes: options.VotesOption = 1,
    temperature: options.TemperatureOption = 0.7,
    max_new_tokens: options.TokensOption = 512,
    max_items: options.ItemsOption = None,
    model: options.ModelOption = None,
    train: Annotated[
        list[str] | None, Option(help="File that the model was trained on; the items are searched in it.")
    ] = None,
    system: options.SystemOption = None,
    alone: Annotated[bool, Option("--alone", help="Ask only the tuned model, not its base. Gives no verdict.")] = False,
    out: options.OutOption = None,
    fresh: options.FreshOption = False,
    max_length: options.LengthOption = None,
    batch_size: options.BatchOption = None,
    load_in_4bit: options.FourBitOption = None,
    thinking: options.ThinkingOption = None,
    vram_gb: options.VramOption = None,
    seed: options.SeedOption = 42,
) -> None:
    """Ask a model held-out questions. A tuned model is compared with its base.

    If the command is stopped, run it again: it continues where it was.
    """
    from slimtune.core.console import Console
    from slimtune.evaluate import evaluation
    from slimtune.evaluate.targets.opening import Loading, spec_of
    from slimtune.run import screen

    spec = spec_of(target, model)
    own = evaluation.run_evaluates(spec)
    kind = kind or own.get("kind") or "multiple_choice"
    mode = mode or (own.get("mode") if kind == own.get("kind") else None) or "direct"
    request = evaluation.Request(
        spec=spec,
        settings=options.settings_of(kind, mode, permutations, votes, temperature, max_new_tokens, seed),
        loading=Loading(load_in_4bit, max_length, thinking, batch_size, vram_gb),
        data=data,
        system=system,
        train=tuple(train) if train else None,
        max_items=max_items,
        out=out,
        fresh=fresh,
        alone=alone,
    )
    console = Console()
    screen.evaluation(console, evaluation.evaluate(request, console))
