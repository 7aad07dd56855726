"""Sizes and counts, and how a person reads them."""

KIB, MIB, GIB = 2**10, 2**20, 2**30


def size_text(size: float) -> str:
    """Bytes for a person: "7.23 GiB", "512 MiB", "12.5 KiB", "17 B"."""
    if size >= 1000 * MIB:
        return f"{size / GIB:,.2f} GiB"
    for unit, factor in (("MiB", MIB), ("KiB", KIB)):
        if size >= factor:
            return f"{round(size / factor, 1 if size < 100 * factor else None):g} {unit}"
    return f"{size:.0f} B"


def plural(count: int, noun: str) -> str:
    """ "1 row", "12,000 rows"."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"
