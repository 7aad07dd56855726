"""Every way to store rows, and every way in which a file can be broken."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.data.json_rows import Row
from slimtune.data.sources import is_hub_id, read_rows

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


# --- what is refused, with its line


PLANTED = [
    (line(A), None),
    ('{"input": "x", "output": }', "broken JSON at column 26: Expecting value"),
    ('{"input": "x" "output": "y"}', "broken JSON at column 15: Expecting ',' delimiter"),
    ('{"input": "tab\there", "output": "y"}', "broken JSON at column 15: Invalid control character at"),
    ('{"input": "x", "output": "y"},', "broken JSON at column 30: Extra data"),
    ('{"input": "x", "input": "y", "output": "z"}', "the key 'input' occurs twice in one object"),
    ('{"input": "x", "output": "y", "meta": {"a": 1, "a": 2}}', "the key 'a' occurs twice in one object"),
    ('{"input": "x", "output": NaN}', "NaN is not a JSON value"),
    ('{"input": -Infinity, "output": Infinity}', "-Infinity is not a JSON value"),
    ("", None),
    ('["input", "output"]', "the row is a list, not an object"),
    ('"text"', "the row is a string, not an object"),
    ("null", "the row is null, not an object"),
    ('{"input": "x", "output', "broken JSON at column 16: Unterminated string starting at"),
    ("input: x", "broken JSON at column 1: Expecting value"),
    ("[" * 100_000, "broken JSON: it is nested too deeply"),
    ('{"n": ' + "9" * 5000 + "}", "broken JSON: Exceeds the limit"),
    (line(B), None),
]


def test_planted_faults_are_all_found_on_their_lines(tmp_path):
    path = write(tmp_path / "x.jsonl", "\n".join(text for text, _ in PLANTED))
    problems: list[Problem] = []
    rows = read_rows(path, problems)
    assert rows == [Row(1, A), Row(len(PLANTED), B)]
    for number, (_, what) in enumerate(PLANTED, start=1):
        found = [problem.what for problem in problems if problem.where == f"{path}:{number}"]
        assert bool(found) == bool(what)
        assert not what or found[0].startswith(what)
    assert all(problem.fix for problem in problems)


def test_array_goes_on_after_a_broken_element(tmp_path):
    text = f'[\n{line(A)},\n{{"input": "x", }},\n{line(B)},\n7,\n{{"input": NaN}}\n{line(A)},\n]\n'
    path = write(tmp_path / "x.json", text)
    problems: list[Problem] = []
    assert [row.line for row in read_rows(path, problems)] == [2, 4, 7]
    assert [
        (problem.where.rpartition(":")[2], problem.what.split(" at ")[0].split(":")[0]) for problem in problems
    ] == [
        ("3", "broken JSON"),
        ("5", "the row is a number, not an object"),
        ("6", "NaN is not a JSON value"),
        ("7", "a comma is missing before this element (column 1)"),
        ("8", "a comma before the closing ] (column 1)"),
    ]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ('[{"a": "b"}', 1, "the array is never closed"),
        ('[{"a": "b"}]\n\n  {"c": "d"}', 3, "more text after the end of the array (column 3)"),
        ('{\n"a": "b"\n}\n{\n"c": "d"\n}', 4, "more text after the end of the first object (column 1)"),
        ('{\n"a": [],\n"a": [{}]\n}', 3, "the key 'a' occurs twice"),
        ('{\n"a": "b"\n"c": 1}', 3, "broken JSON at column 1: Expecting ',' delimiter"),
    ],
)
def test_broken_layouts(tmp_path, text, where, what):
    path = write(tmp_path / "x.json", text)
    problem = the_problem(path)
    assert (problem.where, problem.what[: len(what)]) == (f"{path}:{where}", what)


@pytest.mark.parametrize("content", [b"", b"\n \r\n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x"])
def test_empty_files(tmp_path, content, name):
    path = write(tmp_path / name, content)
    assert the_problem(path).what == "the file is empty"


@pytest.mark.parametrize(
    ("name", "text"), [("x.json", "[]"), ("x.json", '{"samples": []}'), ("x.csv", "input,output\n")]
)
def test_files_without_rows(tmp_path, name, text):
    assert the_problem(write(tmp_path / name, text)).what == "there are no rows"


def test_csv_faults(tmp_path):
    text = 'input,output,meta\na,b\n"c"d,e,\nf,g,{no}\nh,i,"[1, NaN]"\nk,l,\n"m,n,\no,p,q\n'
    path = write(tmp_path / "x.csv", text)
    problems: list[Problem] = []
    assert read_rows(path, problems) == [Row(6, {"input": "k", "output": "l"})]
    assert [(problem.where, problem.what) for problem in problems] == [
        (f"{path}:2", "2 cells, but the header has 3"),
        (f"{path}:3", "broken CSV: ',' expected after '\"'"),
        (
            f"{path}:4",
            "column 'meta': broken JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (f"{path}:5", "column 'meta': NaN is not a JSON value"),
        (f"{path}:7", "a quote that opens here is never closed"),
    ]


def test_csv_header_names_must_differ(tmp_path):
    problem = the_problem(write(tmp_path / "x.csv", "input,,input\na,b,c\n"))
    assert problem.what == "the header has empty or repeated names: 'input', ''"


# --- encodings


@pytest.mark.parametrize(
    ("encoding", "named", "line_and_byte"),
    [
        # {"input": "  is 11 bytes; cp932 問 is 96 e2, of which 0x96 is the first that UTF-8 cannot begin with.
        ("cp932", "cp932", "byte 12 of line 2 is 0x96"),
        ("euc_jp", "euc-jp", "byte 12 of line 2 is 0xcc"),
        ("utf-16", "utf-16", "byte 1 of line 1 is 0xff"),
        ("utf-16-le", "utf-16", "byte 2 of line 1 is 0x00"),
        ("iso2022_jp", "iso-2022-jp", "byte 12 of line 2 is 0x1b"),
    ],
)
def test_a_file_in_another_encoding_is_one_problem(tmp_path, encoding, named, line_and_byte):
    text = '{"input": "x", "output": "y"}\n' + f"{line(A)}\n{line(B)}\n"
    path = write(tmp_path / "my data.jsonl", text.encode(encoding))
    problem = the_problem(path)
    assert f"the file is not UTF-8: {line_and_byte}; it looks like {named}" == problem.what
    assert problem.fix == f"convert it: iconv -f {named.upper()} -t UTF-8 '{path}' > '{path}.utf8'"


@pytest.mark.parametrize(("encoding", "named"), [("cp932", "it looks like cp932"), ("euc_jp", "it looks like euc-jp")])
def test_single_lines_in_another_encoding(tmp_path, encoding, named):
    content = b"\n".join([line(A).encode(), line(B).encode(encoding), line(A).encode(), line(A).encode(encoding)])
    path = write(tmp_path / "x.jsonl", content)
    problems: list[Problem] = []
    assert [row.line for row in read_rows(path, problems)] == [1, 3]
    assert [problem.where for problem in problems] == [f"{path}:2", f"{path}:4"]
    assert all(problem.what.startswith("not UTF-8 at byte 12 of the line") for problem in problems)
    assert all(named in problem.what for problem in problems)


def test_a_damaged_character_is_not_taken_for_another_encoding(tmp_path):
    content = line({"input": "日本国憲法の条文について", "output": "甲"}).encode()
    path = write(tmp_path / "x.jsonl", content.replace("条".encode(), "条".encode()[:2]))
    assert "it looks like UTF-8 with damaged characters" in the_problem(path).what


def test_csv_rows_with_bad_bytes_are_left_out(tmp_path):
    content = "input,output\n問,答\n".encode() + "問,答\n".encode("cp932") + b"x,y\n"
    path = write(tmp_path / "x.csv", content)
    problems: list[Problem] = []
    assert [row.line for row in read_rows(path, problems)] == [2, 4]
    assert [problem.where for problem in problems] == [f"{path}:3"]


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
    assert the_problem(write(tmp_path / "x.jsonl", b"\x1f\x8b\x08\x00")).what == "the file is compressed"


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


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=60) | st.text('[]{},:"ab\\ \n\r\t\x001.é問\ufeff', max_size=40).map(str.encode),
    st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".parquet", ".x"]),
)
def test_any_bytes_give_rows_or_problems(tmp_path_factory, content, suffix):
    path = write(tmp_path_factory.getbasetemp() / f"any{suffix}", content)
    problems: list[Problem] = []
    rows = read_rows(path, problems)
    assert rows or problems
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n") + 1
    assert all(1 <= row.line <= lines for row in rows)
    assert all(problem.where.startswith(path) and problem.what for problem in problems)
    "".join(map(str, problems)).encode()
