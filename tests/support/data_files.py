"""Data files of a few rows, and what reading them gives."""

import json
from pathlib import Path

from slimtune.core.errors import Problem
from slimtune.data.json_rows import Row
from slimtune.data.sources import read_rows

A, B = {"input": "問い", "output": "甲"}, {"input": "次", "output": "乙"}


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def rows_of(path: str) -> list[Row]:
    problems: list[Problem] = []
    rows = read_rows(path, problems)
    assert problems == []
    return rows


def problems_of(path: str) -> list[Problem]:
    problems: list[Problem] = []
    read_rows(path, problems)
    return problems


def the_problem(path: str) -> Problem:
    (problem,) = problems_of(path)
    return problem


def line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
