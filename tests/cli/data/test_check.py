"""`data check` as a person uses it: every planted fault with its line, nothing for a clean file, and exit codes."""

import json

import pytest
from support import planted
from support.command_line import run
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.data.loading import load_conversations

MODEL = ("--model", "builtin:tiny-qwen3")


def check(*arguments, code=0):
    outcome = run("data", "check", *arguments)
    assert outcome.code == code, outcome.stdout + outcome.stderr
    return outcome


def as_json(*arguments, code=0):
    return json.loads(check(*arguments, "--json", code=code).stdout)


def test_every_planted_fault_is_found_with_its_file_and_line_and_no_other(tmp_path):
    path = tmp_path / "planted.jsonl"
    expected = planted.write(path)
    found = as_json(path, *MODEL, code=2)["findings"]
    assert len(expected) >= 20
    assert {(one["where"], one["code"]) for one in found} == {
        (f"{path}:{line}", code) for line, code in expected.items()
    }
    assert all(one["what"] and one["fix"] for one in found)
    assert {one["level"] for one in found if one["code"] == "loader"} == {"error"}


def test_a_clean_file_has_no_findings(tmp_path):
    path = tmp_path / "clean.jsonl"
    planted.write_clean(path)
    outcome = check(path, *MODEL, "--strict")
    assert outcome.stdout.endswith("1 file, 40 rows: 0 errors, 0 warnings, 0 notes\n")


@pytest.mark.parametrize(
    "path",
    sorted(path for name in ("law", "code", "quickstart") for path in (ROOT / "data" / name).glob("*.jsonl")),
    ids=lambda path: path.name,
)
def test_the_project_s_own_files_train_as_meant(path):
    found = as_json(path, *MODEL)
    assert [one for one in found["findings"] if one["level"] != "note"] == []


def test_warnings_are_an_exit_code_only_where_asked_for(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"input": "鍵は？", "output": "鍵は AKIA' + 'Q7ZP4MXW2RTVY5KD です。"}\n', encoding="utf-8")
    assert "warning: secret" in check(path).stdout
    check(path, "--strict", code=1)
    assert "0 warnings" in check(path, "--strict", "--no-secrets").stdout


def test_a_recipe_gives_files_model_length_and_evaluation_set(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: r\nmodel: {base: 'builtin:tiny-qwen3', max_seq_length: 300}\n"
        "data: {train: [{path: data/law/direct_norag.train.jsonl}]}\n"
        "evaluate: {data: data/law/test.jsonl, kind: multiple_choice, mode: direct}\n"
    )
    found = as_json("--recipe", recipe)
    assert found["model"] == "builtin:tiny-qwen3" and found["max_seq_length"] == 300
    assert found["against"] == ["data/law/test.jsonl"]
    (file,) = found["files"]
    assert file["rows"] == 98 and file["tokens"]["exact"] is True
    assert file["tasks"] == file["modes"] == {"direct": 98}
    assert [one["name"] for one in found["suggestions"]] == ["examples", "passes over the data"]
    assert (
        file["tokens"]["longer_than_max_seq_length"] == sum(one["code"] == "too-long" for one in found["findings"]) > 0
    )


def test_without_a_model_lengths_are_estimated_and_that_is_said():
    outcome = check("data/quickstart/train.jsonl")
    assert "estimated from characters" in outcome.stdout
    assert "Your settings are in the usual range for 400 direct answers" in outcome.stdout
    assert "Values: the defaults of a recipe. Model: unsloth/Qwen3-8B-bnb-4bit" in outcome.stdout
    assert as_json("data/quickstart/train.jsonl")["files"][0]["tokens"]["exact"] is False


def test_an_evaluation_file_that_is_trained_on_is_found(tmp_path):
    lines = (ROOT / "data/law/direct_norag.train.jsonl").read_text(encoding="utf-8").splitlines()
    leak = (ROOT / "data/law/test.jsonl").read_text(encoding="utf-8").splitlines()[4]
    path = tmp_path / "leaky.jsonl"
    path.write_text("\n".join([*lines[:30], leak]) + "\n", encoding="utf-8")
    (found,) = [
        one for one in as_json(path, "--against", "data/law/test.jsonl")["findings"] if one["level"] == "warning"
    ]
    assert (found["code"], found["where"]) == ("contamination", f"{path}:31")
    assert "data/law/test.jsonl:5 asks (exact)" in found["what"]


def test_kinds_with_many_findings_are_cut_and_say_so(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"input"\n' * 2 + '{"input": "a", "output": ""}\n' * 30, encoding="utf-8")
    out = check(path, "--limit", "3", code=2).stdout
    assert "error: loader (32)" in out and "… and 29 more" in out
    assert out.count(f"{path}:") == 4  # three findings and the file's own line


def test_the_picture_is_drawn(tmp_path):
    planted.write(tmp_path / "a.jsonl")
    formula = tmp_path / "$\\frac{$.jsonl"  # to matplotlib
    planted.write(formula)
    check(tmp_path / "a.jsonl", formula, "--plot", tmp_path / "out/a.png", code=2)
    assert (tmp_path / "out/a.png").read_bytes().startswith(b"\x89PNG")
    check(tmp_path / "a.jsonl", "--plot", tmp_path / "out/a.png", code=2)  # a picture of ours is replaced
    plan = (tmp_path / "out/a.png").read_bytes().replace(b"Slimtune data check", b"Slimtune plan      ")
    (tmp_path / "out/a.png").write_bytes(plan)
    told = check(tmp_path / "a.jsonl", "--plot", tmp_path / "out/a.png", code=2)
    assert "the file exists already" in told.stderr
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    check(empty, "--plot", tmp_path / "b.png", code=2)
    assert (tmp_path / "b.png").stat().st_size > 5000


def test_a_picture_of_another_kind_is_refused_before_anything_is_read(tmp_path):
    assert "the picture must be a PNG" in check("nowhere.jsonl", "--plot", tmp_path / "a.jpg", code=2).stderr


def test_a_picture_that_is_not_ours_and_an_input_are_refused_before_anything_is_read(tmp_path):
    taken = tmp_path / "taken.png"
    taken.write_bytes(b"\x89PNG\r\n\x1a\nsomebody's work")
    before = taken.read_bytes()
    assert "the file exists already" in check("nowhere.jsonl", "--plot", taken, code=2).stderr
    for reads in ((taken,), ("nowhere.jsonl", "--against", taken), ("nowhere.jsonl", "--model", tmp_path)):
        assert "also an input" in check(*reads, "--plot", taken, "--overwrite", code=2).stderr
    assert taken.read_bytes() == before


def test_every_row_that_holds_an_evaluation_item_is_named(tmp_path):
    lines = (ROOT / "data/law/direct_norag.train.jsonl").read_text(encoding="utf-8").splitlines()
    test = [json.loads(line) for line in (ROOT / "data/law/test.jsonl").read_text(encoding="utf-8").splitlines()]
    copies = [json.dumps({"input": f"{'　' * n}{test[4]['input']}", "output": test[4]["output"]}) for n in range(3)]
    path = tmp_path / "leaky.jsonl"
    path.write_text("\n".join([*lines[:30], *copies]) + "\n", encoding="utf-8")
    found = as_json(path, "--against", "data/law/test.jsonl")["findings"]
    assert [one["where"] for one in found if one["code"] == "contamination"] == [f"{path}:{n}" for n in (31, 32, 33)]


def test_a_training_file_that_is_the_evaluation_file(tmp_path):
    (found,) = as_json("data/law/test.jsonl", "--against", "./data/law/test.jsonl")["findings"]
    assert found["code"] == "contamination" and found["where"] == "data/law/test.jsonl"
    assert "this file is also the evaluation file ./data/law/test.jsonl" in found["what"]


def test_faults_of_an_evaluation_file_are_told_beside_those_of_the_training_file(tmp_path):
    training, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    training.write_text('{"input": "a"}\n')
    test.write_text('{"input": "a", "output": 3}\n')
    found = as_json(training, "--against", test, code=2)["findings"]
    assert sorted((one["code"], one["where"]) for one in found) == [
        ("evaluation-file", f"{test}:1"),
        ("loader", f"{training}:1"),
    ]


def test_a_file_twice_and_the_same_under_another_name(tmp_path):
    one, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for path in (one, other):
        path.write_text('{"input": "a", "output": "b"}\n')
    found = as_json(one, one, other, code=2)
    assert [(one["code"], one["where"]) for one in found["findings"]] == [("loader", str(one)), ("loader", str(other))]
    assert len(found["files"]) == 1


def test_the_mode_of_a_recipe_is_asked_of_every_row(tmp_path):
    path, recipe = tmp_path / "a.jsonl", tmp_path / "r.yaml"
    rows = [{"meta": {"mode": "direct"}}, {"meta": {"mode": "cot"}}, {}, {"meta": {"mode": "chat"}}, {}]
    path.write_text("".join(json.dumps({"input": f"{n}?", "output": "x", **row}) + "\n" for n, row in enumerate(rows)))
    recipe.write_text(
        f"name: r\nmodel: {{base: 'builtin:tiny-qwen3'}}\ndata: {{mode: direct, train: [{{path: '{path}'}}]}}\n"
    )
    found = as_json("-r", recipe, code=2)
    assert [(one["code"], one["where"]) for one in found["findings"]] == [
        ("loader", f"{path}:3"),
        ("loader", f"{path}:4"),
    ]
    (file,) = found["files"]
    assert (file["modes"], file["other_mode"]) == ({"direct": 1}, 1)


def test_the_loader_says_the_same_of_every_file_that_it_refuses(tmp_path):
    path = tmp_path / "planted.jsonl"
    planted.write(path)
    with pytest.raises(SlimtuneError) as refused:
        load_conversations([(str(path), 1.0)])
    told = {(one["where"], one["what"]) for one in as_json(path, code=2)["findings"] if one["level"] == "error"}
    assert told == {(problem.where, problem.what) for problem in refused.value.problems}


def test_what_a_terminal_would_obey_is_shown_as_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"input": "q", "output": "a", "\x1b[2J": 1}) + "\n")
    out = check(path).stdout
    assert "\x1b" not in out and "[2J" in out


def test_a_file_that_is_not_there_and_an_unknown_format():
    assert "no such file" in check("nowhere.jsonl", code=2).stdout
    assert "unknown format 'x'" in check("nowhere.jsonl", "--format", "x", code=2).stderr
    assert "no file to check" in check(code=2).stderr
