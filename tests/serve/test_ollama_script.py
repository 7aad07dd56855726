"""scripts/check_ollama.sh against the command, and a real export with llama.cpp as the engine of the stand-in."""

import json
import os
import shutil
import subprocess

import pytest
from support.command_line import run
from support.modelfiles import EMPTY_THINK_BLOCK
from support.ollama_runs import ANSWERS, SYSTEM, THOUGHT, make_run, result
from support.paths import ROOT

from slimtune.export.modelfile.chat_templates import bake_chat_template

SCRIPT = ROOT / "scripts" / "check_ollama.sh"

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
