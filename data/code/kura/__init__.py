"""kura: small stock keeping for a shop. Prices are whole yen (int)."""

from kura.items import Catalog, DuplicateItem, Item, UnknownItem, normalize_sku
from kura.orders import Line, Order, OrderError, Status
from kura.stock import Movement, OutOfStock, Stock

__all__ = [
    "Catalog",
    "DuplicateItem",
    "Item",
    "Line",
    "Movement",
    "Order",
    "OrderError",
    "OutOfStock",
    "Status",
    "Stock",
    "UnknownItem",
    "normalize_sku",
]
