"""Paths in a recipe: what can be none is refused where it stands, and `~` is the home folder in all of them."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

# Of Linux and macOS (limits.h); some file systems allow less.
_NAME_BYTES, _PATH_BYTES = 255, 4095


def usable(text: str) -> str:
    """The path, with `~` and `~name` replaced by the home folder. Raises ValueError for what cannot be a path.

    Characters that no path can have are refused in every text of a recipe (yaml_lines.py).
    """
    if text.startswith("~"):
        try:
            text = str(Path(text).expanduser())
        except RuntimeError:
            user = text.split("/")[0]
            what = "no home folder is known" if user == "~" else f"there is no user '{user[1:]}' with a home folder"
            raise ValueError(f"{what}; write the path out, or ./{user} for a folder of that name") from None
    if any(len(os.fsencode(name)) > _NAME_BYTES for name in text.split("/")):
        raise ValueError(f"a name in this path is longer than {_NAME_BYTES} bytes")
    if len(os.fsencode(text)) > _PATH_BYTES:
        raise ValueError(f"the path is longer than {_PATH_BYTES:,} bytes")
    return text


PathText = Annotated[str, AfterValidator(usable)]
"""A path as text. It may also name something else, such as a model of the hub."""
