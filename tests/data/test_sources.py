"""Every way to store rows, and every name of a file or a data set."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.data_files import A, B, line, rows_of, the_problem, write
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.data.json_rows import Row
from slimtune.data.sources import is_hub_id, read_rows

# --- what is accepted


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.json", "x"])
def test_jsonl_with_bom_crlf_and_blank_lines(tmp_path, name):
    path = write(tmp_path / name, f"\ufeff\r\n{line(A)}\r\n\r\n   \r\n{line(B)}")
    assert rows_of(path) == [Row(2, A), Row(5, B)]


def test_unicode_line_separators_do_not_end_a_line(tmp_path):
    odd = {"input": "a\u2028b\u0085c", "output": "d"}
    path = write(tmp_path / "x.jsonl", f"{line(odd)}\n{line(A)}\n")
    assert rows_of(path) == [Row(1, odd), Row(2, A)]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x"])
def test_array_rows_have_the_lines_where_they_start(tmp_path, name):
    pretty = json.dumps([A, B], ensure_ascii=False, indent=2)
    # [ { "input" "output" } { …: the objects start on lines 2 and 6.
    assert rows_of(write(tmp_path / name, pretty)) == [Row(2, A), Row(6, B)]


def test_array_on_one_line(tmp_path):
    assert rows_of(write(tmp_path / "x.json", f" [{line(A)}, {line(B)}] \n")) == [Row(1, A), Row(1, B)]


@pytest.mark.parametrize("indent", [None, 1])
def test_an_object_with_one_list_holds_rows(tmp_path, indent):
    text = json.dumps({"version": 1, "samples": [A, B], "note": {"x": "]"}}, ensure_ascii=False, indent=indent)
    lines = [1, 1] if indent is None else [4, 8]
    assert rows_of(write(tmp_path / "x.json", text)) == [Row(lines[0], A), Row(lines[1], B)]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "x"}], "meta": {}},
        {**A, "references": [{"law": "民法"}]},
        {"question": "x", "tags": ["a", "b"]},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_single_row_is_a_row_although_it_has_one_list(tmp_path, row, indent):
    assert rows_of(write(tmp_path / "x.json", json.dumps(row, indent=indent))) == [Row(1, row)]


def test_csv_with_lines_inside_cells(tmp_path):
    text = 'input,output,meta\r\n"one\r\ntwo","say ""a, b""",\r\n\r\nthree,four,"{""mode"": ""cot""}"\r\n'
    assert rows_of(write(tmp_path / "x.csv", text)) == [
        Row(2, {"input": "one\ntwo", "output": 'say "a, b"'}),
        Row(5, {"input": "three", "output": "four", "meta": {"mode": "cot"}}),
    ]


@pytest.mark.parametrize(("name", "mark"), [("x.tsv", "\t"), ("x.csv", ";"), ("x.csv", "\t")])
def test_csv_delimiters(tmp_path, name, mark):
    text = f"input{mark}output\na, b{mark}c\n"
    assert rows_of(write(tmp_path / name, text)) == [Row(2, {"input": "a, b", "output": "c"})]


def test_csv_cell_with_messages(tmp_path):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    cell = json.dumps(turns).replace('"', '""')
    assert rows_of(write(tmp_path / "x.csv", f'messages\n"{cell}"\n')) == [Row(2, {"messages": turns})]


@pytest.mark.parametrize("column", ["prompt", "completion", "messages"])
def test_csv_cell_with_turns_is_never_their_text(tmp_path, column):
    turns = [{"role": "user", "content": 'It\'s "x".'}]
    as_json, as_python = (shown.replace('"', '""') for shown in (json.dumps(turns), str(turns)))
    assert rows_of(write(tmp_path / "x.csv", f'{column}\n"{as_json}"\n')) == [Row(2, {column: turns})]
    problem = the_problem(write(tmp_path / "y.csv", f'{column}\n"{as_python}"\n'))
    assert problem.what == f"column '{column}' has a list of turns as Python shows it, not as JSON"
    assert problem.where == f"{tmp_path / 'y.csv'}:2"


@pytest.mark.parametrize(
    "text", ['[{"from": "Osaka", "to": "Kobe"}]', '[{"role": "user", "content": "x"}]', "[1]", "", "[{"]
)
def test_csv_cell_with_other_json_stays_text(tmp_path, text):
    cell = text.replace('"', '""')
    assert rows_of(write(tmp_path / "x.csv", f'id,output\n1,"{cell}"\n')) == [Row(2, {"id": "1", "output": text})]


def test_csv_cell_with_history(tmp_path):
    cell = json.dumps([["x", "y"]]).replace('"', '""')
    assert rows_of(write(tmp_path / "x.csv", f'id,history\n1,"{cell}"\n2,\n')) == [
        Row(2, {"id": "1", "history": [["x", "y"]]}),
        Row(3, {"id": "2"}),
    ]


def test_dates_and_decimals_of_parquet_are_text(tmp_path):
    import datetime
    import decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    meta = {
        "on": datetime.date(2026, 4, 1),
        "at": [datetime.datetime(2026, 4, 1, 9, 30)],
        "rate": decimal.Decimal("0.10"),
    }
    path = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_pylist([{"input": "p", "output": "a", "meta": meta}]), path)
    (row,) = read_rows(str(path), [])
    assert row.value["meta"] == {"on": "2026-04-01", "at": ["2026-04-01T09:30:00"], "rate": "0.10"}


@pytest.mark.parametrize("name", ["x.parquet", "x.bin"])
def test_parquet_nulls_are_absent_keys(tmp_path, name):
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = [{"input": "a", "output": "b", "meta": {"mode": "cot", "id": None}}, {"input": "c", "output": None}]
    pq.write_table(pa.Table.from_pylist(values), tmp_path / name)
    assert rows_of(str(tmp_path / name)) == [
        Row(1, {"input": "a", "output": "b", "meta": {"mode": "cot"}}),
        Row(2, {"input": "c"}),
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), min_size=1, max_size=5), st.booleans())
def test_jsonl_and_arrays_give_back_what_was_written(tmp_path_factory, values, escaped):
    folder = tmp_path_factory.mktemp("rows")
    text = "\n".join(json.dumps(value, ensure_ascii=escaped) for value in values)
    assert rows_of(write(folder / "x.jsonl", text)) == [Row(line, value) for line, value in enumerate(values, start=1)]
    rows = rows_of(write(folder / "x.json", json.dumps(values, ensure_ascii=escaped)))
    assert rows == [Row(1, value) for value in values]
    pretty = json.dumps(values, ensure_ascii=escaped, indent=1)
    rows = rows_of(write(folder / "y.json", pretty))
    assert [row.value for row in rows] == values
    assert all(pretty.split("\n")[row.line - 1].startswith(" {") for row in rows)


# --- names


def test_missing_file_names_its_neighbours(tmp_path):
    write(tmp_path / "direct_norag.train.jsonl", line(A))
    problem = the_problem(str(tmp_path / "direct_norag.trian.jsonl"))
    assert problem.what == "no such file"
    assert problem.fix == f"did you mean {tmp_path / 'direct_norag.train.jsonl'}?"


def test_missing_folder_folder_and_unknown_kind(tmp_path):
    assert "there is no folder" in the_problem(str(tmp_path / "nowhere" / "x.jsonl")).fix
    write(tmp_path / "x.jsonl", line(A))
    folder = the_problem(str(tmp_path))
    assert folder.what == "this is a folder, not a file"
    assert str(tmp_path / "x.jsonl") in folder.fix
    assert "unknown kind of file" in the_problem(write(tmp_path / "x.txt", "hello\n")).what


def test_files_that_are_not_what_they_are_called(tmp_path):
    assert "not a Parquet file" in the_problem(write(tmp_path / "x.parquet", line(A))).what
    assert "broken Parquet" in the_problem(write(tmp_path / "y.parquet", b"PAR1 and then nothing")).what
    assert the_problem(write(tmp_path / "x.jsonl", b"\x1f\x8b\x08\x00")).what == "this is a gzip archive"
    assert (
        the_problem(write(tmp_path / "z.jsonl", b"\x28\xb5\x2f\xfd" + bytes(200))).what
        == "this is compressed with zstd"
    )
    assert "binary data" in the_problem(write(tmp_path / "b.jsonl", bytes(range(256)) + bytes(300))).what
    assert the_problem(write(tmp_path / "p.parquet", b"\x89PNG\r\n\x1a\n")).what.endswith(": this is a PNG picture")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("org/name", True),
        ("org/name:train", True),
        ("org/name.v2:train[:10%]", True),
        ("hf://org/name", True),
        ("data/train.jsonl", False),
        ("data/law", False),  # the folder data/ exists in the working directory
        ("./org/name", False),
        ("/org/name", False),
        ("a/b/c", False),
        ("train.csv", False),
        ("name", False),
    ],
)
def test_what_is_a_hub_id(tmp_path, monkeypatch, path, expected):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert is_hub_id(path) is expected


# --- the hub


def test_hub_rows_come_from_the_named_split(monkeypatch):
    import datasets

    asked = []

    def load_dataset(name: str, *, split: str) -> datasets.Dataset:
        asked.append((name, split))
        return datasets.Dataset.from_list([{**A, "meta": None}, {**B, "meta": {"mode": "cot"}}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert rows_of("org/name") == [Row(1, A), Row(2, {**B, "meta": {"mode": "cot"}})]
    rows_of("hf://org/name:validation")
    assert asked == [("org/name", "train"), ("org/name", "validation")]


def test_unknown_split_is_one_clear_error(monkeypatch):
    import datasets

    def load_dataset(name: str, *, split: str) -> None:
        raise ValueError("Unknown split \"dev\". Should be one of ['train'].")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(SlimtuneError, match="Unknown split"):
        read_rows("org/name:dev", [])
    with pytest.raises(SlimtuneError, match="not a data set id"):
        read_rows("hf://nonsense", [])


def test_unreachable_hub_says_what_to_do_offline(tmp_path):
    code = (
        "from slimtune.data.sources import read_rows\n"
        "from slimtune.core.errors import SlimtuneError\n"
        "try:\n    read_rows('org/name:test', [])\n"
        "except SlimtuneError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("org/name:test: the Hugging Face hub cannot be reached")
    assert "on a machine with a network run datasets.load_dataset('org/name', split='test')" in done.stdout
