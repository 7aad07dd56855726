"""Rows of questions that have nothing in common, for sets that are split or mixed."""

import json
import random
from pathlib import Path
from typing import Any


def text(number: int, length: int = 40) -> str:
    """Signs that no other number's text has in this order."""
    rng = random.Random(f"text/{number}")
    return "".join(chr(rng.randrange(0x4E00, 0x9F00)) for _ in range(length))


def row(number: int, *, input: str | None = None, output: str | None = None, **meta: Any) -> dict[str, Any]:
    """A row with the id q000 …; its answer is one of a, b, c, d in turn."""
    answer = output or "abcd"[number % 4]
    return {"input": input or text(number), "output": answer, "meta": {"id": f"q{number:03d}", **meta}}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8")
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ids(path: Path) -> set[str]:
    return {one["meta"]["id"] for one in read(path)}
