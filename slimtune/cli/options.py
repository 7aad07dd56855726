"""What several commands share on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CONTEXT = {"help_option_names": ["-h", "--help"]}

OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="Replace values of the recipe: section.key=value, e.g. train.epochs=1")
]

TrainingFilesArgument = Annotated[list[str], typer.Argument(help="Training files in any format, or hub ids.")]
OptionalFilesArgument = Annotated[
    list[str] | None, typer.Argument(help="Training files in any format, or hub ids. Default: those of --recipe.")
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="The file to write, JSONL.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
