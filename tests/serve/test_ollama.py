"""Creating an export in Ollama, against a stand-in for Ollama (tests/fake_ollama.py), by the command and by the script."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from support.command_line import run
from support.fake_ollama import FakeOllama, starts, write_program
from support.modelfiles import EMPTY_THINK_BLOCK, write_modelfile
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.export.modelfile.chat_templates import bake_chat_template
from slimtune.serve.ollama import exported, replay, server, versions

SCRIPT = ROOT / "scripts" / "check_ollama.sh"
SYSTEM = "記号で答えよ。"
ANSWERS = {"問い一": "a", "問い二": "b", "問い三": "c", "「引用」と\nスペース": "丁\n二行目"}
THOUGHT = "<think>\n民法を\n考える。\n</think>\n\n"


def make_run(
    folder, *, thinking=False, golden=None, parity=(4, 4), system=None, name="law-direct", ended=True, max_new_tokens=64
):
    """A run's folder as an export leaves it. parity: answers_equal of prompts, None for no file."""
    export = folder / "run" / "export"
    export.mkdir(parents=True)
    (export.parent / "manifest.json").write_text(json.dumps({"name": "direct", "export": {"ollama_name": name}}))
    (export / "direct.q8_0.gguf").write_bytes(b"GGUF and so on")
    write_modelfile(
        export / "Modelfile",
        gguf_name="direct.q8_0.gguf",
        family="qwen3",
        thinking=thinking,
        system=system,
        num_ctx=512,
    )
    rows = golden
    if rows is None:
        opening = [{"role": "system", "content": SYSTEM}]
        rows = [
            {
                "id": f"q{number}",
                "messages": [*opening, {"role": "user", "content": question}],
                "answer": (THOUGHT if thinking else "") + answer,
                "max_new_tokens": max_new_tokens,
                "ended": ended,
                "thinking": thinking,
            }
            for number, (question, answer) in enumerate(ANSWERS.items(), 1)
        ]
    (export / "golden.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if parity is not None:
        check = {"answers_equal": parity[0], "prompts": parity[1]}
        (export / "parity.json").write_text(json.dumps({"passed": True, "files": {"direct.q8_0.gguf": check}}))
    return export.parent


def answering(changed=None, *, thought="", thinking_too="nonsense"):
    """An engine that knows ANSWERS, but for `changed`. thinking_too: what it says where the prompt lets it think."""
    answers = ANSWERS | (changed or {})

    def engine(messages, thinks):
        said = answers[messages[-1]["content"]]
        return thought + said if thought or not thinks else f"<think>\n{thinking_too}\n</think>\n\n{said}"

    return engine


@pytest.fixture
def ollama(tmp_path, monkeypatch):
    """A well-behaved fake that thinks nothing; its program is on PATH."""
    with FakeOllama(answering()) as fake:
        programs = tmp_path / "bin"
        programs.mkdir()
        fake.program = write_program(programs, fake.url)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("OLLAMA_HOST", fake.host)
        monkeypatch.delenv("SLIMTUNE_OLLAMA", raising=False)
        yield fake


def result(run_folder):
    return json.loads((run_folder / "export" / "ollama.json").read_text(encoding="utf-8"))


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
    for gap in versions.GAPS:
        assert gap.what.split(":")[0] in said and gap.source in said
    assert "the program `ollama` is version 0.34.4, the server 0.1.33" in said
    assert len(result(folder)["warnings"]) == len(versions.GAPS)


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
        good | {"thinking": False, "max_new_tokens": 0, "messages": [{"role": "tool", "content": "u"}]},
        {"id": "r"},
    ]
    folder = make_run(tmp_path, golden=golden, name="../x")
    with pytest.raises(SlimtuneError) as caught:
        exported.read(folder)
    said = [f"{problem.where} {problem.what}" for problem in caught.value.problems]
    assert "manifest.json export.ollama_name '../x' cannot be" in said[0]
    assert any("prompt 3 max_new_tokens" in one for one in said) and any(
        "prompt 3 messages.0.role" in one for one in said
    )
    assert sum("prompt 4" in one for one in said) == 5
    assert any("some without" in one for one in said)


# ---- the parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "url"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        (" '10.0.0.5' ", "http://10.0.0.5:11434"),
        ("gpu-box:8080", "http://gpu-box:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("[::]:11435", "http://[::1]:11435"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("http://gpu-box", "http://gpu-box:80"),
        ("https://gpu-box/", "https://gpu-box:443"),
        ("HTTPS://gpu-box:1/ollama/", "https://gpu-box:1/ollama"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(value, url):
    assert server.address(value) == url


@pytest.mark.parametrize(
    "value", ["ftp://box", "box:port", "box:70000", "box:", "http://me:secret@box", "a b", "[::1", "a:b:c"]
)
def test_what_is_no_address(value):
    with pytest.raises(SlimtuneError) as caught:
        server.address(value)
    assert caught.value.problems[0].where == "OLLAMA_HOST" and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fixed", "older"),
    [
        ("0.17.1", "0.17.1", False),
        ("0.17.1-rc2", "0.17.1", True),
        ("v0.9.10", "0.17.1", True),
        ("0.17.1-3-gabcdef0", "0.17.1", False),
        ("1.0.0", "0.30.0", False),
        ("0.0.0", "0.17.1", None),
        ("main", "0.17.1", None),
    ],
)
def test_versions_are_compared_as_numbers(text, fixed, older):
    assert versions.older(text, fixed) is older


def test_what_is_warned_about():
    assert versions.warnings("0.40.12") == []
    assert next(line.split(":")[1].strip() for line in versions.warnings("0.16.0")) == "CVE-2026-7482"
    assert "not known" in versions.warnings("0.0.0")[0]


@pytest.mark.parametrize(
    ("text", "cut", "parts"),
    [
        ("a", False, ("", "a")),
        (" a\n", False, ("", "a")),
        ("<think>\n\n</think>\n\na", False, ("", "a")),
        (THOUGHT + "a", False, ("民法を\n考える。", "a")),
        ("民法を\n考える。\n</think>\n\na", False, ("民法を\n考える。", "a")),
        ("<think>\n民法を考え", True, ("民法を考え", "")),
        ("民法を考え\N{REPLACEMENT CHARACTER}", True, ("民法を考え", "")),
    ],
)
def test_thought_and_answer_are_told_apart(text, cut, parts):
    assert replay.parts(text, cut_thought=cut) == parts


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom slimtune.cli import app as cli\ntry:\n    cli.main(['ollama', 'create', '--help'])\n"
        "except SystemExit: pass\nprint([m for m in ('torch', 'transformers', 'httpx', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# ---- the script, by hand --------------------------------------------------------------------------------------------


def script(*arguments, shell="sh", **variables):
    command = [shell, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=60, check=False)


def test_the_script_comes_to_the_same_conclusion(ollama, tmp_path):
    folder = make_run(tmp_path, system=SYSTEM)
    done = script(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == [
        "think unset  4 of 4 equal",
        "think true   0 of 4 equal, 4 refused as it should be",
        "think false  4 of 4 equal",
    ]
    by_script = [body | {"model": ""} for body in ollama.asked("/api/chat")]
    ollama.requests.clear()
    assert run("ollama", "check", folder).code == 0
    asked = [body | {"model": ""} for body in ollama.asked("/api/chat")]
    assert sorted(map(str, map(sorted_body, by_script))) == sorted(map(str, map(sorted_body, asked)))


def sorted_body(body):
    return json.dumps(body, sort_keys=True)


def test_the_script_fails_where_the_command_does(ollama, tmp_path):
    folder = make_run(tmp_path)
    ollama.thinks = True
    done = script(folder, "law-two", shell="bash")
    assert done.returncode == 1 and "law-two:latest" in ollama.models
    assert "think unset  0 of 4 equal -- 4 must be equal; q1:" in done.stdout and "nonsense" in done.stdout
    ollama.thinks, ollama.endless = False, True
    again = script(folder, "law-two")
    assert again.returncode == 2 and "already" in again.stderr
    again = script(folder, "law-two", REPLACE="1")
    assert again.returncode == 1 and "4 past the end of the turn: a stop is missing" in again.stdout


def test_the_script_takes_a_thinking_run_and_its_parity(ollama, tmp_path):
    ollama.thinks = True
    answers = ANSWERS | {"問い一": "d"}
    ollama.engine = lambda messages, thinks: (THOUGHT if thinks else "") + answers[messages[-1]["content"]]
    done = script(make_run(tmp_path, thinking=True, parity=(3, 4)))
    assert done.returncode == 0, done.stderr
    assert "think true   3 of 4 equal" in done.stdout and "another prompt, not compared" in done.stdout


def test_the_script_without_ollama_says_what_to_install(ollama, tmp_path):
    folder = make_run(tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "curl", "python3", "sed", "dirname", "basename", "head"):
        (tools / tool).symlink_to(shutil.which(tool))
    done = script(folder, shell="/bin/sh", PATH=str(tools))
    assert done.returncode == 2 and "https://ollama.com/download" in done.stderr
    done = script(folder, OLLAMA_HOST="127.0.0.1:9")
    assert done.returncode == 2 and "ollama serve" in done.stderr
    done = script(tmp_path)
    assert done.returncode == 2 and "manifest.json is not there" in done.stderr
    done = script(folder, "-f")
    assert done.returncode == 2 and "cannot be a model's name" in done.stderr
    assert script().returncode == 2 and not ollama.models


# ---- with llama.cpp as the engine -----------------------------------------------------------------------------------

GO_TEMPLATE = ROOT / "tests" / "export" / "go_template" / "main.go"
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def tiny_export(tmp_path_factory):
    """The folder of the built-in model's GGUF with its baked template, and what the model itself answers, greedily."""
    from slimtune.export.gguf.gguf import convert
    from slimtune.models import builtin

    source, merged = builtin.resolve("builtin:tiny-qwen3"), tmp_path_factory.mktemp("tiny") / "merged"
    shutil.copytree(source, merged)
    template = (source / "chat_template.jinja").read_text(encoding="utf-8")
    baked = bake_chat_template(template, family="qwen3", thinking=False)
    (merged / "chat_template.jinja").write_text(baked, encoding="utf-8")
    gguf = merged.parent / "direct.q8_0.gguf"
    convert(merged, gguf, outtype="bf16", name="tiny")
    return gguf, golden_of(source)


def golden_of(model_folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    rows = []
    for line in (ROOT / "data/quickstart/test.jsonl").read_text(encoding="utf-8").splitlines()[:6]:
        row = json.loads(line)
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": row["input"]}]
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, enable_thinking=False, tokenize=False
        )
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            new = model.generate(ids, do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=end, pad_token_id=end)
        answer = new[0, ids.shape[1] :].tolist()
        ended = end in answer
        text = tokenizer.decode(answer[: answer.index(end)] if ended else answer)
        known = {"id": row["meta"]["id"], "messages": messages, "answer": text, "thinking": False}
        rows.append(known | {"max_new_tokens": NEW_TOKENS, "ended": ended})
    return rows


@pytest.fixture
def llama_engine(tiny_export, ollama, tmp_path):
    """Makes the fake answer with llama.cpp: from 0.30 through the GGUF's own template, before through the TEMPLATE."""
    from slimtune.models import llama_server

    renderer = tmp_path / "render"
    environment = os.environ | {"GOCACHE": str(tmp_path / "cache"), "GO111MODULE": "off", "GOFLAGS": ""}
    subprocess.run(["go", "build", "-o", str(renderer), str(GO_TEMPLATE)], check=True, env=environment)
    with llama_server.start(tiny_export[0], context_length=512) as llama:

        def engine(messages, thinks):
            (created,) = ollama.models.values()
            if ollama.version == "0.34.4":
                prompt = llama.post("/apply-template", {"messages": messages})["prompt"]
            else:
                head = {"template": created["template"], "system": created.get("system", "")}
                given = json.dumps(head) + "\n" + json.dumps(messages) + "\n"
                done = subprocess.run([renderer], input=given.encode(), stdout=subprocess.PIPE, check=True)
                prompt = json.loads(done.stdout)
            # llama.cpp ends the turn at <|im_end|> by itself, as it does within Ollama; other stops are the Modelfile's.
            body = {"prompt": prompt, "n_predict": NEW_TOKENS, "temperature": 0, "stop": created["parameters"]["stop"]}
            answer = llama.post("/completion", body)
            return answer["content"], "length" if answer["stop_type"] == "limit" else "stop"

        ollama.engine = engine
        yield


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed (golang-go)")
@pytest.mark.parametrize("version", ["0.34.4", "0.20.0"])
def test_a_real_export_answers_alike_through_either_template(version, llama_engine, tiny_export, ollama, tmp_path):
    gguf, golden = tiny_export
    assert len({row["answer"] for row in golden}) > 1 and any(row["ended"] for row in golden)
    folder = make_run(tmp_path, golden=golden, parity=None)
    shutil.copy(gguf, folder / "export" / gguf.name)
    ollama.version = version
    done = run("ollama", "create", folder)
    assert done.code == 0, done.stderr
    assert result(folder)["think"]["unset"]["equal"] == len(golden)
    # Without the empty thought in the prompt the model is asked something else, which the older versions would do.
    text = (folder / "export/Modelfile").read_text(encoding="utf-8")
    (folder / "export/Modelfile").write_text(text.replace(EMPTY_THINK_BLOCK, ""), encoding="utf-8")
    assert run("ollama", "create", folder, "--replace").code == (0 if version == "0.34.4" else 1)
