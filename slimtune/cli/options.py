"""What several commands share on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

CONTEXT = {"help_option_names": ["-h", "--help"]}

OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="Replace values of the recipe: section.key=value, e.g. train.epochs=1")
]
