"""A preview as one page that can be sent to somebody: nothing is loaded from outside, and every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slimtune.core.errors import fail
from slimtune.core.files import write_text
from slimtune.datatools.preview import preview_text
from slimtune.datatools.preview.preview import Previews
from slimtune.run.report import layout


def write(path: Path, previews: Sequence[Previews]) -> None:
    """Raises SlimtuneError where the folder does not exist."""
    if not path.parent.is_dir():
        raise fail(f"there is no folder {path.parent}", where="--html", fix="make it first")
    write_text(path, render(previews))


def render(previews: Sequence[Previews]) -> str:
    """The page, in the look of the reports (slimtune/run/report/layout.py)."""
    files = [
        {
            "summary": preview_text.summary(found),
            "unread": preview_text.unread(found),
            "examples": [
                {
                    "title": preview_text.title(one),
                    "figures": preview_text.figures(one),
                    "overlong": preview_text.overlong(one),
                    "max_seq_length": f"{one.max_seq_length:,}",
                    "segments": [
                        {
                            "text": preview_text.visible(segment.text),
                            "kind": "token" if segment.special else "",
                            "supervised": segment.supervised,
                            "beyond": segment.beyond,
                        }
                        for segment in one.segments
                    ],
                }
                for one in found.examples
            ],
        }
        for found in previews
    ]
    return layout.render("preview.html.jinja", {"files": files})
