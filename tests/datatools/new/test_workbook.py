"""Excel workbooks: headings, merged cells, dates, formulas, and files that would unpack without end."""

import datetime
import io
import zipfile

import pytest
from openpyxl import Workbook

from slimtune.core.errors import SlimtuneError
from slimtune.datatools.new import workbook
from slimtune.datatools.new.grid import as_table


def saved(path, *rows, title="FAQ", merged=(), **others):
    book = Workbook()
    sheet = book.active
    sheet.title = title
    for row in rows:
        sheet.append(row)
    for area in merged:
        sheet.merge_cells(area)
    for name, more in others.items():
        other = book.create_sheet(name)
        for row in more:
            other.append(row)
    book.save(path)
    return str(path)


def test_a_title_an_empty_row_and_values_of_every_type(tmp_path):
    path = saved(
        tmp_path / "t.xlsx", ["よくある質問"], [], ["番号", "質問", "回答"],
        [1, "いつ", datetime.datetime(2026, 4, 1)], [2, "割合は", 0.1 + 0.2], [3, "可否", True], [4, "数", "007"],
    )  # fmt: skip
    found = as_table(workbook.read(path))
    assert found.columns == ["番号", "質問", "回答"]
    assert [row.line for row in found.rows] == [4, 5, 6, 7]
    assert [row.value["回答"] for row in found.rows] == ["2026-04-01", "0.3", "TRUE", "007"]
    assert found.empty == [2]


def test_the_sheet_with_the_most_rows_is_read_unless_one_is_named(tmp_path):
    path = saved(
        tmp_path / "t.xlsx", ["Q", "A"], ["q", "a"], Small=[["Q", "A"]], Large=[["Q", "A"], ["x", "y"], ["z", "w"]]
    )
    grid = workbook.read(path)
    assert len(grid.lines) == 3 and "the sheet 'Large' is read" in grid.notes[0]
    assert len(workbook.read(path, "FAQ").lines) == 2
    with pytest.raises(SlimtuneError, match="'Small', 'Large'"):
        workbook.read(path, "None")


def test_merged_cells_give_each_of_their_rows_the_value(tmp_path):
    rows = [["分類", "質問", "回答"], ["届出", "q1", "a1"], [None, "q2", "a2"], [None, "q3", "a3"]]
    grid = workbook.read(saved(tmp_path / "t.xlsx", *rows, merged=["A2:A4"]))
    assert [line.cells[0] for line in grid.lines] == ["分類", "届出", "届出", "届出"]
    assert any("2 cells of merged areas" in note for note in grid.notes)


def test_formulas_without_values_and_errors_are_named(tmp_path):
    path = saved(tmp_path / "t.xlsx", ["Q", "A"], ["q", "=1+1"], ["r", '="a"&"b"'])
    with pytest.raises(SlimtuneError, match="2 formulas without a value: B2, B3"):
        workbook.read(path)
    with pytest.raises(SlimtuneError, match="B2 #REF!"):
        workbook.read(saved(tmp_path / "e.xlsx", ["Q", "A"], ["q", "#REF!"]))


def parts_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path, parts):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return str(path)


def test_damaged_and_hostile_workbooks_are_refused(tmp_path, monkeypatch):
    good = saved(tmp_path / "t.xlsx", ["Q", "A"], ["q", "a"])
    parts = parts_of(good)
    sheet = "xl/worksheets/sheet1.xml"
    broken = {
        "no workbook": {"a.txt": b"x"},
        "no sheet": {name: content for name, content in parts.items() if name != sheet},
        "cut": {**parts, sheet: parts[sheet][:-40]},
        "entities": {**parts, sheet: b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + parts[sheet]},
        "no types": {name: content for name, content in parts.items() if "Content_Types" not in name},
    }
    for name, content in broken.items():
        with pytest.raises(SlimtuneError):
            workbook.read(written(tmp_path / f"{name}.xlsx", content))
    (tmp_path / "half.xlsx").write_bytes((tmp_path / "t.xlsx").read_bytes()[:2000])
    with pytest.raises(SlimtuneError, match="cannot be read"):
        workbook.read(str(tmp_path / "half.xlsx"))
    monkeypatch.setattr(workbook, "_MOST_UNPACKED", 1000)
    with pytest.raises(SlimtuneError, match="unpacks to"):
        workbook.read(good)


def test_a_sheet_that_claims_a_million_rows_is_read_as_far_as_it_goes(tmp_path):
    parts = parts_of(saved(tmp_path / "t.xlsx", ["Q", "A"], ["q", "a"]))
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = parts[sheet].replace(b'ref="A1:B2"', b'ref="A1:XFD1048576"')
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    (tmp_path / "u.xlsx").write_bytes(buffer.getvalue())
    assert [line.cells for line in workbook.read(str(tmp_path / "u.xlsx")).lines] == [("Q", "A"), ("q", "a")]
