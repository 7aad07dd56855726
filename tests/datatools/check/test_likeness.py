"""Rows that stand twice, contradict each other, or share an id."""

from slimtune.data.records import Conversation, Message, ToolCall
from slimtune.datatools.check.likeness import Likeness


def row(line, prompt, output, path="f.jsonl", **meta):
    return Conversation((Message("user", prompt), Message("assistant", output)), meta, path, line)


def found(*rows):
    likeness = Likeness()
    for one in rows:
        likeness.add(one)
    return [(finding.level, finding.code, finding.where) for finding in likeness.findings()]


def test_equal_rows_and_different_answers():
    assert found(row(1, "p", "x"), row(2, "q", "x"), row(5, "p", "x"), row(7, "p", "y")) == [
        ("error", "duplicate-row", "f.jsonl:5"),
        ("error", "conflicting-answers", "f.jsonl:7"),
    ]


def test_the_same_question_in_two_modes_is_no_repetition():
    assert found(row(1, "p", "x", mode="direct", id="1"), row(2, "p", "y", mode="cot", id="1")) == []


def test_over_files_too_and_with_both_places_in_the_message():
    likeness = Likeness()
    likeness.add(row(3, "p", "x"))
    likeness.add(row(9, "p", "x", path="g.jsonl"))
    (finding,) = likeness.findings()
    assert finding.what == "duplicate rows: f.jsonl:3 and g.jsonl:9"


def test_rows_that_differ_in_width_case_or_spacing():
    assert found(row(1, "第５条 とは", "A"), row(2, "第5条とは", "a"), row(3, "第6条とは", "a")) == [
        ("warning", "alike-rows", "f.jsonl:2")
    ]


def test_ids_within_a_file():
    rows = [row(1, "p", "x", id="a"), row(2, "q", "x", id="a"), row(3, "r", "x"), row(4, "s", "x")]
    assert found(*rows, row(1, "t", "x", path="g.jsonl", id="a")) == [("warning", "repeated-id", "f.jsonl:2")]


def test_nothing_read_nothing_found():
    assert found() == []


def test_what_is_called_tells_rows_apart():
    def calling(line, city):
        call = ToolCall("weather", f'{{"city": "{city}"}}')
        return Conversation((Message("user", "p"), Message("assistant", "", tool_calls=(call,))), {}, "f.jsonl", line)

    assert found(calling(1, "奈良"), calling(2, "奈良")) == [("error", "duplicate-row", "f.jsonl:2")]
    assert found(calling(1, "奈良"), calling(2, "岡山")) == [("error", "conflicting-answers", "f.jsonl:2")]
