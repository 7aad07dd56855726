"""Saving and loading: the catalog as CSV, movements as JSON lines."""

import csv
import json
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from kura.items import Catalog, Item
from kura.stock import Movement, Stock

FIELDS = ["sku", "name", "price", "category", "reorder_point"]


def save_catalog(catalog: Catalog, path: Path) -> None:
    """Write the catalog as CSV with a header row."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for item in catalog:
            writer.writerow({name: getattr(item, name) for name in FIELDS})


def load_catalog(path: Path) -> Catalog:
    """Read a catalog that save_catalog wrote."""
    catalog = Catalog()
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            price, point = int(row["price"]), int(row["reorder_point"])
            catalog.add(Item(row["sku"], row["name"], price, row["category"], point))
    return catalog


def dump_movements(movements: Iterable[Movement]) -> str:
    """Return one JSON object a line, days as ISO dates."""
    return "".join(
        json.dumps({"sku": m.sku, "delta": m.delta, "reason": m.reason, "day": m.day.isoformat()}, ensure_ascii=False)
        + "\n"
        for m in movements
    )


def parse_movements(text: str) -> list[Movement]:
    """Read what dump_movements returned; blank lines are skipped."""
    result = []
    for line in text.splitlines():
        if line.strip():
            data = json.loads(line)
            data["day"] = date.fromisoformat(data["day"])
            result.append(Movement(**data))
    return result


def rebuild(catalog: Catalog, movements: Iterable[Movement]) -> Stock:
    """Return a stock with all movements applied in order of day."""
    stock = Stock(catalog)
    for m in sorted(movements, key=lambda m: m.day):
        if m.delta > 0:
            stock.receive(m.sku, m.delta, m.day, m.reason)
        elif m.delta < 0:
            stock.issue(m.sku, -m.delta, m.day, m.reason)
    return stock
