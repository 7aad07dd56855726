"""What a run's folder says is checked where it is read: a broken file is one sentence, with its name and key."""

import copy
import json
import os

import pytest
import yaml
from support import fake_records as records
from support.command_line import run as slimtune

from slimtune.core import run_folder
from slimtune.core.defects import MARK
from slimtune.core.errors import SlimtuneError

CONTENTS = {"manifest.json": records.manifest(), "plan.json": records.plan(), "recipe.yaml": records.recipe()}
ANSWERS = [{"id": f"q{number}", "gold": "a", "predicted": "ab"[number % 2]} for number in range(8)]
DELETED = object()


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in content), encoding="utf-8")
    else:
        path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content), encoding="utf-8")


@pytest.fixture
def run(tmp_path):
    for name, content in CONTENTS.items():
        write(tmp_path / "run", name, content)
    for side in ("base", "tuned"):
        write(tmp_path / "run", f"eval/{side}.jsonl", ANSWERS)
    return tmp_path / "run"


def changed(name, key, value):
    """A file's content with another value at a dotted key."""
    content = copy.deepcopy(CONTENTS[name])
    if not key:
        return value
    *outer, last = key.split(".")
    part = content
    for step in outer:
        part = part[step]
    part[last] = value
    return content


@pytest.mark.parametrize(
    ("name", "key", "value", "told"),
    [
        ("manifest.json", "", [], "not a JSON object"),
        ("manifest.json", "memory", [1], "memory: must be a valid dictionary or instance of _Memory"),
        (
            "manifest.json",
            "memory.predicted.weights",
            "x",
            "memory.predicted.weights: must be a valid integer, not 'x'",
        ),
        ("manifest.json", "command", "train", "command: must be a valid list, not 'train'"),
        ("manifest.json", "hashes.data", [], "hashes.data: must be a valid dictionary"),
        ("manifest.json", "timings.load", float("nan"), "timings.load: must be a finite number, not nan"),
        ("plan.json", "", [{}], "not a JSON object"),
        ("plan.json", "settings.device", "cuda", "settings.device: must be a valid dictionary"),
        ("recipe.yaml", "", [1], "not a mapping"),
        ("recipe.yaml", "evaluate", ["x"], "evaluate: must be a valid dictionary"),
        ("recipe.yaml", "model.max_seq_length", 0, "model.max_seq_length: must be greater than or equal to 1, not 0"),
        ("recipe.yaml", "data.train", [{"path": 7}], "data.train.0.path: must be a valid string, not 7"),
    ],
)
def test_records_of_another_form(run, name, key, value, told):
    write(run, name, changed(name, key, value))
    with pytest.raises(SlimtuneError) as caught:
        run_folder.read(run)
    (problem,) = caught.value.problems
    assert (problem.where, problem.what[: len(told)]) == (str(run / name), told)


@pytest.mark.parametrize("name", CONTENTS)
def test_commands_name_the_record_that_cannot_be_read(run, name):
    write(run, name, [1])
    for command in (["report"], ["evaluate"], ["export"], ["chat", "--compare"]):
        outcome = slimtune(command[0], run, *command[1:])
        assert (outcome.code, MARK in outcome.stderr) == (2, False), outcome
        assert str(run / name) in outcome.stderr
    assert slimtune("doctor", run).code == 1


def test_all_faults_of_all_records_come_at_once(run):
    for name in CONTENTS:
        (run / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(SlimtuneError) as caught:
        run_folder.read(run)
    assert [problem.where for problem in caught.value.problems] == [str(run / name) for name in CONTENTS]


def test_a_pipe_is_no_file_of_answers(run):
    os.mkfifo(run / "pipe")
    outcome = slimtune("compare", run / "pipe", run)
    assert outcome.code == 2 and f"{run / 'pipe'}: this is a pipe" in outcome.stderr


@pytest.mark.parametrize("place", ["manifest.json", "none", "x" * 300, "loop"])
def test_what_is_no_run(run, place):
    (run / "loop").symlink_to("loop")
    with pytest.raises(SlimtuneError, match=r"not a run's folder|there is no such folder"):
        run_folder.read(run / place)
    for command in ("report", "evaluate", "export", "chat", "doctor", "compare"):
        outcome = slimtune(command, run / place, *([run] if command == "compare" else []))
        assert (outcome.code, MARK in outcome.stderr) == (2, False), outcome


def test_a_section_says_which_key_it_lacks(run):
    with pytest.raises(SlimtuneError, match=r"recipe\.yaml: model\.max_seq_length is missing"):
        run_folder.read(run).section("model", *run_folder.MODEL)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"id": 7}, "id: must be a valid string, not 7"),
        ({"id": "q9", "gold": ["a"], "predicted": "a"}, "gold: must be a valid string, not ['a']"),
        ({"id": "q9", "gold": "a", "predicted": "a", "logprobs": {"a": "x"}}, "logprobs.a: must be a valid number"),
        ({"id": "q9", "permutations": [{"order": "ab"}]}, "permutations.0.gold: is missing"),
    ],
)
def test_answers_of_another_form(run, row, told):
    write(run, "eval/tuned.jsonl", [*ANSWERS, row])
    outcome = slimtune("compare", run, f"{run}:base", "--out", run / "out")
    assert outcome.code == 2 and f"tuned.jsonl:9: {told}" in outcome.stderr


@pytest.mark.parametrize("content", [b'{"verdict": "bet', b"[]", b'{"base": {}}', b'{"verdict": 7}'])
def test_a_verdict_that_cannot_be_read_opens_no_gate(run, content):
    with pytest.raises(SlimtuneError):
        (run / "eval/verdict.json").write_bytes(content)
        run_folder.required(run, "eval/verdict.json")
    unreadable: list[str] = []
    assert run_folder.mapping(run, "eval/verdict.json", unreadable) == {}
    assert unreadable[0].startswith("eval/verdict.json: ")


@pytest.mark.parametrize("manifest", [{}, {"name": "app", "icons": []}, {"name": 1, "run_id": "x", "status": "x"}])
def test_another_programs_manifest_makes_no_run_and_nothing_is_written_there(tmp_path, manifest):
    for name, content in {"manifest.json": manifest, "plan.json": {}, "recipe.yaml": {"name": "x"}}.items():
        write(tmp_path, name, content)
    for command in ("report", "export"):
        told = slimtune(command, tmp_path)
        assert (told.code == 2 and "not a run's folder" in told.stderr) or "name: must be a valid string" in told.stderr
    assert len(list(tmp_path.rglob("*"))) == 3


@pytest.mark.parametrize("name", ["report.html", "experiment_log.md"])
@pytest.mark.parametrize("content", ["<!doctype html>\n<title>mine</title>", "# 実験記録\n\nmine\n", "", None])
def test_a_report_or_a_log_of_ones_own_is_never_replaced(run, name, content):
    """And the other one is not written either."""
    path = run / name
    path.write_text(content, encoding="utf-8") if content is not None else path.symlink_to(run / "elsewhere.html")
    before = {one: one.is_file() and one.read_bytes() for one in run.rglob("*")}
    told = slimtune("report", run)
    assert told.code == 2 and str(path) in told.stderr and "move it elsewhere" in told.stderr
    assert {one: one.is_file() and one.read_bytes() for one in run.rglob("*")} == before


def test_a_report_is_written_again_and_keeps_the_notes(run):
    assert slimtune("report", run).code == 0
    log = run / "experiment_log.md"
    log.write_text(log.read_text(encoding="utf-8") + "次は学習率を下げる。\n", encoding="utf-8")
    # As reports were before they named their generator.
    page = (run / "report.html").read_text(encoding="utf-8")
    assert '<meta name="generator" content="Slimtune">\n' in page
    (run / "report.html").write_text(page.replace('<meta name="generator" content="Slimtune">\n', ""), encoding="utf-8")
    assert slimtune("report", run).code == 0
    assert "次は学習率を下げる。" in log.read_text(encoding="utf-8")
    assert (run / "report.html").read_text(encoding="utf-8") == page


def test_a_report_says_which_files_it_could_not_read(run):
    (run / "eval/verdict.json").write_bytes(b'{"verdict": "bet')
    outcome = slimtune("report", run)
    assert outcome.code == 0 and "warning: eval/verdict.json: not valid JSON" in outcome.stderr
