"""`slimtune data check`."""

from __future__ import annotations


def check() -> None:
    """In the making."""
