"""`slimtune data mix`."""

from __future__ import annotations


def mix() -> None:
    """In the making."""
