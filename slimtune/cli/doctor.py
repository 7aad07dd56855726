"""`slimtune doctor`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from slimtune.cli import options


def doctor(
    run: Annotated[Path | None, Argument(help="A run, e.g. outputs/direct/latest. Without one: this machine.")] = None,
    online: Annotated[bool, Option("--online", help="Also check whether the hub answers.")] = False,
) -> None:
    """Check this machine or a run, and say what to do. Changes nothing. Exit code 1 if there is an error."""
    from slimtune.run import doctor as doctors
    from slimtune.run import doctor_run

    options.report(doctors.machine(online=online) if run is None else doctor_run.run(run))
