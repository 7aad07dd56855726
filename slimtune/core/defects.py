"""The last resort: an error that no code foresaw becomes one sentence, and its traceback goes into a log file."""

import datetime
import os
import platform
import sys
import tempfile
import traceback
from pathlib import Path

from slimtune.core.redaction import redact, redacted_command
from slimtune.core.versions import installed
from slimtune.core.visible import visible

MARK = "this is a defect in Slimtune"
"""In every such message, so that tests can tell it from an error that was foreseen."""


def report(error: BaseException) -> str:
    """Write the traceback to a log file, and return the message for the person."""
    text = "".join(traceback.format_exception(error))
    facts = [f"{key} {value}" for key, value in installed().items()]
    lines = [
        f"time {datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')}",
        f"command {' '.join(redacted_command(sys.argv))}",
        f"python {platform.python_version()} on {platform.platform()}",
        ", ".join(facts),
        text,
    ]
    first = str(error).splitlines()[0][:300] if str(error) else ""
    what = redact(f"{type(error).__name__}: {first}".rstrip(": "))
    return f"{what}\n    → {MARK}; please report it with {_write(visible(redact(chr(10).join(lines))))}"


def _write(text: str) -> str:
    """The log file's path; where the state folder cannot be written, one in the temporary folder, or else nothing."""
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "slimtune"
    name = f"error-{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    for folder in (state, Path(tempfile.gettempdir())):
        try:
            folder = folder.expanduser()
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("x", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except (OSError, RuntimeError):
            continue
        return str(folder / name)
    return f"this traceback, which could not be written to a file:\n{text}"
