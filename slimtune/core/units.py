"""Sizes and counts, and how a person reads them."""

KIB, MIB, GIB = 2**10, 2**20, 2**30


def size_text(size: int) -> str:
    """Bytes for a person: "7.23 GiB", "40 MiB" below a tenth of a GiB."""
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / MIB:.0f} MiB"


def plural(count: int, noun: str) -> str:
    """ "1 row", "12,000 rows"."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"
