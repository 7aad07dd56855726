"""`slimtune export --check FILE`: a Modelfile or GGUF from anywhere, looked at before it is served."""

from __future__ import annotations

from pathlib import Path

from slimtune.core.errors import fail
from slimtune.export.check.check_gguf import check_gguf
from slimtune.export.check.check_modelfile import check_modelfile
from slimtune.export.check.findings import Finding, render

__all__ = ["Finding", "check_file", "render"]

_LARGEST_MODELFILE = 4 * 2**20


def check_file(path: Path, *, deep: bool = False) -> list[Finding]:
    """Everything that was seen; a Modelfile brings what is seen in the GGUF that it names.

    deep: search all weights that are not quantised for NaN and infinity, instead of the first 256 MiB.
    Raises SlimtuneError where there is no such file, or it is neither.
    """
    if not path.is_file():
        raise fail("no such file", where=str(path), fix="name a Modelfile or a .gguf")
    with path.open("rb") as file:
        begins = file.read(4)
    if begins == b"GGUF" or path.suffix == ".gguf":
        return check_gguf(path, deep=deep)
    if path.stat().st_size > _LARGEST_MODELFILE:
        raise fail("neither a GGUF nor a Modelfile", where=str(path), fix="name a Modelfile or a .gguf")
    return check_modelfile(path, deep=deep)
