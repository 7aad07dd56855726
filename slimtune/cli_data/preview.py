"""`slimtune data preview`."""

from __future__ import annotations


def preview() -> None:
    """In the making."""
