"""`slimtune report`."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from slimtune.core.console import echo, stderr


def report(run: Annotated[Path, Argument(help="A run folder, e.g. outputs/direct/latest.")]) -> None:
    """Render report.html and the experiment log of a run again, from its folder alone."""
    from slimtune.core import run_folder
    from slimtune.core.errors import Gathered
    from slimtune.run import experiment_log
    from slimtune.run import report as reports

    run_folder.read_own(run)
    found = Gathered()
    for written in (experiment_log, reports):
        with found:
            written.require_own(run)
    found.require_none()
    for text in reports.unreadable_files(run):
        stderr().warn(text)
    experiment_log.write(run)
    echo(f"Report: {reports.write(run)}")
