"""Customer orders: draft, placed, then shipped or cancelled."""

from dataclasses import dataclass, field
from datetime import date
from enum import Enum

from kura.items import Catalog, normalize_sku
from kura.money import add_tax
from kura.stock import OutOfStock, Stock


class OrderError(ValueError):
    """The order is not in a state that allows this."""


class Status(Enum):
    DRAFT = "draft"
    PLACED = "placed"
    SHIPPED = "shipped"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Line:
    """A quantity of one item."""

    sku: str
    quantity: int


@dataclass
class Order:
    """What one customer wants."""

    order_id: str
    lines: list[Line] = field(default_factory=list)
    status: Status = Status.DRAFT

    def add(self, sku: str, quantity: int) -> None:
        """Add units to a draft order; a repeated SKU grows its line."""
        _expect(self, Status.DRAFT)
        if quantity <= 0:
            raise ValueError("quantity must be positive")
        key = normalize_sku(sku)
        for i, line in enumerate(self.lines):
            if line.sku == key:
                self.lines[i] = Line(key, line.quantity + quantity)
                return
        self.lines.append(Line(key, quantity))

    def subtotal(self, catalog: Catalog) -> int:
        """Return the price of all lines before tax."""
        return sum(catalog.get(li.sku).price * li.quantity for li in self.lines)

    def total(self, catalog: Catalog, tax_percent: int = 10) -> int:
        """Return the price of all lines with tax on the sum."""
        return add_tax(self.subtotal(catalog), tax_percent)


def shortages(order: Order, stock: Stock) -> dict[str, int]:
    """Return how many units are missing for each SKU that falls short."""
    missing = {}
    for line in order.lines:
        lack = line.quantity - stock.available(line.sku)
        if lack > 0:
            missing[line.sku] = lack
    return missing


def place(order: Order, stock: Stock) -> None:
    """Reserve every line, or none of them if one falls short."""
    _expect(order, Status.DRAFT)
    if not order.lines:
        raise OrderError(f"{order.order_id} has no lines")
    done: list[Line] = []
    try:
        for line in order.lines:
            stock.reserve(line.sku, line.quantity)
            done.append(line)
    except OutOfStock:
        for line in done:
            stock.release(line.sku, line.quantity)
        raise
    order.status = Status.PLACED


def ship(order: Order, stock: Stock, day: date) -> None:
    """Turn the reservations of a placed order into sales."""
    _expect(order, Status.PLACED)
    for line in order.lines:
        stock.release(line.sku, line.quantity)
        stock.issue(line.sku, line.quantity, day, reason=f"order {order.order_id}")
    order.status = Status.SHIPPED


def cancel(order: Order, stock: Stock) -> None:
    """Cancel a draft or placed order and free what it reserved."""
    if order.status is Status.PLACED:
        for line in order.lines:
            stock.release(line.sku, line.quantity)
    else:
        _expect(order, Status.DRAFT)
    order.status = Status.CANCELLED


def _expect(order: Order, status: Status) -> None:
    if order.status is not status:
        raise OrderError(f"{order.order_id} is {order.status.value}, not {status.value}")
