"""Creating an export in Ollama by the command, against a stand-in for Ollama (tests/support/fake_ollama.py)."""

import os

import pytest
from support.command_line import run
from support.fake_ollama import starts
from support.ollama_runs import ANSWERS, SYSTEM, THOUGHT, answering, make_run, result

from slimtune.core import output_folders
from slimtune.core.errors import SlimtuneError
from slimtune.serve.ollama import create, replay, server

# ---- a model that answers as it was exported ------------------------------------------------------------------------


def test_an_export_is_created_and_answers_alike_whatever_think_is(ollama, tmp_path, capfd):
    folder = make_run(tmp_path, system=SYSTEM)
    done = run("ollama", "create", folder)
    assert done.code == 0, done.stderr
    assert starts(ollama.program)[-1] == [str(folder / "export"), "create", "law-direct", "-f", "Modelfile"]
    assert capfd.readouterr().out.splitlines() == [
        "gathering model components",
        "parsing GGUF",
        "writing manifest",
        "success",
    ]
    assert ollama.models["law-direct:latest"]["system"] == SYSTEM
    asked = ollama.asked("/api/chat")
    assert [body.get("think", "unset") for body in asked] == ["unset"] * 4 + [True] * 4 + [False] * 4
    assert asked[0] == {
        "model": "law-direct",
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "問い一"}],
        "stream": False,
        "options": {"temperature": 0, "seed": 0, "num_predict": 64},
    }
    found = result(folder)
    assert (found["passed"], found["prompts"], found["needed"], found["thinking"]) == (True, 4, 4, False)
    assert found["server"] == {"url": ollama.url, "version": "0.34.4", "program": "0.34.4"}
    assert (found["capabilities"], found["warnings"]) == (["completion"], [])
    counts = {think: (one["equal"], one["refused"]) for think, one in found["think"].items()}
    assert counts == {"unset": (4, 0), "true": (0, 4), "false": (4, 0)}
    assert "4 of 4, as it should be" in done.stdout and "warning" not in done.stdout


def test_a_server_that_ignores_think_passes_too(ollama, tmp_path):
    ollama.lenient = True
    folder = make_run(tmp_path)
    assert run("ollama", "create", folder).code == 0
    assert result(folder)["think"]["true"]["equal"] == 4


def test_a_thinking_run_must_think_alike_and_false_is_only_reported(ollama, tmp_path):
    ollama.thinks, ollama.engine = (
        True,
        lambda messages, thinks: (THOUGHT if thinks else "") + ANSWERS[messages[-1]["content"]],
    )
    folder = make_run(tmp_path, thinking=True)
    done = run("ollama", "create", folder)
    assert done.code == 0, done.stderr
    found = result(folder)["think"]
    assert (found["unset"]["equal"], found["true"]["equal"], found["true"]["thought"]) == (4, 4, 4)
    assert found["false"] == {
        "think": "false",
        "compared": False,
        "may_refuse": False,
        "asked": 4,
        "refused": 0,
        "past_end": 0,
        "thought": 0,
    }
    assert "4 of 4 given" in done.stdout and "not compared: another prompt" in done.stdout


def test_an_old_server_knows_no_think_and_is_warned_about(ollama, tmp_path):
    ollama.version = "0.1.33"
    folder = make_run(tmp_path)
    done = run("ollama", "create", folder)
    assert done.code == 0, done.stderr
    said = " ".join(done.stdout.split())
    for gap in server.GAPS:
        assert gap.what.split(":")[0] in said and gap.source in said
    assert "the program `ollama` is version 0.34.4, the server 0.1.33" in said
    assert len(result(folder)["warnings"]) == len(server.GAPS)


def test_a_reply_that_was_cut_off_where_the_answer_was_is_equal(ollama, tmp_path):
    ollama.engine = lambda messages, thinks: "長い答えがつづく。" * 20
    question = [{"role": "user", "content": "問い一"}]
    row = {"id": "q", "messages": question, "max_new_tokens": 5, "ended": False, "thinking": False}
    folder = make_run(tmp_path, golden=[row | {"answer": "長い答えが"}], parity=None)
    assert run("ollama", "create", folder).code == 0
    assert result(folder)["think"]["unset"]["past_end"] == 0


# ---- a model that does not ------------------------------------------------------------------------------------------


def test_other_answers_fail_and_the_first_of_them_are_kept(ollama, tmp_path):
    ollama.engine = answering({"問い一": "d", "問い二": "d", "問い三": "d", "「引用」と\nスペース": "d"})
    folder = make_run(tmp_path)
    done = run("ollama", "create", folder)
    assert done.code == 1
    assert "think unset: 0 of 4 answers are the merged model's, 4 must be" in done.stderr
    assert "q1: 'a' expected, 'd' there" in done.stderr and "think true" not in done.stderr
    found = result(folder)
    assert found["passed"] is False and len(found["think"]["unset"]["differences"]) == 3
    assert found["think"]["unset"]["differences"][1] == {
        "id": "q2",
        "expected": {"thinking": "", "content": "b"},
        "got": {"thinking": "", "content": "d", "done_reason": "stop"},
    }


def test_thinking_by_default_fails_a_run_trained_without(ollama, tmp_path):
    ollama.thinks = True
    folder = make_run(tmp_path)
    done = run("ollama", "create", folder)
    assert done.code == 1
    assert "think unset" in done.stderr and "think true" in done.stderr and "think false" not in done.stderr
    assert "4 replies hold thoughts, though the model was trained without" in done.stderr
    found = result(folder)
    assert [found["think"][think]["equal"] for think in replay.THINK] == [0, 0, 4]
    assert found["capabilities"] == ["completion", "thinking"]


def test_an_answer_that_ollama_takes_for_a_thought_is_not_equal(ollama, tmp_path):
    ollama.thinks, ollama.engine = True, lambda messages, thinks: f"<think>{ANSWERS[messages[-1]['content']]}"
    assert run("ollama", "create", make_run(tmp_path)).code == 1


def test_a_thinking_run_must_not_be_refused(ollama, tmp_path):
    ollama.engine = answering(thought=THOUGHT)
    folder = make_run(tmp_path, thinking=True)
    done = run("ollama", "create", folder)
    assert done.code == 1
    assert "4 requests were refused: Ollama does not see that the model's template can think" in done.stderr
    assert result(folder)["think"]["unset"]["equal"] == 4  # the text holds the tags, which count as well


def test_a_missing_stop_is_said_so(ollama, tmp_path):
    ollama.endless = True
    folder = make_run(tmp_path)
    done = run("ollama", "create", folder)
    assert done.code == 1
    assert "4 replies run past the end of the turn: a stop is missing" in done.stderr
    assert result(folder)["think"]["false"]["past_end"] == 4
    assert "4 of 4" in done.stdout


@pytest.mark.parametrize(
    ("parity", "wrong", "code"),
    [
        ((3, 4), 1, 0),
        ((3, 4), 2, 1),
        ((16, 20), 0, 0),
        ((15, 20), 1, 0),
        ((16, 20), 1, 1),
        (None, 1, 1),
        ((0, 0), 1, 1),
    ],
)
def test_as_many_may_differ_as_did_in_llama_cpp(ollama, tmp_path, parity, wrong, code):
    ollama.engine = answering(dict.fromkeys(list(ANSWERS)[:wrong], "d"))
    assert run("ollama", "create", make_run(tmp_path, parity=parity)).code == code


def test_check_asks_again_and_creates_nothing(ollama, tmp_path):
    folder = make_run(tmp_path)
    missing = run("ollama", "check", folder)
    assert missing.code == 2 and "ollama create" in missing.stderr and not (folder / "export/ollama.json").exists()
    assert run("ollama", "create", folder).code == 0
    ollama.engine = answering({"問い一": "d"})
    started = len(starts(ollama.program))
    assert run("ollama", "check", folder).code == 1
    assert len(starts(ollama.program)) == started and result(folder)["passed"] is False
    assert result(folder)["server"]["program"] is None


# ---- nothing is created ---------------------------------------------------------------------------------------------


def test_without_program_and_server_both_are_said_and_nothing_is_written(tmp_path, monkeypatch):
    folder = make_run(tmp_path)
    before = sorted(folder.rglob("*"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.delenv("SLIMTUNE_OLLAMA", raising=False)
    done = run("ollama", "create", folder)
    assert done.code == 2
    assert "https://ollama.com/download" in done.stderr and "ollama serve" in done.stderr
    assert sorted(folder.rglob("*")) == before


def test_the_program_may_be_named(ollama, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("SLIMTUNE_OLLAMA", str(ollama.program))
    assert run("ollama", "create", make_run(tmp_path)).code == 0
    monkeypatch.setenv("SLIMTUNE_OLLAMA", str(tmp_path / "none"))
    done = run("ollama", "create", tmp_path / "run", "--replace")
    assert done.code == 2 and "SLIMTUNE_OLLAMA" in done.stderr


def test_a_program_that_is_not_ollama(ollama, tmp_path):
    ollama.program.write_text("#!/bin/sh\necho usage >&2\nexit 3\n")
    done = run("ollama", "create", make_run(tmp_path))
    assert done.code == 2 and "ended with 3: usage" in done.stderr and not ollama.models


def test_a_server_that_is_not_ollama(ollama, tmp_path):
    ollama.not_ollama = True
    done = run("ollama", "create", make_run(tmp_path))
    assert done.code == 2 and "OLLAMA_HOST" in done.stderr and not ollama.models


def test_a_model_that_is_there_is_replaced_only_when_asked_to(ollama, tmp_path):
    folder = make_run(tmp_path)
    mine = {"files": {}}
    ollama.models["law-direct:latest"] = mine
    done = run("ollama", "create", folder)
    assert done.code == 2 and "has a model 'law-direct' already" in done.stderr
    assert ollama.models["law-direct:latest"] is mine
    assert run("ollama", "create", folder, "--name", "law-two").code == 0
    assert ollama.models["law-direct:latest"] is mine and result(folder)["name"] == "law-two"
    done = run("ollama", "create", folder, "--replace")
    assert done.code == 0 and "is replaced" in done.stdout
    assert ollama.models["law-direct:latest"] is not mine


@pytest.mark.parametrize("name", ["../law", "-f", "Law", "law:1", "law\n", "hub.example/law", ""])
def test_a_name_that_could_mean_something_else_is_refused(ollama, tmp_path, name):
    done = run("ollama", "create", make_run(tmp_path), f"--name={name}")
    assert done.code == 2 and "cannot be a model's name" in done.stderr
    assert not ollama.requests


def test_a_create_that_fails_leaves_no_record_of_another_model(ollama, tmp_path):
    folder = make_run(tmp_path)
    assert run("ollama", "create", folder).code == 0
    ollama.create_error = "unsupported architecture"
    done = run("ollama", "create", folder, "--replace")
    assert done.code == 2 and "ended with 1" in done.stderr
    assert not (folder / "export/ollama.json").exists()


def test_a_modelfile_that_requires_a_newer_ollama(ollama, tmp_path):
    folder = make_run(tmp_path)
    with (folder / "export/Modelfile").open("a") as file:
        file.write("REQUIRES 0.40.1\n")
    done = run("ollama", "create", folder)
    assert done.code == 2 and "requires Ollama 0.40.1, the server is 0.34.4" in done.stderr and not ollama.models


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda export: (export / "golden.jsonl").unlink(), "export again with --fresh"),
        (lambda export: (export / "golden.jsonl").write_text(""), "it holds no golden prompt"),
        (lambda export: (export / "golden.jsonl").write_text("{\n"), "golden.jsonl:1"),
        (lambda export: (export / "Modelfile").unlink(), "there is no Modelfile"),
        (lambda export: (export / "Modelfile").write_text("FROM llama3.2\n"), "it builds on 'llama3.2'"),
        (lambda export: (export / "Modelfile").write_text("FROM ../direct.q8_0.gguf\n"), "expected"),
        (lambda export: (export / "direct.q8_0.gguf").unlink(), "it is not there"),
        (lambda export: (export / "parity.json").write_text("{"), "parity.json"),
        (lambda export: (export.parent / "manifest.json").write_text('{"name": "direct"}'), "is not exported"),
        (lambda export: (export.parent / "manifest.json").unlink(), "not a run's folder"),
    ],
)
def test_an_export_that_is_not_whole(ollama, tmp_path, change, said):
    folder = make_run(tmp_path)
    change(folder / "export")
    done = run("ollama", "create", folder)
    assert done.code == 2 and said in done.stderr
    assert not ollama.requests


def test_every_fault_of_the_golden_prompts_is_said_at_once(tmp_path):
    good = {
        "id": "q",
        "messages": [{"role": "user", "content": "u"}],
        "answer": "a",
        "max_new_tokens": 4,
        "ended": True,
    }
    golden = [
        good | {"thinking": True},
        good | {"thinking": False},
        good | {"thinking": False, "max_new_tokens": 0, "messages": [{"role": "nobody", "content": "u"}]},
        {"id": "r"},
    ]
    folder = make_run(tmp_path, golden=golden, name="../x")
    with pytest.raises(SlimtuneError) as caught:
        create.read_export(folder)
    said = [f"{problem.where} {problem.what}" for problem in caught.value.problems]
    assert "manifest.json export.ollama_name '../x' cannot be" in said[0]
    assert any("prompt 3 max_new_tokens" in one for one in said) and any(
        "prompt 3 messages.0.role" in one for one in said
    )
    assert sum("prompt 4" in one for one in said) == 5
    assert any("some without" in one for one in said)


@pytest.mark.parametrize("content", ["{}", "[1]", "my notes", '{"name": "law", "passed": 1}', None])
def test_a_result_of_somebodys_is_refused_before_ollama_is_asked_and_stays(tmp_path, content):
    folder = make_run(tmp_path)
    path = folder / "export/ollama.json"
    path.write_text(content, encoding="utf-8") if content is not None else path.symlink_to(tmp_path / "elsewhere")
    for command in ("create", "check"):
        done = run("ollama", command, folder)
        assert done.code == 2 and f"{path}: Slimtune did not write this" in done.stderr
    assert path.is_symlink() if content is None else path.read_text(encoding="utf-8") == content


def test_the_result_is_noted_as_one_of_the_exports_files(ollama, tmp_path):
    folder = make_run(tmp_path)
    output_folders.mark_finished(folder / "export", "an export")
    for _ in range(2):
        assert run("ollama", "create", folder, "--replace").code == 0
    assert result(folder)["passed"] is True and output_folders.foreign_files(folder / "export") == []
