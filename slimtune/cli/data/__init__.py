"""`slimtune data …`: build, check, preview, split, mix, export and import training sets. Nothing here loads weights."""

import typer

from slimtune.cli.data.build import build
from slimtune.cli.data.check import check
from slimtune.cli.data.exchange import export, import_
from slimtune.cli.data.mix import mix
from slimtune.cli.data.preview import preview
from slimtune.cli.data.split import split
from slimtune.cli.options import CONTEXT

data = typer.Typer(
    no_args_is_help=True,
    context_settings=CONTEXT,
    help="Build, check, preview, split, mix and convert training sets. No weights, no GPU.",
)
for command in (build, check, preview, split, mix, export):
    data.command()(command)
data.command("import")(import_)
