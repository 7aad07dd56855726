"""What several commands share on the command line."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from slimtune.core import outputs
from slimtune.core.console import echo
from slimtune.core.errors import fail
from slimtune.core.findings import Finding, render
from slimtune.data.records import Mode
from slimtune.recipe.names import KindName, misfit

if TYPE_CHECKING:
    from slimtune.evaluate.kinds.kind import Settings

CONTEXT = {"help_option_names": ["-h", "--help"]}

OverridesArgument = Annotated[
    list[str] | None, Argument(help="Replace values of the recipe: section.key=value, e.g. train.epochs=1")
]

TrainingFilesArgument = Annotated[list[str], Argument(help="Training files in any format, or hub ids.")]
OptionalFilesArgument = Annotated[
    list[str] | None, Argument(help="Training files in any format, or hub ids. Default: those of --recipe.")
]
OutputOption = Annotated[Path, Option("--output", "-o", help="The file to write, JSONL.")]
OverwriteOption = Annotated[bool, Option("--overwrite", help="Replace existing files.")]


def picture_file(path: Path, reads: Iterable[str], kind: str, *, overwrite: bool) -> Path:
    """Where to draw, after every check that can be made beforehand: a picture of this kind may be replaced.

    kind: as for `outputs.made_here`. Raises SlimtuneError.
    """
    if path.suffix.lower() != ".png":
        raise fail("the picture must be a PNG", where=f"--plot {path}", fix=f"name it {path.stem or 'picture'}.png")
    ours = functools.partial(outputs.made_here, kind=kind)
    return outputs.file(path, option="--plot", reads=reads, overwrite=overwrite, ours=ours)


def report(findings: Sequence[Finding]) -> None:
    """Print what an inspection found. Exit code 1 if there is an error."""
    echo(render(findings))
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


# Of the commands that ask models: `evaluate`, `compare` and `ensemble`.
DataOption = Annotated[str | None, Option("--data", help="Held-out questions or examples. Default: the run's own.")]
KindOption = Annotated[KindName, Option("--kind", help="Kind of evaluation.")]
ModeOption = Annotated[Mode, Option("--mode", help="direct: only a letter. cot: reasoning, then a letter.")]
PermutationsOption = Annotated[
    int, Option("--permutations", min=1, max=24, help="Ask each question with the choices in N orders.")
]
VotesOption = Annotated[
    int, Option("--votes", min=1, max=64, help="Replies per question in cot mode; the majority wins.")
]
TemperatureOption = Annotated[float, Option("--temperature", min=0.01, max=2, help="Sampling temperature for votes.")]
TokensOption = Annotated[int, Option("--max-new-tokens", min=1, max=32768, help="Longest reply, in tokens.")]
ItemsOption = Annotated[int | None, Option("--max-items", min=1, help="Ask only the first N items.")]
OutOption = Annotated[Path | None, Option("--out", help="Folder for the results.")]
FreshOption = Annotated[bool, Option("--fresh", help="Replace the results in the folder and ask everything again.")]
LengthOption = Annotated[int | None, Option("--max-length", min=64, help="Longest prompt plus reply, in tokens.")]
BatchOption = Annotated[int | None, Option("--batch-size", min=1, help="Prompts that are asked at a time.")]
FourBitOption = Annotated[
    bool | None, Option("--load-in-4bit/--load-in-16bit", help="How to load the weights. Default: as in training.")
]
ThinkingOption = Annotated[
    bool | None, Option("--thinking/--no-thinking", help="Let the model think before it answers.")
]
VramOption = Annotated[float | None, Option("--vram-gb", min=1, help="Use at most the memory of a card of this size.")]
SystemOption = Annotated[str | None, Option("--system", help="System prompt for rows without one.")]
SeedOption = Annotated[int, Option("--seed", min=0, help="Random seed for sampled votes.")]
ModelOption = Annotated[str | None, Option("--model", help="Name of the model on the server.")]


def settings_of(
    kind: KindName, mode: Mode, permutations: int, votes: int, temperature: float, max_new_tokens: int, seed: int
) -> Settings:
    from slimtune.evaluate.kinds.kind import Settings

    option, why = misfit(kind, mode, permutations, votes)
    if option:
        raise fail(why, where=f"--{option}", fix="change it, or leave it out")
    return Settings(kind, mode, permutations, votes, temperature, max_new_tokens=max_new_tokens, seed=seed)
