"""Numbers in sentences."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """ "1 row", "12,000 rows"."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"
