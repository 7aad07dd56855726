"""`data mix` as a person uses it: what it says, what it writes, what it refuses."""

import json

import pytest
from support.command_line import run
from support.questions_of_their_own import ids, read, row, text, write


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "task.jsonl", [row(n, source=("民法", "刑法")[n % 2]) for n in range(40)])
    write(tmp_path / "general.jsonl", [row(n) for n in range(100, 110)])
    return tmp_path


def test_a_second_run_gives_the_same_bytes(folder):
    arguments = ("data", "mix", "task.jsonl=0.5", "--general", "general.jsonl", "-o", "mixed.jsonl")
    out = run(*arguments)
    assert out.code == 0 and "mixed.jsonl: 24 rows in the layout input_output, written" in out.stdout
    assert "     40        20   83.3%  task.jsonl" in out.stdout
    assert "     10         4   16.7%  general.jsonl" in out.stdout
    before = (folder / "mixed.jsonl").read_bytes()
    again = run(*arguments)
    assert again.code == 0 and "unchanged" in again.stdout and (folder / "mixed.jsonl").read_bytes() == before
    other = run(*arguments, "--seed", 7)
    assert other.code == 2 and "--overwrite" in other.stderr and (folder / "mixed.jsonl").read_bytes() == before
    assert run(*arguments, "--seed", 7, "--overwrite").code == 0
    assert (folder / "mixed.jsonl").read_bytes() != before


def test_sizes_and_caps(folder):
    out = run("data", "mix", "task.jsonl", "--rows", 12, "--cap", 10, "--cap", "民法=4", "-o", "mixed.jsonl")
    assert out.code == 0 and "--cap leaves out 16 rows of 民法" in out.stdout
    rows = read(folder / "mixed.jsonl")
    assert len(rows) == 12 and sum(one["meta"]["source"] == "民法" for one in rows) <= 4
    assert ids(folder / "mixed.jsonl") < ids(folder / "task.jsonl")


def test_everything_wrong_is_told_at_once_and_nothing_written(folder):
    out = run(
        *("data", "mix", "task.jsonl=2", "general.jsonl=x", "other.jsonl=0", "--general-share", 0.2),
        *("--cap", "many", "--cap", "=3", "--cap", "民法=1", "--cap", "民法=2", "-o", "mixed.jsonl"),
    )
    assert out.code == 2 and not (folder / "mixed.jsonl").exists()
    for told in (
        "task.jsonl=2: a weight above 1 would repeat rows",
        "general.jsonl=x: what follows the last = is not a number",
        "other.jsonl=0: the weight 0 takes no row",
        "--cap: 'many' is not a valid cap",
        "--cap: '=3' is not a valid cap",
        "--cap: two caps for 民法",
        "--general-share: there is no general data",
    ):
        assert told in out.stderr


def test_what_is_normalised_and_left_out_is_said(folder):
    write(folder / "odd.jsonl", [{**row(1, input=f"か\u3099{text(1)}"), "note": "kept nowhere"}])
    out = run("data", "mix", "odd.jsonl", "-o", "mixed.jsonl")
    assert "odd.jsonl: normalised 1 row" in out.stderr
    assert "keys that the input_output format does not have: note" in out.stderr
    assert "mixed.jsonl: 1 row in the layout" in out.stdout
    (only,) = read(folder / "mixed.jsonl")
    assert only["input"].startswith("\u304c") and "note" not in only


def test_too_little_general_data_is_a_warning(folder):
    out = run(*("data", "mix", "task.jsonl", "--general", "general.jsonl", "--general-share", 0.5, "-o", "mixed.jsonl"))
    assert out.code == 0 and "general.jsonl is 30 rows short of its share" in out.stderr
    assert "a general share of 0.1 to 0.2 is usual" in out.stderr


def test_conversations_of_several_turns_decide_the_layout(folder):
    turns = [{"role": role, "content": f"{role} {n}"} for n in range(2) for role in ("user", "assistant")]
    (folder / "chat.jsonl").write_text(json.dumps({"messages": turns}) + "\n", "utf-8")
    assert "in the layout messages" in run("data", "mix", "task.jsonl", "chat.jsonl", "-o", "mixed.jsonl").stdout
    assert all("messages" in one for one in read(folder / "mixed.jsonl"))


def test_a_file_that_is_read_is_not_written_over(folder):
    before = (folder / "task.jsonl").read_bytes()
    out = run("data", "mix", "task.jsonl", "-o", "./task.jsonl", "--overwrite")
    assert out.code == 2 and "is also an input" in out.stderr and (folder / "task.jsonl").read_bytes() == before
