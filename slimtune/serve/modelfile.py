"""A Modelfile and the GGUF beside it that it is FROM."""

import re
from pathlib import Path

from slimtune.core import inputs
from slimtune.core.errors import fail
from slimtune.export.modelfile.modelfile_reader import Modelfile, read_modelfile

_FILE_NAME = re.compile(r"[^/\\\x00-\x1f]+\.gguf")


def read(path: Path) -> tuple[str | None, Modelfile]:
    """The name of the GGUF that a Modelfile is FROM, None where FROM is not the plain name of one; and what it holds.

    Raises SlimtuneError where Ollama's parser would stop.
    """
    try:
        found = read_modelfile(inputs.read_text(path))
    except ValueError as error:
        fix = "correct it, or export again with --fresh"
        raise fail(f"not a Modelfile: {error}", where=str(path), fix=fix) from error
    name = found.models[-1].removeprefix("./")
    return (name if _FILE_NAME.fullmatch(name) else None), found
