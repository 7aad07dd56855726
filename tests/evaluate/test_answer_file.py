"""Answers on disk: what was written before a kill is there, what was cut off by it is not."""

import json

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.evaluate import answer_file
from slimtune.evaluate.answer_file import AnswerFile

# U+2028 ends a line for `str.splitlines`, and not in a JSONL file.
ROWS = [{"id": f"q-{number}", "predicted": "あ", "text": "一\u2028二"} for number in range(4)]


def test_rows_are_there_as_soon_as_they_are_kept(tmp_path):
    path = tmp_path / "answers.jsonl"
    AnswerFile(path).keep(ROWS[:2])
    again = AnswerFile(path)
    assert again.rows == {"q-0": ROWS[0], "q-1": ROWS[1]}
    again.keep(ROWS[2:])
    assert answer_file.read(path) == ROWS


def test_a_line_that_a_kill_cut_off_is_taken_back(tmp_path):
    path = tmp_path / "answers.jsonl"
    AnswerFile(path).keep(ROWS[:2])
    whole = path.read_bytes()
    for cut in range(1, 20):
        path.write_bytes(whole + json.dumps(ROWS[2], ensure_ascii=False).encode()[:cut])
        answers = AnswerFile(path)
        assert list(answers.rows) == ["q-0", "q-1"]
        assert path.read_bytes() == whole


def test_a_finished_file_has_the_items_order(tmp_path):
    path = tmp_path / "answers.jsonl"
    answers = AnswerFile(path)
    answers.keep([ROWS[3], ROWS[1]])
    answers.keep([ROWS[0]])
    assert answers.finish(["q-0", "q-1", "q-3"]) == [ROWS[0], ROWS[1], ROWS[3]]
    assert [row["id"] for row in answer_file.read(path)] == ["q-0", "q-1", "q-3"]


@pytest.mark.parametrize(("line", "message"), [("{", "not JSON"), ("[1]", "not a row"), ('{"a": 1}', "not a row")])
def test_a_broken_file_is_an_error_with_its_line(tmp_path, line, message):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(ROWS[0]) + f"\n{line}\n", encoding="utf-8")
    with pytest.raises(SlimtuneError, match=f"answers.jsonl:2: {message}"):
        answer_file.read(path)
    with pytest.raises(SlimtuneError, match="there are no answers"):
        answer_file.read(tmp_path / "none.jsonl")
