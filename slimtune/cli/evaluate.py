"""`slimtune evaluate`, `compare`, `ensemble` and `rescore`. Heavy libraries are imported when they are needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimtune.core.errors import fail
from slimtune.data.records import Mode
from slimtune.recipe.names import KindName, misfit

if TYPE_CHECKING:
    from slimtune.evaluate.kinds.kind import Settings

_TARGET = "The folder of a run, an adapter or a model; a hub id; a .gguf; or URL#MODEL of an OpenAI-compatible server."

DataOption = Annotated[
    str | None, typer.Option("--data", help="File of held-out questions or examples. Default: the run's own.")
]
KindOption = Annotated[KindName, typer.Option("--kind", help="Kind of evaluation.")]
ModeOption = Annotated[
    Mode, typer.Option("--mode", help="Answer with a letter at once (direct), or argue first (cot).")
]
PermutationsOption = Annotated[
    int,
    typer.Option(
        "--permutations", min=1, max=24, help="Number of orders of the choices in which each question is asked."
    ),
]
VotesOption = Annotated[
    int, typer.Option("--votes", min=1, max=64, help="Replies per question in cot mode; the majority answers.")
]
TemperatureOption = Annotated[
    float, typer.Option("--temperature", min=0.01, max=2, help="Sampling temperature of several votes.")
]
TokensOption = Annotated[
    int, typer.Option("--max-new-tokens", min=1, max=32768, help="Longest reply in cot mode and for generation.")
]
ItemsOption = Annotated[int | None, typer.Option("--max-items", min=1, help="Ask only the first N items.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder for the results.")]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Replace the results in the folder and ask everything again.")
]
LengthOption = Annotated[
    int | None, typer.Option("--max-length", min=64, help="Longest prompt and reply together, in tokens.")
]
BatchOption = Annotated[int | None, typer.Option("--batch-size", min=1, help="Prompts that are asked at a time.")]
FourBitOption = Annotated[
    bool | None,
    typer.Option("--load-in-4bit/--load-in-16bit", help="How to load the weights. Default: as in training."),
]
ThinkingOption = Annotated[
    bool | None, typer.Option("--thinking/--no-thinking", help="Let the model think before it answers.")
]
VramOption = Annotated[
    float | None, typer.Option("--vram-gb", min=1, help="Use at most the memory of a card of this size.")
]
SystemOption = Annotated[str | None, typer.Option("--system", help="System prompt for rows without one.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Random seed for sampled votes.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Name of the model on the server.")]


def evaluate(
    target: Annotated[str, typer.Argument(help=_TARGET)],
    data: DataOption = None,
    kind: Annotated[
        KindName | None,
        typer.Option("--kind", help="Kind of evaluation. Default: the run's own, else multiple_choice."),
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option("--mode", help="Answer with a letter at once (direct), or argue first (cot).")
    ] = None,
    permutations: PermutationsOption = 1,
    votes: VotesOption = 1,
    temperature: TemperatureOption = 0.7,
    max_new_tokens: TokensOption = 512,
    max_items: ItemsOption = None,
    model: ModelOption = None,
    train: Annotated[
        list[str] | None,
        typer.Option("--train", help="File that the model was trained on; the items are searched in it."),
    ] = None,
    system: SystemOption = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Ask only the tuned model, not its base. Gives no verdict.")
    ] = False,
    out: OutOption = None,
    fresh: FreshOption = False,
    max_length: LengthOption = None,
    batch_size: BatchOption = None,
    load_in_4bit: FourBitOption = None,
    thinking: ThinkingOption = None,
    vram_gb: VramOption = None,
    seed: SeedOption = 42,
) -> None:
    """Ask a model held-out questions. A tuned model is compared with its base.

    If the command is stopped, run it again: it continues where it was.
    """
    from slimtune.core.console import Console
    from slimtune.evaluate import evaluation
    from slimtune.evaluate.targets import target_spec
    from slimtune.evaluate.targets.opening import Loading
    from slimtune.run import screen

    spec = target_spec.parse(target, model)
    own = evaluation.run_evaluates(spec)
    kind = kind or own.get("kind") or "multiple_choice"
    mode = mode or (own.get("mode") if kind == own.get("kind") else None) or "direct"
    request = evaluation.Request(
        spec=spec,
        settings=_settings(kind, mode, permutations, votes, temperature, max_new_tokens, seed),
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


def _settings(
    kind: KindName, mode: Mode, permutations: int, votes: int, temperature: float, max_new_tokens: int, seed: int
) -> Settings:
    from slimtune.evaluate.kinds.kind import Settings

    option, why = misfit(kind, mode, permutations, votes)
    if option:
        raise fail(why, where=f"--{option}", fix="change it, or leave it out")
    return Settings(
        kind=kind,
        mode=mode,
        permutations=permutations,
        votes=votes,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )


def ensemble(
    members: Annotated[
        list[str], typer.Argument(help="Two or more runs, adapters or checkpoints that have the same base model.")
    ],
    data: DataOption = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="One weight per member, e.g. 2,1,1. Do not choose them on these questions."),
    ] = None,
    mode: ModeOption = "direct",
    permutations: PermutationsOption = 1,
    votes: VotesOption = 1,
    temperature: TemperatureOption = 0.7,
    max_new_tokens: TokensOption = 512,
    max_items: ItemsOption = None,
    out: OutOption = None,
    fresh: FreshOption = False,
    max_length: LengthOption = None,
    batch_size: BatchOption = None,
    load_in_4bit: FourBitOption = None,
    vram_gb: VramOption = None,
    seed: SeedOption = 42,
) -> None:
    """Ask several adapters of one base model, and combine their answers by vote and by mean probability."""
    from slimtune.core.console import Console
    from slimtune.evaluate import evaluation
    from slimtune.evaluate import members as ensembles
    from slimtune.evaluate.targets import target_spec
    from slimtune.evaluate.targets.opening import Loading
    from slimtune.run import screen

    specs = [target_spec.parse(member) for member in members]
    request = evaluation.Request(
        spec=specs[0],
        settings=_settings("multiple_choice", mode, permutations, votes, temperature, max_new_tokens, seed),
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


def compare(
    contenders: Annotated[
        list[str],
        typer.Argument(
            help="Runs, RUN:base, results of evaluate, or .jsonl files; with --data also targets. The first is the reference."
        ),
    ],
    data: Annotated[
        str | None, typer.Option("--data", help="Ask each target the questions of this file first.")
    ] = None,
    kind: KindOption = "multiple_choice",
    mode: ModeOption = "direct",
    permutations: PermutationsOption = 1,
    votes: VotesOption = 1,
    temperature: TemperatureOption = 0.7,
    max_new_tokens: TokensOption = 512,
    max_items: ItemsOption = None,
    judge: Annotated[
        str | None, typer.Option("--judge", metavar="URL#MODEL", help="Model that judges free answers, pair by pair.")
    ] = None,
    out: OutOption = None,
    seed: SeedOption = 42,
) -> None:
    """Compare runs or models: differences with intervals, and the items on which they differ."""
    from slimtune.core.console import Console
    from slimtune.core.files import write_text
    from slimtune.evaluate import comparison
    from slimtune.run import screen
    from slimtune.run.report.comparison import as_html

    settings = _settings(kind, mode, permutations, votes, temperature, max_new_tokens, seed)
    console = Console()
    folder, result = comparison.write(
        contenders, data, settings, max_items=max_items, judge=judge, out=out, on_progress=console
    )
    write_text(folder / "comparison.html", as_html(result))
    screen.comparison(console, result, folder)


def rescore(
    file: Annotated[Path, typer.Argument(help="Stored replies: one JSON object per line, with 'text' or 'response'.")],
    mode: Annotated[Mode, typer.Option("--mode", help="Mode of rows that do not state one.")] = "direct",
    labels: Annotated[
        int, typer.Option("--labels", min=2, max=10, help="Number of choices of rows that do not state them.")
    ] = 4,
    output: Annotated[Path | None, typer.Option("--output", help="File to write. Default: FILE itself.")] = None,
) -> None:
    """Read the answers from stored replies of any tool. Adds answer, rule and status to each row.

    If standard output is not a terminal, the rows are also written there.
    """
    from slimtune.core.console import stderr
    from slimtune.evaluate import rescore as rescoring

    rescored = rescoring.rescore(file, mode=mode, labels=labels, output=output)
    if not sys.stdout.isatty():
        sys.stdout.write(rescoring.rows_as_jsonl(rescored.rows))
    for line in rescoring.lines(rescored):
        stderr().say(line)
