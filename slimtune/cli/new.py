"""`slimtune new`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from slimtune.cli.options import OverwriteOption
from slimtune.core.units import plural
from slimtune.datatools.new.recognise import Goal

if TYPE_CHECKING:
    from slimtune.core.console import Console
    from slimtune.datatools.new.draft import Draft

_SHOWN_ROWS = 3
_SHOWN_CHARACTERS = 100


def new(
    file: Annotated[str, Argument(help="A table: CSV, TSV, Excel (.xlsx), JSON, JSONL or Parquet.")],
    name: Annotated[str | None, Option("--name", help="Name of the recipe. Default: from the file's name.")] = None,
    goal: Annotated[
        Goal | None,
        Option(
            "--goal",
            help="To learn: texts (answer, chat), labels (classify), a way to write (style). Default: by the data.",
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        Option(
            "--map", metavar="FIELD=COLUMN,…", help="Which column is what: question=質問,answer=回答, also by number."
        ),
    ] = None,
    sheet: Annotated[
        str | None, Option("--sheet", help="Sheet of a workbook. Default: the one with most rows.")
    ] = None,
    model: Annotated[
        str | None, Option("--model", help="Base model. Default: the largest usual one that fits the card.")
    ] = None,
    vram_gb: Annotated[
        float | None, Option("--vram-gb", help="Memory of the card, as sold. Default: this machine's, or 10.")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be written, and write nothing.")] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Make a recipe and its data from a table of questions and answers, or from chats.

    It finds the columns, cleans and divides the rows into train, dev and test, chooses a model for the card and checks
    that the run fits. It writes data/NAME/ and recipes/NAME.yaml.
    """
    from slimtune.core import console as consoles
    from slimtune.core.console import Console, echo
    from slimtune.datatools.new import draft as drafts
    from slimtune.datatools.split import split_files
    from slimtune.run import starting

    with consoles.stderr().bar(f"Reading {file}"):
        draft = drafts.make(file, name=name, sheet=sheet, columns=columns or [], goal=goal)
    console = Console()
    planned = starting.plan(draft, model=model, vram_gb=vram_gb, goal=goal)
    draft = planned.draft
    contents = draft.contents(planned.wish, overwrite=overwrite)
    _show(console, draft)
    written = False
    if not dry_run:
        written = split_files.write(contents, overwrite=overwrite)
    console.step(f"Plan: {planned.wish.base}, judged by {planned.wish.kind}")
    for line in planned.lines:
        console.say(line)
    for note in planned.prepared.plan.notes:
        console.say(f"note: {note}")
    if dry_run:
        console.say(f"Nothing is written (--dry-run): neither {draft.recipe} nor {draft.folder}/")
        return
    console.step(f"{'Written' if written else 'Unchanged'}: {draft.recipe} and {draft.folder}/")
    echo(f"Next: python train_unsloth.py --recipe {shlex.quote(str(draft.recipe))}")


def _show(console: Console, draft: Draft) -> None:
    """What was understood, on three rows."""
    understood, sizes = draft.understood, draft.divided.sizes
    console.step(f"{draft.source}: {len(understood.examples):,} {understood.kind}")
    for field, column in understood.columns.items():
        console.say(f"{field}: '{column}'")
    for one in understood.examples[:_SHOWN_ROWS]:
        console.say(f"line {one.conversation.line}")
        for message in one.conversation.messages:
            calls = [f"[calls {call.name} {call.arguments}]" for call in message.tool_calls]
            text = " ".join([*message.content.split(), *calls])
            shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
            console.say(f"    {message.role}{' (no loss)' if message.excluded else ''}: {shown}")
    if understood.language:
        console.say(f"Language: {understood.language}")
    console.say("Divided into " + ", ".join(f"{name} {plural(rows, 'row')}" for name, rows in sizes.items()))
    for note in (*understood.notes, *draft.divided.notes):
        console.say(f"note: {note}.")
