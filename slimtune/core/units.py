"""Sizes in bytes, and how a person reads them."""

from __future__ import annotations

KIB, MIB, GIB = 2**10, 2**20, 2**30


def size_text(size: int) -> str:
    """Bytes for a person: "7.23 GiB", "40 MiB" below a tenth of a GiB."""
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / MIB:.0f} MiB"
