"""Reading piece by piece gives what reading the whole file gives, problems included."""

import json

import pytest

from slimtune.data import formats, reading
from slimtune.data.sources import read_rows

ROW = {"input": "問い", "output": "答え"}
LINE = json.dumps(ROW, ensure_ascii=False)


def streamed(path, format="auto"):
    source = reading.DataFile(str(path), format)
    found = [one for part in source.records() for one in part]
    return found, source


def whole(path, format="auto"):
    problems = []
    rows = read_rows(str(path), problems)
    name = formats.choose(rows, format, str(path), problems) if rows else None
    converted = formats.convert_rows(rows, name, format, path=str(path), system=None, problems=problems) if name else []
    return converted, problems


@pytest.mark.parametrize(
    "content",
    [
        f"{LINE}\n{LINE}\n",
        f"\ufeff{LINE}\r\n\r\n{LINE}\r\n",
        f"{LINE}\r{LINE}\r",
        f'{LINE}\n{{"input": "a"\n\n[1]\n{LINE}\n',
        f'{LINE}\n{{"messages": []}}\n{{"input": 1, "output": ""}}\n',
        "{\n" + LINE[1:] + "\n",
        f"[{LINE},\n{LINE}]",
        '{"instruction": "x"}\n',
        "",
        "\n\n",
        "plain words\n",
        f"{LINE}\n\x00\n",
        f'{LINE}\n{{"input": "\u2028線", "output": "b"}}',
        '{"messages": []}\n' + f"{LINE}\n" * 3,  # the first row is not of the file's format
        '{"text": "x"}\n' * 30 + '{"input": \n',  # no format, and a broken line far below
    ],
)
def test_the_same_rows_and_problems_as_read_whole(tmp_path, monkeypatch, content):
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 7)  # every line a piece of its own
    path = tmp_path / "a.jsonl"
    path.write_bytes(content.encode())
    found, source = streamed(path)
    expected, problems = whole(path)
    assert [one.conversation for one in found] == [one.conversation for one in expected]
    assert [one.conversation.line for one in found] == [one.conversation.line for one in expected]
    assert sorted(map(str, source.problems)) == sorted(map(str, problems))


@pytest.mark.parametrize("encoding", ["cp932", "euc-jp", "utf-16"])
def test_other_encodings_are_told_as_the_loader_tells_them(tmp_path, encoding):
    path = tmp_path / "a.jsonl"
    path.write_bytes(f"{LINE}\n".encode(encoding))
    assert list(map(str, streamed(path)[1].problems)) == list(map(str, whole(path)[1]))


def test_other_kinds_of_file_are_read_whole(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("input,output\n問い,答え\n", encoding="utf-8")
    found, source = streamed(path)
    assert len(found) == 1 and source.layout == "input_output" and source.done == source.total


def test_it_tells_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 1)
    path = tmp_path / "a.jsonl"
    path.write_text(f"{LINE}\n" * 22, encoding="utf-8")
    source = reading.DataFile(str(path))
    steps = [(source.done, source.total) for _ in source.records()]
    size = path.stat().st_size
    assert steps == [(size // 22 * 20, size), (size // 22 * 21, size), (size, size)]


def test_a_file_that_is_read_whole_is_passed_on_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_ROWS_AT_ONCE", 25)
    path = tmp_path / "a.json"
    path.write_text(f"[{','.join([LINE] * 60)}]", encoding="utf-8")
    source = reading.DataFile(str(path))
    steps = [(len(rows), round(source.done * 60 / source.total)) for rows in source.records()]
    assert steps == [(25, 25), (25, 50), (10, 60)] and source.rows == 60
