"""How many of each item the shop holds, and every change to that."""

from dataclasses import dataclass
from datetime import date

from kura.items import Catalog, Item


class OutOfStock(ValueError):
    """More was asked for than is available."""

    def __init__(self, sku: str, wanted: int, available: int) -> None:
        super().__init__(f"{sku}: wanted {wanted}, available {available}")
        self.sku = sku
        self.wanted = wanted
        self.available = available


@dataclass(frozen=True)
class Movement:
    """One change to the quantity of one item."""

    sku: str
    delta: int
    reason: str
    day: date


def _check_positive(quantity: int) -> None:
    if quantity <= 0:
        raise ValueError("quantity must be positive")


class Stock:
    """Quantities on hand and reserved, with a log of movements."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.movements: list[Movement] = []
        self._on_hand: dict[str, int] = {}
        self._reserved: dict[str, int] = {}

    def on_hand(self, sku: str) -> int:
        """Return how many are in the shop, reserved ones included."""
        return self._on_hand.get(self.catalog.get(sku).sku, 0)

    def reserved(self, sku: str) -> int:
        """Return how many are promised to orders."""
        return self._reserved.get(self.catalog.get(sku).sku, 0)

    def available(self, sku: str) -> int:
        """Return how many can still be sold or reserved."""
        return self.on_hand(sku) - self.reserved(sku)

    def receive(self, sku: str, quantity: int, day: date, reason: str = "delivery") -> None:
        """Put new units on hand."""
        _check_positive(quantity)
        self._move(sku, quantity, reason, day)

    def issue(self, sku: str, quantity: int, day: date, reason: str = "sale") -> None:
        """Take unreserved units out; raise OutOfStock if there are too few."""
        self._require(sku, quantity)
        self._move(sku, -quantity, reason, day)

    def adjust(self, sku: str, counted: int, day: date) -> int:
        """Set the quantity to what was counted and return the difference."""
        if counted < 0:
            raise ValueError("counted must not be negative")
        delta = counted - self.on_hand(sku)
        if delta:
            self._move(sku, delta, "count", day)
        return delta

    def reserve(self, sku: str, quantity: int) -> None:
        """Promise units to an order; they stay on hand."""
        self._require(sku, quantity)
        key = self.catalog.get(sku).sku
        self._reserved[key] = self._reserved.get(key, 0) + quantity

    def release(self, sku: str, quantity: int) -> None:
        """Give reserved units back to general sale."""
        _check_positive(quantity)
        held = self.reserved(sku)
        if quantity > held:
            raise ValueError(f"only {held} reserved")
        self._reserved[self.catalog.get(sku).sku] = held - quantity

    def history(self, sku: str) -> list[Movement]:
        """Return the movements of one item, oldest first."""
        key = self.catalog.get(sku).sku
        return sorted((m for m in self.movements if m.sku == key), key=lambda m: m.day)

    def needs_reorder(self) -> list[Item]:
        """Return items whose available quantity is at or below the reorder point."""
        return [i for i in self.catalog if self.available(i.sku) <= i.reorder_point]

    def total_value(self) -> int:
        """Return the price of everything on hand, in yen."""
        return sum(i.price * self.on_hand(i.sku) for i in self.catalog)

    def _require(self, sku: str, quantity: int) -> None:
        _check_positive(quantity)
        available = self.available(sku)
        if quantity > available:
            raise OutOfStock(self.catalog.get(sku).sku, quantity, available)

    def _move(self, sku: str, delta: int, reason: str, day: date) -> None:
        key = self.catalog.get(sku).sku
        self._on_hand[key] = self._on_hand.get(key, 0) + delta
        self.movements.append(Movement(key, delta, reason, day))
