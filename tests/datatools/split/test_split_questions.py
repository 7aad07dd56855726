"""Rows to questions: ids, labels, sources, groups and hashes."""

import datetime

import pytest
from support.questions_of_their_own import row, text, write

from slimtune.core.errors import SlimtuneError
from slimtune.datatools.split.split_questions import hashes, items, read_files


def read(tmp_path, *files):
    return read_files([write(tmp_path / f"{name}.jsonl", rows) for name, rows in files])


def test_a_question_is_one_item_whatever_files_it_is_in(tmp_path):
    direct = [row(n, correct="b", source="民法") for n in range(3)]
    cot = [row(n, input=f"考えてください。{text(n)}", output=f"理由{n}。答え：b") for n in range(3)]
    shuffled = [row(7, origin="q001", correct="c")]
    found = items(read(tmp_path, ("direct", direct), ("cot", cot), ("shuffled", shuffled)))
    assert [(one.id, one.label, one.source) for one in found] == [(f"q{n:03d}", "b", "民法") for n in range(3)]
    assert len({one.group for one in found}) == 3


def test_labels_are_the_outputs_where_few_are_different(tmp_path):
    few = items(read(tmp_path, ("few", [row(n) for n in range(30)])))
    assert {one.label for one in few} == {"a", "b", "c", "d"} and {one.source for one in few} == {"few"}
    many = items(read(tmp_path, ("many", [row(n, output=f"答え{n}") for n in range(30)])))
    assert {one.label for one in many} == {""}


def test_shared_contexts_and_near_duplicates_are_groups(tmp_path):
    rows = [row(n) for n in range(8)]
    for n in (0, 3):
        rows[n]["meta"]["context"] = f"第一条　本文。{' ' * n}"
    rows[5]["input"] = f"{text(1)}。"
    rows[6]["input"] = text(2)[:-1] + "字"
    groups = {one.id: one.group for one in items(read(tmp_path, ("x", rows)))}
    assert [groups[f"q{n:03d}"] for n in (3, 5, 6)] == ["q000", "q001", "q002"]
    assert len(set(groups.values())) == 5
    apart = items(read(tmp_path, ("x", rows)), threshold=1.0)
    assert len({one.group for one in apart}) == 6  # the one that only differs in a mark is the same question


def test_rows_without_an_id_are_known_by_their_content(tmp_path):
    rows = [{"input": text(n), "output": "a"} for n in (1, 2)]
    first = [one.id for one in items(read(tmp_path, ("x", rows)))]
    again = [one.id for one in items(read(tmp_path, ("y", rows[::-1])))]
    assert first == again[::-1] and all(id.startswith("row-") for id in first)


def test_a_hash_is_of_all_rows_of_a_question_in_any_order(tmp_path):
    one, other = row(1), row(1, input="別の問い")
    both = hashes(read(tmp_path, ("x", [one]), ("y", [other])))
    assert hashes(read(tmp_path, ("y", [other]), ("x", [dict(reversed(one.items()))]))) == both
    assert hashes(read(tmp_path, ("x", [one]))) != both


def test_the_cells_of_a_table_become_text(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"input": text(n), "output": "a", "date": datetime.date(2020, 1, n)} for n in (1, 2)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    (file,) = read_files([str(tmp_path / "t.parquet")])
    assert [one.value["date"] for one in file.rows] == ["2020-01-01", "2020-01-02"]


def test_every_problem_of_every_file_at_once(tmp_path):
    good = write(tmp_path / "good.jsonl", [row(1)])
    bad = write(tmp_path / "bad.jsonl", [row(1), {"input": "x", "output": ""}])
    with pytest.raises(SlimtuneError) as caught:
        read_files([bad, good, str(tmp_path / "none.jsonl"), "org/name"])
    told = str(caught.value)
    assert "bad.jsonl:2: 'output' (assistant) is empty" in told
    assert "none.jsonl: no such file" in told and "org/name: no such file; a data set on the hub" in told
