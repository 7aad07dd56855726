"""Figures in words: shares, intervals, tests, excerpts."""

from collections.abc import Sequence


def percent(share: float) -> str:
    """0.9583 → "95.8 %"."""
    return f"{100 * share:.1f} %"


def signed(value: float) -> str:
    """0.04 → "+0.0", and so is -0.04."""
    return f"{value:+z.1f}"


def bounds(shares: Sequence[float]) -> str:
    """[0.906, 0.982] → "90.6 to 98.2"."""
    low, high = shares
    return f"{100 * low:.1f} to {100 * high:.1f}"


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3g}"


def some(names: Sequence[str], most: int = 10) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def excerpt(text: str, length: int) -> str:
    """The text, cut in the middle where it is longer: a prompt's end has the question, its beginning says what it is."""
    if len(text) <= length:
        return text
    half = (length - 3) // 2
    return f"{text[: length - 3 - half].rstrip()} … {text[-half:].lstrip()}"
