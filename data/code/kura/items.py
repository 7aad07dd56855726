"""Items and the catalog that holds them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace


class UnknownItem(KeyError):
    """No item has this SKU."""


class DuplicateItem(ValueError):
    """An item with this SKU is already in the catalog."""


def normalize_sku(text: str) -> str:
    """Return the SKU in upper case, words joined by single hyphens."""
    sku = "-".join(text.replace("_", " ").split()).upper()
    if not sku:
        raise ValueError("SKU must not be empty")
    return sku


@dataclass(frozen=True)
class Item:
    """One thing the shop sells."""

    sku: str
    name: str
    price: int
    category: str = "general"
    reorder_point: int = 0

    def __post_init__(self) -> None:
        if self.price < 0:
            raise ValueError("price must not be negative")
        if self.reorder_point < 0:
            raise ValueError("reorder_point must not be negative")
        object.__setattr__(self, "sku", normalize_sku(self.sku))

    def with_price(self, price: int) -> "Item":
        """Return a copy of this item at another price."""
        return replace(self, price=price)


class Catalog:
    """Items by SKU, in the order they were added."""

    def __init__(self, items: list[Item] | None = None) -> None:
        self._items: dict[str, Item] = {}
        for item in items or []:
            self.add(item)

    def add(self, item: Item) -> None:
        """Add an item; raise DuplicateItem if its SKU is taken."""
        if item.sku in self._items:
            raise DuplicateItem(item.sku)
        self._items[item.sku] = item

    def get(self, sku: str) -> Item:
        """Return the item with this SKU; raise UnknownItem if none has it."""
        key = normalize_sku(sku)
        if key not in self._items:
            raise UnknownItem(key)
        return self._items[key]

    def update(self, item: Item) -> Item:
        """Replace the item that has the same SKU and return the old one."""
        old = self.get(item.sku)
        self._items[old.sku] = item
        return old

    def remove(self, sku: str) -> Item:
        """Take an item out of the catalog and return it."""
        return self._items.pop(self.get(sku).sku)

    def find(self, text: str) -> list[Item]:
        """Return items whose name or SKU contains the text, in any case."""
        needle = text.casefold()
        return [item for item in self if needle in item.name.casefold() or needle in item.sku.casefold()]

    def by_category(self) -> dict[str, list[Item]]:
        """Group the items by category, categories in alphabetical order."""
        groups: dict[str, list[Item]] = {}
        for item in self:
            groups.setdefault(item.category, []).append(item)
        return dict(sorted(groups.items()))

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, sku: str) -> bool:
        return normalize_sku(sku) in self._items
