"""A path or a Hugging Face id to rows: JSONL, JSON, CSV, Parquet and the hub, each row with its line."""

import csv
import datetime
import decimal
import difflib
import io
import itertools
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.data.encoding import decode
from slimtune.data.json_rows import Row, StrictDecoder, read_json

log = logging.getLogger(__name__)

_DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_HUB_ID = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(:(?P<split>.+))?", re.ASCII)
# A table's cell cannot be an object, so these columns may contain JSON text; an empty cell there means no value.
_JSON_COLUMNS = ("meta", "messages", "conversations")
_OPTIONAL_COLUMNS = (*_JSON_COLUMNS, "system")


def read_rows(path: str, problems: list[Problem]) -> list[Row]:
    """All rows of a local file or of `org/name[:split]` / `hf://org/name[:split]` (split: "train" unless named).

    The kind of a file shows in its suffix, or else in its content. Rows that cannot be read are left out and
    reported in `problems` with "path:line". Raises `SlimtuneError` for a hub data set that cannot be loaded.
    """
    known = len(problems)
    rows = _read_hub(path, problems) if is_hub_id(path) else _read_file(path, problems)
    if not rows and len(problems) == known:
        problems.append(Problem("there are no rows", path, "write at least one example into it"))
    return rows


def is_hub_id(path: str) -> bool:
    """Whether `path` names a data set on the Hugging Face hub rather than a (possibly missing) file."""
    if path.startswith("hf://"):
        return True
    match = _HUB_ID.fullmatch(path)
    if not match or Path(path).exists() or PurePath(match["id"]).suffix.lower() in _DATA_SUFFIXES:
        return False
    return not Path(path).parent.is_dir()


def _read_file(path: str, problems: list[Problem]) -> list[Row]:
    if not Path(path).is_file():
        problems.append(_no_such_file(path))
        return []
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        problems.append(Problem(f"the file cannot be read: {error.strerror}", path, "check its permissions"))
        return []
    if data.startswith(b"PAR1"):
        return _read_parquet(path, data, problems)
    suffix = PurePath(path).suffix.lower()
    if suffix == ".parquet":
        fix = "write it again, or rename it to what it is (.jsonl, .json, .csv)"
        problems.append(Problem("not a Parquet file (it does not begin with PAR1)", path, fix))
        return []
    if data.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        fix = "unpack it; for a spreadsheet, export it as CSV (UTF-8)"
        problems.append(Problem("the file is compressed", path, fix))
        return []
    known = len(problems)
    text, bad_lines = decode(data, path, problems)
    if not text.strip():
        if len(problems) == known:
            problems.append(Problem("the file is empty", path, "write at least one example into it"))
        return []
    if suffix in (".csv", ".tsv"):
        return _read_csv(text, path, bad_lines, problems)
    if suffix in _DATA_SUFFIXES or text.lstrip()[0] in "{[":
        return read_json(text, path, bad_lines, problems)
    fix = f"give it one of the suffixes {' '.join(_DATA_SUFFIXES)}"
    problems.append(Problem("unknown kind of file", path, fix))
    return []


def _no_such_file(path: str) -> Problem:
    file, parent, fix = Path(path), Path(path).parent, f"the working directory is {Path.cwd()}"
    if file.is_dir():
        inside = sorted(str(entry) for entry in file.iterdir() if entry.suffix in _DATA_SUFFIXES)
        named = ", ".join(inside[:5]) or "it contains no data"
        return Problem("this is a folder, not a file", path, f"name a file: {named}")
    if not parent.is_dir():
        return Problem("no such file", path, f"there is no folder {parent}; {fix}")
    names = sorted(entry.name for entry in parent.iterdir() if entry.is_file())
    near = [str(parent / name) for name in difflib.get_close_matches(file.name, names, n=3, cutoff=0.5)]
    return Problem("no such file", path, f"did you mean {' or '.join(near)}?" if near else fix)


def _read_csv(text: str, path: str, bad_lines: frozenset[int], problems: list[Problem]) -> list[Row]:
    """RFC 4180 with a header; a row's line is the physical line where it starts, however many lines its cells have."""
    first_line = text.lstrip("\n").partition("\n")[0]
    delimiter = max("\t,;" if path.lower().endswith(".tsv") else ",;\t", key=first_line.count)
    records = _csv_records(text, delimiter, path, bad_lines, problems)
    line, header = next(records, (1, []))
    faulty = [name for name in header if header.count(name) > 1 or not name.strip()]
    if faulty:
        what = f"the header has empty or repeated names: {', '.join(repr(name) for name in dict.fromkeys(faulty))}"
        problems.append(Problem(what, f"{path}:{line}", "give every column its own name"))
        return []
    rows: list[Row] = []
    for line, cells in records:
        if len(cells) != len(header):
            fix = 'a cell with a comma, a quote or a line break needs "quotes" around it'
            what = f"{len(cells)} cells, but the header has {len(header)}"
            problems.append(Problem(what, f"{path}:{line}", fix))
            continue
        rows += _table_row(dict(zip(header, cells, strict=True)), path, line, problems)
    return rows


def _csv_records(
    text: str, delimiter: str, path: str, bad_lines: frozenset[int], problems: list[Problem]
) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            never_closed = "unexpected end of data" in str(error)
            what = "a quote that opens here is never closed" if never_closed else f"broken CSV: {error}"
            problems.append(Problem(what, f"{path}:{start}", 'write a quote inside a quoted cell twice: ""'))
            continue
        if cells and bad_lines.isdisjoint(range(start, reader.line_num + 1)):
            yield start, cells


def _table_row(value: dict[str, Any], path: str, line: int, problems: list[Problem]) -> list[Row]:
    """A row of a table, its JSON columns parsed; none if they cannot be."""
    decoder = StrictDecoder()
    row: dict[str, Any] = {}
    for name, cell in value.items():
        if name in _OPTIONAL_COLUMNS and isinstance(cell, str) and not cell.strip():
            continue
        if name not in _JSON_COLUMNS or not isinstance(cell, str):
            row[name] = cell
            continue
        try:
            row[name] = decoder.decode(cell)
            faults = list(decoder.complaints)
        except (ValueError, RecursionError) as error:
            faults = [f"broken JSON: {error}"]
        if faults:
            fix = "write the cell as JSON, or leave it empty"
            problems.append(Problem(f"column '{name}': {'; '.join(faults)}", f"{path}:{line}", fix))
            return []
    return [Row(line, row)]


def _read_parquet(path: str, data: bytes, problems: list[Problem]) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        values = pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        problems.append(Problem(f"broken Parquet: {error}", path, "write the file again"))
        return []
    return _arrow_rows(values, path, problems)


def _arrow_rows(values: Iterable[dict[str, Any]], path: str, problems: list[Problem]) -> list[Row]:
    rows = (_table_row(_as_json(value), path, number, problems) for number, value in enumerate(values, start=1))
    return list(itertools.chain.from_iterable(rows))


def _as_json(value: Any) -> Any:
    """An Arrow value as JSON. Null fields are left out: Arrow has them for missing keys. Dates become ISO 8601 text."""
    if isinstance(value, dict):
        return {key: _as_json(content) for key, content in value.items() if content is not None}
    if isinstance(value, list):
        return [_as_json(content) for content in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value) if isinstance(value, decimal.Decimal | datetime.timedelta) else value


def _read_hub(path: str, problems: list[Problem]) -> list[Row]:
    match = _HUB_ID.fullmatch(path.removeprefix("hf://"))
    if not match:
        raise SlimtuneError(Problem("not a data set id", path, "write hf://org/name or hf://org/name:split"))
    name, split = match["id"], match["split"] or "train"

    import datasets

    log.info("loading %s (%s) from the Hugging Face hub or its cache", name, split)
    try:
        table = datasets.load_dataset(name, split=split)
    except ConnectionError as error:
        fix = (
            f"offline: on a machine with a network run datasets.load_dataset('{name}', split='{split}')"
            f".to_json('{name.rpartition('/')[2]}.jsonl', force_ascii=False), bring the file and name its path instead"
            f" (if you meant '{path}' as a file: it does not exist)"
        )
        raise SlimtuneError(Problem(f"the Hugging Face hub cannot be reached: {error}", path, fix)) from error
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        fix = f"check id and split at https://huggingface.co/datasets/{name} (if you meant a file: it does not exist)"
        raise SlimtuneError(Problem(f"the data set cannot be loaded: {reason}", path, fix)) from error
    return _arrow_rows(table, path, problems)
