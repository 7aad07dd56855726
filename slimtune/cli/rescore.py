"""`slimtune rescore`."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from slimtune.cli.options import OverwriteOption
from slimtune.data.records import Mode


def rescore(
    file: Annotated[
        Path,
        Argument(
            help="Stored replies: one JSON object per line, with 'text', or as lm-eval, OpenAI or Ollama write it."
        ),
    ],
    mode: Annotated[Mode, Option(help="Mode of rows that do not state one.")] = "direct",
    labels: Annotated[int, Option(min=2, max=10, help="Choices in rows that do not list them.")] = 4,
    output: Annotated[
        Path | None, Option("--output", "-o", help="File to write. Default: beside FILE, as replies.rescored.jsonl.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Read the answers from stored replies of any tool. Adds answer, rule and status to each row.

    FILE itself is never changed. If standard output is not a terminal, the rows are also written there.
    """
    from slimtune.core.console import data, stderr
    from slimtune.evaluate import rescore as rescoring

    rescored = rescoring.rescore(file, mode=mode, labels=labels, output=output, overwrite=overwrite)
    if not sys.stdout.isatty():
        data(rescoring.rows_as_jsonl(rescored.rows))
    for line in rescoring.lines(rescored):
        stderr().say(line)
    stderr().say(f"Rows: {rescored.path}")
