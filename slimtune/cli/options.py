"""What several commands share on the command line."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

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
