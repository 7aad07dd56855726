"""Templates held against each other, and the command that checks."""

from __future__ import annotations

import pytest
from support import command_line
from support.check_cases import CHATML, GO, gguf, modelfile
from support.modelfiles import STOPS

from slimtune.export.check.check_template import PROBES, compare_templates
from slimtune.export.modelfile import go_template
from slimtune.export.modelfile.chat_templates import bake_chat_template


def test_thinking_is_seen_and_told_apart(chat_templates):
    closed = GO + "<think>\n\n</think>\n\n"
    qwen3 = chat_templates["qwen3"]
    found = compare_templates(closed, qwen3, "")
    assert [one.level for one in found] == ["error"] and "with thinking off" in found[0].what
    baked = bake_chat_template(qwen3, family="qwen3", thinking=False)
    assert [one.level for one in compare_templates(closed, baked, "")] == ["note"]
    assert [one.level for one in compare_templates(GO, qwen3, "")] == ["note"]


def test_the_default_system_prompt_of_qwen25_is_missed(chat_templates):
    found = compare_templates(GO, chat_templates["qwen2.5"], "")
    assert found[0].level == "error" and "those without a system message" in found[0].what
    assert compare_templates(GO, chat_templates["qwen2.5"], "S")[0].level == "note"


def test_what_is_not_understood_is_not_guessed():
    for template, reason in (
        ("{{ .Tools | json }}", "'| json'"), ("{{ with .System }}{{ end }}", "'with'"), ("{{ if .Think }}{{ end }}", ".Think"),
        ("{{ range .Messages }}{{ .Name }}{{ end }}", ".Name of a message"), ("{{ if .System }}", "not ended"),
    ):  # fmt: skip
        with pytest.raises(go_template.NotUnderstood) as caught:
            go_template.render(template, PROBES[0])
        assert reason in str(caught.value)
        found = compare_templates(template, CHATML, "")
        assert found[0].level == "note" and "not compared" in found[0].what


def test_an_older_template_is_rendered_exchange_by_exchange():
    old = (
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{ if .Prompt }}<|im_start|>user\n"
        "{{ .Prompt }}<|im_end|>\n{{ end }}<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
    )
    assert compare_templates(old, CHATML, "")[0].level == "note"
    assert "as the GGUF's" in compare_templates(old, CHATML, "")[0].what


def test_the_command_prints_a_plain_list(tmp_path):
    gguf(tmp_path / "law.gguf")
    good = command_line.run("export", "--check", modelfile(tmp_path))
    assert good.code == 0 and good.stdout.endswith("0 errors, 0 warnings\n")
    bad = command_line.run("export", "--check", modelfile(tmp_path, num_ctx=1024, stops=STOPS[1:]))
    assert bad.code == 1 and bad.stdout.endswith("1 error, 1 warning\n")
    assert bad.stdout.startswith("error ") and "num_ctx is 1024, but the model was trained with 512" in bad.stdout
    missing = command_line.run("export", "--check", tmp_path / "none")
    assert missing.code == 2 and "no such file" in missing.stderr
    nothing = command_line.run("export")
    assert nothing.code == 2 and "nothing to export was named" in nothing.stderr
