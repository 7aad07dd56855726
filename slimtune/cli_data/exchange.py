"""`slimtune data export` and `slimtune data import`."""

from __future__ import annotations


def export() -> None:
    """In the making."""


def import_() -> None:
    """In the making."""
