"""The Modelfile's TEMPLATE, rendered by Go's own text/template, is the prompt that training rendered."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from support.chat_templates import unsloth_template
from support.examples import THOROUGH
from support.modelfiles import parse_modelfile, write_modelfile

from slimtune.data.chat_template import render_template
from slimtune.export.modelfile import go_template
from slimtune.export.modelfile.chat_templates import bake_chat_template, recognise, render

GO = shutil.which("go")
CONVERSATIONS = 2000 if THOROUGH else 300
SOURCE = Path(__file__).with_name("go_template") / "main.go"

pytestmark = pytest.mark.skipif(GO is None, reason="Go is not installed (golang-go)")

# What the texts are made of: Japanese, odd white space, marks that templates and JSON treat apart, and plain words.
PIECES = [
    "賃貸人は", "修繕をする義務を負う。", "第606条", "選択肢\na. 甲\nb. 乙", "　", " ", "\n", "\n\n", "\t", "  ", "\r\n", "\u2028",
    "<b>&amp;</b>", '"quoted"', "{{ .Role }}", "{% if x %}", "`", "\\n", "😀", "が", "ｶﾞ", "doesn't", "def f(x):\n    return x", "%", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The renderer, compiled once."""
    folder = tmp_path_factory.mktemp("go")
    environment = os.environ | {"GO111MODULE": "off", "GOFLAGS": ""}
    subprocess.run([str(GO), "build", "-o", str(folder / "render"), str(SOURCE)], check=True, env=environment)
    return folder / "render"


def text(draw: random.Random) -> str:
    while True:
        made = "".join(draw.choice(PIECES) for _ in range(draw.randint(1, 8)))
        if made.strip():
            return made


def conversations(seed: int) -> list[list[dict[str, str]]]:
    """With and without a system prompt, of one to five questions; each ends with the user's turn."""
    draw = random.Random(seed)
    made = []
    for _ in range(CONVERSATIONS):
        turns = [{"role": "system", "content": text(draw)}] if draw.random() < 0.5 else []
        for _ in range(draw.randint(0, 4)):
            turns += [{"role": "user", "content": text(draw)}, {"role": "assistant", "content": text(draw)}]
        made.append([*turns, {"role": "user", "content": text(draw)}])
    return made


def rendered_by_go(program, modelfile, asked) -> list[str]:
    """All conversations in one process."""
    head = {"template": modelfile["template"], "system": modelfile.get("system", "")}
    lines = "".join(json.dumps(one) + "\n" for one in [head, *asked])
    done = subprocess.run([str(program)], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    rendered = [json.loads(line) for line in done.stdout.decode().split("\n") if line]
    assert len(rendered) == len(asked)
    return rendered


@pytest.mark.parametrize(
    ("family", "thinking", "system"),
    [
        ("qwen2.5", False, None),
        ("qwen2.5", False, "法令の質問に答えます。"),
        ("qwen3", False, None),
        ("qwen3", False, "短く答える。"),
        ("qwen3", True, None),
    ],
)
def test_conversations_are_rendered_as_training_renders_them(
    family, thinking, system, program, chat_templates, tmp_path
):
    template = chat_templates[family]
    baked = bake_chat_template(template, family=family, thinking=thinking)
    write_modelfile(
        tmp_path / "Modelfile",
        gguf_name="law.gguf",
        family=family,
        thinking=thinking,
        system=system,
        num_ctx=2048,
        chat_template=baked,
    )
    modelfile = parse_modelfile((tmp_path / "Modelfile").read_text(encoding="utf-8"))
    asked = conversations(seed=len(family) + thinking)
    rendered = rendered_by_go(program, modelfile, asked)
    for messages, got in zip(asked, rendered, strict=True):
        # Training renders a conversation without a system message under the recipe's; Ollama under the Modelfile's.
        given = messages
        if system is not None and messages[0]["role"] != "system":
            given = [{"role": "system", "content": system}, *messages]
        wanted = render_template(template, given, add_generation_prompt=True, thinking=thinking)
        assert got == wanted, messages
        assert render_template(baked, given, add_generation_prompt=True, thinking=thinking) == wanted


@pytest.mark.parametrize(
    "name", ["qwen3-instruct", "qwen3-thinking", "chatml", "llama-3", "llama-3.1", "phi-3", "phi-4", "gemma", "gemma-3"]
)
def test_every_familys_template_renders_as_its_jinja(name, program, chat_templates, tmp_path):
    """Where the Jinja trims a role's text, that text has no white space at its ends: Ollama's templates cannot trim."""
    jinja = unsloth_template(name)
    trims = recognise(jinja, thinking=False).trims
    write_modelfile(
        tmp_path / "Modelfile",
        gguf_name="law.gguf",
        family="qwen3",
        thinking=False,
        system=None,
        num_ctx=2048,
        chat_template=jinja,
    )
    modelfile = parse_modelfile((tmp_path / "Modelfile").read_text(encoding="utf-8"))
    asked = [
        [turn | {"content": turn["content"].strip()} if turn["role"] in trims else turn for turn in one]
        for one in conversations(seed=len(name))
    ]
    rendered = rendered_by_go(program, modelfile, asked)
    for messages, got in zip(asked, rendered, strict=True):
        assert got == render(jinja, messages, thinking=False), messages
    # The interpreter that checks files from elsewhere, where no Go is.
    for messages, got in zip(asked[:200], rendered, strict=False):
        assert go_template.render(modelfile["template"], messages, modelfile.get("system", "")) == got


def test_a_system_message_that_the_jinja_refuses_stops_the_template(program, tmp_path):
    jinja = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    template = recognise(jinja, thinking=False).text
    asked = [one for one in conversations(seed=1) if one[0]["role"] == "user"]
    for messages, got in zip(asked, rendered_by_go(program, {"template": template}, asked), strict=True):
        assert got == render(jinja, messages, thinking=False)
    lines = json.dumps({"template": template}) + "\n" + json.dumps([{"role": "system", "content": "S"}]) + "\n"
    done = subprocess.run([str(program)], input=lines.encode(), capture_output=True, check=False)
    assert done.returncode != 0 and b"this model takes no system prompt" in done.stderr
