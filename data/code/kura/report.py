"""Summaries of stock and movements."""

from collections import Counter
from collections.abc import Iterable
from datetime import date

from kura.items import Item
from kura.money import format_yen
from kura.stock import Movement, Stock


def stock_table(stock: Stock) -> str:
    """Return one text line an item: SKU, available quantity, value."""
    rows = []
    for item in stock.catalog:
        value = format_yen(item.price * stock.on_hand(item.sku))
        rows.append(f"{item.sku:<12}{stock.available(item.sku):>6}{value:>12}")
    return "\n".join(rows)


def top_movers(movements: Iterable[Movement], limit: int = 5) -> list[tuple[str, int]]:
    """Return the SKUs with most units taken out, as (sku, units)."""
    out: Counter[str] = Counter()
    for m in movements:
        if m.delta < 0 and m.reason != "count":
            out[m.sku] -= m.delta
    return sorted(out.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]


def monthly_net(movements: Iterable[Movement]) -> dict[str, int]:
    """Return the net change in units for each month, as {'2024-05': 12}."""
    totals: dict[str, int] = {}
    for m in movements:
        month = m.day.strftime("%Y-%m")
        totals[month] = totals.get(month, 0) + m.delta
    return dict(sorted(totals.items()))


def value_by_category(stock: Stock) -> dict[str, int]:
    """Return the value on hand of each category, dearest first."""
    values: Counter[str] = Counter()
    for item in stock.catalog:
        values[item.category] += item.price * stock.on_hand(item.sku)
    return dict(values.most_common())


def days_of_cover(stock: Stock, sku: str, sold: int, days: int) -> int | None:
    """Return how many whole days stock lasts at the rate sold/days; None if nothing sells."""
    if days <= 0 or sold < 0:
        raise ValueError("days must be positive and sold not negative")
    return stock.available(sku) * days // sold if sold else None


def stale_items(stock: Stock, today: date, days: int = 90) -> list[Item]:
    """Return items on hand that have not moved for at least this many days."""
    stale = []
    for item in stock.catalog:
        history = stock.history(item.sku)
        if stock.on_hand(item.sku) and (today - history[-1].day).days >= days:
            stale.append(item)
    return stale
