"""Every way in which a file can be broken, and where that is said."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.data_files import A, B, line, problems_of, the_problem, write

from slimtune.core.errors import Problem
from slimtune.data.formats import convert
from slimtune.data.json_rows import Row
from slimtune.data.reading import DataFile, distinct
from slimtune.data.sources import read_rows

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
    ('{"n": ' + "9" * 5000 + "}", "broken JSON: a number has more than 300 digits"),
    ('{"input": "x", "output": 1e999999}', "the number 1e999999 is too large"),
    ('{"input": "x", "deep": ' + "[" * 101 + "]" * 101 + "}", "broken JSON: it is nested too deeply"),
    ('{"input": "x", ' + '"a": 1, ' * 100_000 + '"b": 2}', "the key 'a' occurs twice in one object"),
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


# --- anything


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


# --- what is no file of rows at all


def test_pipes_devices_links_and_folders_are_named_and_nothing_hangs(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    told = {
        str(tmp_path / "pipe.jsonl"): "this is a pipe, a socket or a device, not a file",
        "/dev/zero": "this is a pipe, a socket or a device, not a file",
        str(tmp_path / "loop.jsonl"): "cannot be read: Too many levels of symbolic links",
        str(tmp_path / "folder.jsonl"): "this is a folder, not a file",
        str(tmp_path / ("x" * 300)): "cannot be read: File name too long",
        f"{'o' * 300}/{'n' * 5000}.csv": "cannot be read: File name too long",
        f"{tmp_path}/a\0.jsonl": "a path cannot contain a NUL character",
    }
    for path, what in told.items():
        file = DataFile(path)
        assert list(file.records()) == []
        assert [problem.what for problem in file.problems] == [what]
        assert distinct([path]) == ({path: None}, [])


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.parquet"])
def test_a_huge_file_of_zeros_is_refused_at_once(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(2**40)
    assert list((read := DataFile(str(path))).records()) == []
    assert [problem.where for problem in read.problems] == [str(path)]


@pytest.mark.parametrize("kind", ["\ud83d", "\0"])
def test_what_no_file_can_hold_is_found_in_every_part_of_a_row(kind):
    for row in (
        {"input": kind, "output": "x"},
        {"input": "x", "output": "y", "note": [{"deep": kind}]},
        {"input": "x", "output": "y", f"note{kind}": 1},
        {"input": "x", "output": "y", "meta": {kind: 1}},
    ):
        problems: list[Problem] = []
        assert convert(Row(1, row), "input_output", path="x", problems=problems) is None
        assert problems


def test_many_broken_elements_do_not_take_for_ever(tmp_path):
    path = write(tmp_path / "x.json", "[\n" + '{"input": },\n' * 200_000 + "]")
    problems = problems_of(path)
    assert len(problems) == 1001
    assert problems[-1].what == "the rest of the array is not read: it has too many faults"


def test_a_long_cell_is_read_and_an_endless_one_is_not(tmp_path):
    path = write(tmp_path / "x.csv", f"input,output\n{'x' * 200_000},y\n")
    assert len(read_rows(path, [])[0].value["input"]) == 200_000
    path = write(tmp_path / "y.csv", f'input,output\n"{"x" * (2**24 + 1)},y\n')
    assert the_problem(path).what.startswith("a cell has more than 16,777,216 characters")


def test_columns_of_parquet_that_no_row_can_hold(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def told(**columns):
        text = pa.array(["x"])
        path = tmp_path / "x.parquet"
        pq.write_table(pa.table({"input": text, "output": text, **columns}), path)
        problems: list[Problem] = []
        return read_rows(str(path), problems), [problem.what for problem in problems]

    late = pa.array([2**62], pa.timestamp("us"))
    assert "of type timestamp[us] cannot be read" in told(meta=late)[1][0]
    assert told(meta=pa.array([[b"x"]]))[1] == ["a value is not JSON: binary data"]
    assert told(meta=pa.array([{"a": float("inf")}]))[1] == ["a value is not JSON: an infinite number"]
    (row,), problems = told(score=pa.array([float("nan")]), image=pa.array([b"\x00"]), map=pa.array([{"a": 2**40}]))
    assert problems == [] and row.value == {"input": "x", "output": "x", "image": b"\x00", "map": {"a": 2**40}}
    table = pa.table([pa.array(["x"]), pa.array(["y"])], names=["input", "input"])
    pq.write_table(table, tmp_path / "twice.parquet")
    assert the_problem(str(tmp_path / "twice.parquet")).what == "two columns have one name: input"


def test_parquet_that_is_cut_off(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"input": ["x"] * 100, "output": ["y"] * 100}), tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    for length in range(4, len(whole), 97):
        path = write(tmp_path / "cut.parquet", whole[:length])
        assert the_problem(path).what.startswith("broken Parquet: ")
