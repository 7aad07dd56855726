"""`slimtune data …`: build, check, preview, split, mix, export and import training sets. Nothing here loads weights."""

from __future__ import annotations

import typer

from slimtune.cli.data.build import build
from slimtune.cli.data.check import check
from slimtune.cli.data.exchange import export, import_
from slimtune.cli.data.mix import mix
from slimtune.cli.data.preview import preview
from slimtune.cli.data.split import split


def register(app: typer.Typer) -> None:
    """Add the group `data` to the command line."""
    data = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Build, check, preview, split, mix and convert training sets. No weights, no GPU.",
    )
    data.command("build")(build)
    data.command("check")(check)
    data.command("preview")(preview)
    data.command("split")(split)
    data.command("mix")(mix)
    data.command("export")(export)
    data.command("import")(import_)
    app.add_typer(data, name="data")
