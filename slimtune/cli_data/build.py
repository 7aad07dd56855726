"""`slimtune data build`."""

from __future__ import annotations


def build() -> None:
    """In the making."""
