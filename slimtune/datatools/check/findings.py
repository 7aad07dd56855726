"""What the doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about a file or a row.

    level: an error is refused by the loader; a warning trains, but hardly as its owner meant; a note is for the reader.
    code: what kind it is, in kebab case ("label-at-prompt-end"), the same for all findings of the kind.
    what: a full clause. where: "path:line", or "path" for the file as a whole. fix: what to do.
    """

    level: Level
    code: str
    what: str
    where: str
    fix: str = ""
