"""What `data check` and `data preview` say of preferences and rated answers."""

import json

from support.command_line import run

from slimtune.data.preferences import AnyFile
from slimtune.datatools.check.check import CheckSettings, check
from slimtune.datatools.check.comparisons import _alike


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def pairs(chosen, rejected, count=30):
    return [{"prompt": f"問い{n}", "chosen": f"{chosen}{n}", "rejected": f"{rejected}{n}"} for n in range(count)]


def codes(path, **wish):
    report = check([path], CheckSettings(**wish))
    return report, {finding.code: finding for finding in report.findings}


def test_a_sound_file_of_pairs_is_described(tmp_path):
    report, found = codes(write(tmp_path / "x.jsonl", pairs("答え甲", "答え乙")))
    assert report.files[0].format == "preference"
    assert found.keys() == {"comparisons"}
    assert found["comparisons"].what == "30 preference pairs"
    assert "slimtune data import" in found["comparisons"].fix
    assert len(report.files[0].lengths.tokens) == 60


def test_a_recipe_refuses_them(tmp_path):
    path = write(tmp_path / "x.jsonl", pairs("甲", "乙"))
    _, found = codes(path, of_recipe=True)
    assert found["loader"].what.startswith("30 of 30 rows are preference pairs")


def test_answers_that_length_tells_apart(tmp_path):
    _, found = codes(write(tmp_path / "x.jsonl", pairs("この答えはとても長いので、長さだけで分かる", "短い")))
    assert found["answers-told-by-length"].what.startswith("the chosen answer is longer in 30 of 30 pairs")
    _, found = codes(write(tmp_path / "y.jsonl", pairs("短い", "この答えはとても長いので、長さだけで分かる")))
    assert found["answers-told-by-length"].what.startswith("the chosen answer is shorter in 30 of 30 pairs")


def test_equal_pairs_are_errors_and_alike_ones_warnings(tmp_path):
    rows = [
        *pairs("甲", "乙", 2),
        {"prompt": "x", "chosen": "A b", "rejected": "a  B"},
        {"prompt": "y", "chosen": "c", "rejected": "c"},
    ]
    _, found = codes(write(tmp_path / "x.jsonl", rows))
    assert found["alike-answers"].what == "the chosen and the rejected answer differ only in width, case or spacing"
    assert (found["loader"].level, found["loader"].where) == ("error", f"{tmp_path}/x.jsonl:4")
    long = "あ" * 100
    assert _alike(f"{long}甲", f"{long}乙") == "differ in 1 character of 101"
    assert _alike("12", "13") == _alike(long, "い" * 100) == ""


def test_ratings_are_counted(tmp_path):
    rows = [{"prompt": f"問い{n}", "completion": f"答え{n}", "label": n > 0} for n in range(30)]
    _, found = codes(write(tmp_path / "x.jsonl", rows))
    assert found["comparisons"].what == "30 rated answers: 29 good, 1 bad"
    assert found["one-sided-ratings"].what == "29 answers are rated as good and 1 as bad"


def test_conversations_stay_what_they_were(tmp_path):
    rows = [{"input": str(number), "output": "甲"} for number in range(3)]
    file = AnyFile(write(tmp_path / "x.jsonl", [*rows, pairs("甲", "乙", 1)[0]]))
    assert len([one for block in file.records() for one in block]) == 3
    assert (file.kind, file.layout) == (None, "input_output")
    assert file.problems[0].what == "1 of 4 rows are preference pairs ('chosen', 'rejected')"


def test_both_commands_say_what_the_file_is(tmp_path):
    path = write(tmp_path / "x.jsonl", pairs("甲", "乙", 3))
    checked = run("data", "check", path)
    assert checked.code == 0, checked.stderr
    assert f"{path}: 3 rows, preference pairs" in checked.stdout
    shown = run("data", "preview", path, "-n", "1")
    assert shown.code == 0, shown.stderr
    assert f"1 of 3 rows of {path}, preference pairs" in shown.stdout
    assert f"{path}:1, chosen" in shown.stdout and f"{path}:1, rejected" in shown.stdout
    assert "⟦甲0" in shown.stdout and "⟦乙0" in shown.stdout
    assert "slimtune data import" in " ".join(shown.stderr.split())  # a line of the screen ends anywhere
    page = tmp_path / "page.html"
    assert run("data", "preview", path, "--html", page).code == 0
    assert "x.jsonl:3, rejected" in page.read_text("utf-8")
