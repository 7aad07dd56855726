"""`slimtune version` and `slimtune --version`."""

from typing import Annotated

import typer
from typer import Option

from slimtune.core.console import echo


def version() -> None:
    """Print the version of Slimtune and of the libraries that decide the result of a run."""
    from slimtune.core import versions

    for name, found in versions.installed().items():
        echo(f"{name} {found}")


def _print_and_exit(wanted: bool) -> None:
    if wanted:
        from slimtune import __version__

        echo(f"slimtune {__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool, Option("--version", callback=_print_and_exit, is_eager=True, help="Print the version and exit.")
]
