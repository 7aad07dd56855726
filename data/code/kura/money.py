"""Arithmetic on whole yen. No floats anywhere."""


def format_yen(amount: int) -> str:
    """Return the amount with a yen sign and thousands separators."""
    sign = "-" if amount < 0 else ""
    return f"{sign}¥{abs(amount):,}"


def parse_yen(text: str) -> int:
    """Read '¥1,200', '1200円' or '-¥50' back into an int."""
    cleaned = text.strip().replace(",", "").replace("¥", "").removesuffix("円")
    try:
        return int(cleaned)
    except ValueError:
        raise ValueError(f"not a yen amount: {text!r}") from None


def add_tax(amount: int, percent: int = 10) -> int:
    """Return the amount with tax on top, fractions of a yen dropped."""
    if percent < 0:
        raise ValueError("percent must not be negative")
    return amount + amount * percent // 100


def discount(amount: int, percent: int) -> int:
    """Return the amount less a percentage; the discount is rounded down."""
    if not 0 <= percent <= 100:
        raise ValueError("percent must be between 0 and 100")
    return amount - amount * percent // 100


def split_evenly(amount: int, parts: int) -> list[int]:
    """Split an amount into parts that differ by at most one yen."""
    if parts < 1:
        raise ValueError("parts must be at least 1")
    base, extra = divmod(amount, parts)
    return [base + 1] * extra + [base] * (parts - extra)
