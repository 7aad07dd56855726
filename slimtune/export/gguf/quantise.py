"""Quantise a 16-bit GGUF without a compiler.

Two routes, in this order: a `llama-quantize` of the user's (named by $SLIMTUNE_LLAMA_QUANTIZE or on the PATH), and llama.cpp's
own routine in the xllamacpp wheel (run_quantiser.py). Both write the same bytes for the same version of llama.cpp.
"""

import importlib.util
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core.errors import fail
from slimtune.core.files import staged
from slimtune.export.gguf import child
from slimtune.export.gguf.gguf import BYTES_PER_PARAMETER, FILE_NAME, progress_of
from slimtune.models.files import require_disk_space
from slimtune.recipe.names import QuantisedType

PROGRAM_VARIABLE = "SLIMTUNE_LLAMA_QUANTIZE"


@dataclass(frozen=True, slots=True)
class QuantRecord:
    """A finished file. tensor_types: how many tensors have which type. fallbacks: those whose rows the kind does not fit.

    route: "llama-quantize" or "xllamacpp".
    """

    path: str
    kind: QuantisedType
    bytes: int
    tensor_types: dict[str, int]
    fallbacks: tuple[str, ...]
    route: str
    seconds: float


def quantise(
    source: Path, out_path: Path, kind: QuantisedType, *, on_progress: Callable[[int, int], None] | None = None
) -> QuantRecord:
    """Write the 16-bit GGUF `source` as `kind` to `out_path`, replacing an older file only when complete and checked.

    on_progress: called with (bytes written, bytes expected), both roughly.
    Raises SlimtuneError for a name that is not plain, a full disk, a source that is quantised already, a tensor of another
    type than the kind asks for, and whatever the route complains about.
    """
    started = time.monotonic()
    if not FILE_NAME.fullmatch(out_path.name):
        raise fail(f"{out_path.name!r} cannot be the name of a GGUF", fix="letters, digits, '.', '_', '-', then .gguf")
    expected = int(source.stat().st_size / 2 * BYTES_PER_PARAMETER[kind])
    require_disk_space(out_path.parent, expected, f"the {kind} GGUF")
    program = find_program()
    with staged(out_path) as partial:
        on_poll = progress_of(partial, expected, on_progress)
        if program:
            command = [program, str(source), str(partial), kind.upper()]
            child.watch(command, what="llama-quantize", partial=partial, where=source, on_poll=on_poll)
            report = _script(["--check", str(source), str(partial), kind], partial, source, None)
        else:
            report = _script([str(source), str(partial), kind, library()], partial, source, on_poll)
    size = out_path.stat().st_size
    if on_progress:
        on_progress(size, size)
    return QuantRecord(
        path=str(out_path),
        kind=kind,
        bytes=size,
        tensor_types=report["tensor_types"],
        fallbacks=tuple(report["fallbacks"]),
        route="llama-quantize" if program else "xllamacpp",
        seconds=round(time.monotonic() - started, 3),
    )


def find_program() -> str | None:
    """The user's llama-quantize, or None. Raises SlimtuneError where the environment names one that does not exist."""
    named = os.environ.get(PROGRAM_VARIABLE)
    if not named:
        return shutil.which("llama-quantize")
    if not (Path(named).is_file() and os.access(named, os.X_OK)):
        raise fail("no such program", where=f"{PROGRAM_VARIABLE}={named}", fix="name llama-quantize, or unset it")
    return named


def library() -> str:
    """The shared library inside xllamacpp, which exports llama.cpp's quantisation."""
    package = importlib.util.find_spec("xllamacpp")
    folders = package.submodule_search_locations if package else None
    found = [str(path) for folder in folders or () for path in sorted(Path(folder).glob("xllamacpp*.so"))]
    if not found:
        raise fail("llama.cpp is not installed", fix="pip install -r requirements.txt (xllamacpp)")
    return found[0]


def _script(arguments: list[str], partial: Path, source: Path, on_poll: Callable[[], None] | None) -> dict[str, Any]:
    return child.run_script(
        "run_quantiser.py", arguments, what="the quantisation", partial=partial, where=source, on_poll=on_poll
    )
