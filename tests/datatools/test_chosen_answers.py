"""The good answers of preferences and ratings become conversations; a rejected one never does."""

import json
import shlex

import pytest
from typer.testing import CliRunner

from slimtune.cli.app import app
from slimtune.core.errors import SlimtuneError
from slimtune.data.loading import load_conversations
from slimtune.datatools.chosen_answers import read_files


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def pair(prompt, chosen, rejected):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def answers(conversations):
    return [(one.messages[-2].content, one.messages[-1].content) for one in conversations]


def test_no_answer_that_a_row_rejects_is_taken(tmp_path):
    rows = [pair("1", "b", "c"), pair("1", "a", "b"), pair("1", "a", "c"), pair("2", "x", "y"), pair("2", "z", "y")]
    conversations, losses = read_files([write(tmp_path / "x.jsonl", rows)])
    assert answers(conversations) == [("1", "a"), ("2", "x")]
    assert losses == [
        "1 row: the answer is left out, since another row rejects it",
        "2 rows: the answer is left out, since its prompt has one already",
    ]


def test_ratings_keep_the_good_ones(tmp_path):
    rows = [
        {"prompt": prompt, "completion": answer, "label": label}
        for prompt, answer, label in [("1", "a", False), ("1", "b", True), ("2", "a", True), ("3", "x", False)]
    ]
    conversations, losses = read_files([write(tmp_path / "x.jsonl", rows)])
    assert answers(conversations) == [("1", "b"), ("2", "a")]
    assert losses == ["2 rows: the answer is rated as bad and left out"]
    with pytest.raises(SlimtuneError, match="no answer is left"):
        read_files([write(tmp_path / "y.jsonl", rows[:1])])


def test_other_rows_are_refused(tmp_path):
    path = write(tmp_path / "x.jsonl", [{"input": "1", "output": "a"}])
    with pytest.raises(SlimtuneError, match="none of the preference pairs"):
        read_files([path])


@pytest.mark.parametrize(
    "rows",
    [
        [pair("1", "a", "b"), pair("2", "a", "b"), pair("2", "c", "a")],
        [
            {
                "messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "a"}],
                "rejected_response": "b",
            }
        ],
        [{"instruction": "1", "output": answer, "kto_tag": answer == "a"} for answer in "ab"],
    ],
)
def test_the_advice_of_the_refusal_ends_in_a_file_that_trains(rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my pairs.jsonl", rows)
    with pytest.raises(SlimtuneError) as caught:
        load_conversations([("my pairs.jsonl", 1.0)])
    command = shlex.split(caught.value.problems[0].fix.rpartition(": ")[2])
    assert command[0] == "slimtune"
    result = CliRunner().invoke(app, command[1:])
    assert result.exit_code == 0, result.output
    loaded = load_conversations([(command[-1], 1.0)])
    assert {answer for _, answer in answers(loaded.conversations)} <= {"a", "c"}
