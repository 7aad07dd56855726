"""A path or a Hugging Face id to rows: JSONL, JSON, CSV, Parquet and the hub, each row with its line."""

import csv
import datetime
import difflib
import io
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.file_kinds import recognised
from slimtune.data.encoding import MOST_BYTES, decode
from slimtune.data.json_rows import TURNS_OR_TEXT, Row, StrictDecoder, read_json, turns_as_text

log = logging.getLogger(__name__)

_DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_HUB_ID = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(:(?P<split>.+))?", re.ASCII)
# A table's cell cannot be an object, so these columns may contain JSON text; an empty cell there means no value.
_JSON_COLUMNS = ("meta", "messages", "conversations", "history")
_OPTIONAL_COLUMNS = (*_JSON_COLUMNS, "system")
# Of a file that is read whole. JSONL is read line by line and may have any size.
_MOST_ROWS = 20_000_000
# Python's own limit, 131,072 characters, is less than a long document.
_LONGEST_CELL = 16 * 2**20
_MOST_NAMES = 2000


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
    if not match or inputs.exists(path) or PurePath(match["id"]).suffix.lower() in _DATA_SUFFIXES:
        return False
    return not inputs.is_folder(Path(path).parent)


def _read_file(path: str, problems: list[Problem]) -> list[Row]:
    data = _content(path, problems)
    if data is None:
        return []
    if data.startswith(b"PAR1"):
        return _read_parquet(path, data, problems)
    known = len(problems)
    text, bad_lines = decode(data, path, problems)
    if not text.strip():
        if len(problems) == known:
            problems.append(Problem("the file is empty", path, "write at least one example into it"))
        return []
    suffix = PurePath(path).suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _read_csv(text, path, bad_lines, problems)
    if suffix in _DATA_SUFFIXES or text.lstrip()[0] in "{[":
        return read_json(text, path, bad_lines, problems)
    fix = f"give it one of the suffixes {' '.join(_DATA_SUFFIXES)}"
    problems.append(Problem("unknown kind of file", path, fix))
    return []


def _content(path: str, problems: list[Problem]) -> bytes | None:
    """The bytes of a file that can hold rows; None, with the reason in `problems`, for anything else."""
    try:
        with inputs.opened(Path(path)) as file:
            head, size = file.read(512), os.fstat(file.fileno()).st_size
            what, fix = recognised(head)
            parquet = head.startswith(b"PAR1")
            if head and not parquet and PurePath(path).suffix.lower() == ".parquet":
                fix = fix or "write it again, or rename it to what it is (.jsonl, .json, .csv)"
                shown = f": this is {what}" if what else " (it does not begin with PAR1)"
                problems.append(Problem(f"not a Parquet file{shown}", path, fix))
                return None
            if size > MOST_BYTES and not what:
                told = f"the file has {size:,} bytes, and of this kind at most {MOST_BYTES:,} are read"
                problems.append(Problem(told, path, "write it as JSONL (UTF-8), one object per line, or split it"))
                return None
            # What is recognised is refused, by `decode`, for its first bytes.
            return head if what and not parquet else head + inputs.up_to(file, MOST_BYTES)
    except SlimtuneError as error:
        missing = error.problems[0].what == inputs.MISSING
        problems += [_no_such_file(path)] if missing or inputs.is_folder(path) else error.problems
        return None


def _no_such_file(path: str) -> Problem:
    file, parent, fix = Path(path), Path(path).parent, f"the working directory is {Path.cwd()}"
    if not inputs.is_folder(parent):
        return Problem("no such file", path, f"there is no folder {parent}; {fix}")
    if inputs.is_folder(file):
        inside = [str(file / name) for name in _data_files(file)]
        named = ", ".join(inside[:5]) or "it contains no data"
        return Problem("this is a folder, not a file", path, f"name a file: {named}")
    # Without their ends, which make any two of them alike.
    stems: dict[str, list[str]] = {}
    for name in _data_files(parent):
        stems.setdefault(PurePath(name).stem, []).append(name)
    near = [name for stem in difflib.get_close_matches(file.stem, stems, n=3, cutoff=0.6) for name in stems[stem]][:3]
    fix = f"did you mean {' or '.join(str(parent / name) for name in near)}?" if near else fix
    return Problem("no such file", path, fix)


def _data_files(folder: Path) -> list[str]:
    """Names in a folder that data files have; none where it cannot be read."""
    try:
        names = [entry.name for entry in folder.iterdir() if entry.suffix.lower() in _DATA_SUFFIXES]
    except OSError:
        return []
    return sorted(names)[:_MOST_NAMES]


def _read_csv(text: str, path: str, bad_lines: frozenset[int], problems: list[Problem]) -> list[Row]:
    """RFC 4180 with a header; a row's line is the physical line where it starts, however many lines its cells have."""
    first_line = text.lstrip("\n").partition("\n")[0]
    delimiter = max("\t,;" if path.lower().endswith(".tsv") else ",;\t", key=first_line.count)
    records = csv_records(text, delimiter, path, bad_lines, problems)
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
        rows += table_row(dict(zip(header, cells, strict=True)), path, line, problems)
    return rows


def csv_records(
    text: str, delimiter: str, path: str, bad_lines: frozenset[int], problems: list[Problem]
) -> Iterator[tuple[int, list[str]]]:
    """The cells of each record with the line where it starts; `bad_lines` are left out, faults go into `problems`."""
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = f"broken CSV: {error}"
            if "unexpected end of data" in str(error):
                what = "a quote that opens here is never closed"
            elif "field limit" in str(error):
                what = f"a cell has more than {_LONGEST_CELL:,} characters: is a quote that opens here never closed?"
            problems.append(Problem(what, f"{path}:{start}", 'write a quote inside a quoted cell twice: ""'))
            continue
        if cells and bad_lines.isdisjoint(range(start, reader.line_num + 1)):
            yield start, cells


def table_row(value: dict[str, Any], path: str, line: int, problems: list[Problem]) -> list[Row]:
    """A row of a table, its JSON columns and its lists of turns parsed; none if they cannot be."""
    decoder = StrictDecoder()
    row: dict[str, Any] = {}
    for name, cell in value.items():
        if name in _OPTIONAL_COLUMNS and isinstance(cell, str) and not cell.strip():
            continue
        turns = isinstance(cell, str) and name in (*TURNS_OR_TEXT, *_JSON_COLUMNS)
        quote = turns_as_text(cell) if turns else ""
        if not isinstance(cell, str) or not (quote or name in _JSON_COLUMNS):
            row[name] = cell
            continue
        what, fix = f"column '{name}'", "write the cell as JSON, or leave it empty"
        if quote == "'":
            shown = f"{what} has a list of turns as Python shows it, not as JSON"
            problems.append(Problem(shown, f"{path}:{line}", "write the list as JSON (json.dumps)"))
            return []
        try:
            row[name] = decoder.decode(cell)
            faults = list(decoder.complaints)
        except inputs.FAULTS as error:
            faults = [f"broken JSON: {inputs.reason(error)}"]
        if faults:
            problems.append(Problem(f"{what}: {'; '.join(faults)}", f"{path}:{line}", fix))
            return []
    return [Row(line, row)]


def _read_parquet(path: str, data: bytes, problems: list[Problem]) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        rows, unpacked = sum(group.num_rows for group in groups), sum(group.total_byte_size for group in groups)
        if rows > _MOST_ROWS or unpacked > MOST_BYTES:
            what = f"the file unpacks to {rows:,} rows of {unpacked:,} bytes"
            fix = f"split it, or write it as JSONL: at most {_MOST_ROWS:,} rows of {MOST_BYTES:,} bytes are read"
            problems.append(Problem(what, path, fix))
            return []
        names = file.schema_arrow.names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            problems.append(Problem(f"two columns have one name: {', '.join(twice)}", path, "rename one of them"))
            return []
        table = file.read()
    except (pyarrow.ArrowException, OSError, *inputs.FAULTS) as error:
        problems.append(Problem(f"broken Parquet: {inputs.reason(error)}", path, "write the file again"))
        return []
    columns: dict[str, list[Any]] = {}
    for name in names:
        try:
            columns[name] = table.column(name).to_pylist()
        except (pyarrow.ArrowException, LookupError, OverflowError, *inputs.FAULTS) as error:
            kind = table.schema.field(name).type
            what = f"the column '{name}' of type {kind} cannot be read: {inputs.reason(error)}"
            problems.append(Problem(what, path, "write it as text, or leave it out"))
    if len(columns) < len(names):
        return []
    return _arrow_rows(({name: columns[name][row] for name in names} for row in range(table.num_rows)), path, problems)


def _arrow_rows(values: Iterable[dict[str, Any]], path: str, problems: list[Problem]) -> list[Row]:
    rows: list[Row] = []
    for number, value in enumerate(values, start=1):
        try:
            row = {name: _as_json(cell) for name, cell in value.items() if not _is_null(cell)}
        except inputs.FAULTS as error:
            what = f"a value is not JSON: {inputs.reason(error)}"
            problems.append(Problem(what, f"{path}:{number}", "leave it out"))
            continue
        rows += table_row(row, path, number, problems)
    return rows


def _is_null(value: Any) -> bool:
    """Whether Arrow has it for a missing key. pandas writes NaN for that."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _as_json(value: Any, depth: int = 0) -> Any:
    """An Arrow value as JSON. Null fields are left out. Dates become ISO 8601 text, and so does every other type that
    JSON lacks; binary data alone stay as they are, and nothing takes them. Raises ValueError for an infinite number and
    RecursionError for more than 100 levels."""
    if depth > inputs.MAX_DEPTH:
        raise RecursionError
    if isinstance(value, dict):
        return {str(key): _as_json(content, depth + 1) for key, content in value.items() if not _is_null(content)}
    if isinstance(value, list | tuple):
        return [None if _is_null(content) else _as_json(content, depth + 1) for content in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, float) and math.isinf(value):
        raise ValueError("an infinite number")
    if isinstance(value, bytes) and depth:
        raise ValueError("binary data")
    return value if isinstance(value, str | int | float | bytes) else str(value)


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
