"""Answers on disk: what was written before a kill is there, what was cut off by it is not."""

import errno
import json
import os

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


FOREIGN = {
    "a table": b"id,answer\n1,b",
    "a text": b"no line end",
    "other rows": b'{"id": "q-0"}\n{"id": "q-1", "te',
    "a whole row without its line end": b'{"id": "q-0", "mine": 1}',
}


@pytest.mark.parametrize("case", FOREIGN)
def test_somebody_elses_file_is_refused_and_not_cut(tmp_path, case):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(FOREIGN[case])
    with pytest.raises(SlimtuneError, match=r"answers\.jsonl"):
        AnswerFile(path, keys=["text"])
    assert path.read_bytes() == FOREIGN[case]


def test_a_link_is_not_written_through(tmp_path):
    other, path = tmp_path / "other.jsonl", tmp_path / "answers.jsonl"
    AnswerFile(other).keep(ROWS[:1])
    before = other.read_bytes()
    answers = AnswerFile(path)
    path.symlink_to(other)
    with pytest.raises(SlimtuneError, match="this is a link"):
        AnswerFile(path)
    with pytest.raises(SlimtuneError, match="cannot be written"):
        answers.keep(ROWS[1:])
    assert other.read_bytes() == before


def test_a_batch_that_does_not_fit_on_the_disk_leaves_no_half_row(tmp_path, monkeypatch):
    path = tmp_path / "answers.jsonl"
    answers = AnswerFile(path)
    answers.keep(ROWS[:1])
    before = path.read_bytes()

    def full(descriptor):
        # A disk that fills up may take a part: the row is written, and its flushing fails.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SlimtuneError, match=r"answers\.jsonl: the disk is full"):
            answers.keep(ROWS[1:])
        with pytest.raises(SlimtuneError, match="the disk is full"):
            AnswerFile(tmp_path / "new.jsonl").keep(ROWS[1:])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["answers.jsonl"]
    assert list(AnswerFile(path).rows) == ["q-0"]


def test_a_finished_file_has_the_items_order(tmp_path):
    path = tmp_path / "answers.jsonl"
    answers = AnswerFile(path)
    answers.keep([ROWS[3], ROWS[1]])
    answers.keep([ROWS[0]])
    assert answers.finish(["q-0", "q-1", "q-3"]) == [ROWS[0], ROWS[1], ROWS[3]]
    assert [row["id"] for row in answer_file.read(path)] == ["q-0", "q-1", "q-3"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('{"a": 1}', "id: is missing"),
        ('{"id": 7}', "id: must be a valid string, not 7"),
        ('{"id": "x", "logprobs": {"a": "b"}}', "logprobs.a: must be a valid number, not 'b'"),
    ],
)
def test_a_broken_file_is_an_error_with_its_line(tmp_path, line, message):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(ROWS[0]) + f"\n{line}\n", encoding="utf-8")
    with pytest.raises(SlimtuneError, match=f"answers.jsonl:2: {message}"):
        answer_file.read(path)
    with pytest.raises(SlimtuneError, match="there are no answers"):
        answer_file.read(tmp_path / "none.jsonl")
