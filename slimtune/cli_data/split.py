"""`slimtune data split`."""

from __future__ import annotations


def split() -> None:
    """In the making."""
