"""Modelfiles from elsewhere: what Ollama refuses, and what it takes and does otherwise than its author thinks."""

from __future__ import annotations

import time

import pytest
from support.check_cases import GO, alarms, gguf, modelfile, only
from support.modelfiles import STOPS

from slimtune.core.errors import SlimtuneError
from slimtune.core.findings import render
from slimtune.export.check.check_modelfile import check_file


def test_a_good_modelfile_gives_notes_alone(tmp_path):
    gguf(tmp_path / "law.gguf")
    path = modelfile(tmp_path)
    assert alarms(path) == [], render(check_file(path))
    assert "TEMPLATE renders 12 conversations as" in render(check_file(path))


@pytest.mark.parametrize(
    ("changed", "level", "what", "line"),
    [
        ({"template": None}, "warning", "no TEMPLATE: Ollama from 0.30", 0),
        ({"template": GO.replace("<|im_end|>\n", "<|im_end|>")}, "error", "12 of 12 conversations differently", 2),
        ({"template": GO.replace("\n", "\r\n")}, "error", None, 2),
        ({"stops": STOPS[1:]}, "warning", "the stop <|im_end|> is missing", 7),
        ({"num_ctx": None}, "warning", "num_ctx is not set", 0),
        ({"num_ctx": 1024}, "error", "num_ctx is 1024, but the model was trained with 512", 9),
        ({"top_k": None, "top_p": None}, "warning", "top_p (Ollama uses 0.9), top_k (Ollama uses 40)", 1),
        ({"temperature": 1.5}, "warning", "temperature 1.5", 10),
        ({"repeat_penalty": None}, "warning", "repeat_penalty is not set", 1),
        ({"repeat_penalty": 1.2}, "warning", "repeat_penalty 1.2", 13),
        ({"rest": 'SYSTEM """あ　い"""'}, "warning", "U+3000 IDEOGRAPHIC SPACE is dropped", 14),
        ({"rest": "SYSTEM か\u3099"}, "warning", "composed form", 14),
        ({"rest": "SYSTEM a <|im_end|> b"}, "error", "SYSTEM contains <|im_end|>", 14),
        ({"rest": "RENDERER qwen3.5\nPARSER qwen3.5"}, "warning", "without REQUIRES", 14),
        ({"rest": "RENDERER qwen3.5\nREQUIRES 0.17.6"}, "warning", "RENDERER without PARSER", 14),
        ({"rest": "PARAMETER mirostat 1"}, "warning", "mirostat has no effect", 14),
        ({"rest": "PARAMETER tempreature 1"}, "error", "tempreature is not known", 14),
        ({"rest": f"PARAMETER seed {'9' * 5000}"}, "error", "PARAMETER seed must be a whole number", 14),
        ({"rest": "PARAMETER top_k 20"}, "warning", "top_k is set 2 times", 14),
        ({"rest": "ADAPTER ./no.gguf"}, "error", "no.gguf does not exist", 14),
        ({"rest": "ADAPTER ./Modelfile"}, "error", "is not a GGUF", 14),
        ({"rest": "ADAPTER ./law.gguf"}, "error", "a whole model", 14),
    ],
)
def test_what_a_modelfile_gets_wrong(changed, level, what, line, tmp_path):
    gguf(tmp_path / "law.gguf")
    path = modelfile(tmp_path, **changed)
    if what is None:
        assert any("Windows line ends" in one.what and one.level == level for one in alarms(path))
        return
    found = only(path, level, what)
    assert found.where == (f"{path}:{line}" if line else str(path))


@pytest.mark.parametrize(
    ("start", "level", "what"),
    [
        ("FROM ./no.gguf", "error", "does not exist"),
        ("FROM qwen3:8b", "note", "an Ollama model"),
        ("FROM hf.co/someone/something", "note", "on the hub"),
        ("FROM .", "warning", "is a folder"),
        ("FROM ../x/law.gguf", "warning", "outside the Modelfile's folder"),
        ("FROM ./law.gguf\nFROM ./law.gguf", "warning", "FROM appears 2 times"),
    ],
)
def test_from(start, level, what, tmp_path):
    (tmp_path / "x").mkdir()
    gguf(tmp_path / "x" / "law.gguf")
    found = check_file(modelfile(tmp_path / "x", start=start))
    assert any(one.level == level and what in one.what for one in found), render(found)
    absolute = check_file(modelfile(tmp_path / "x", start=f"FROM {tmp_path}/x/law.gguf"))
    assert [one.what for one in absolute if one.level == "warning"] == [
        f"{tmp_path}/x/law.gguf is a path of this machine: the Modelfile works nowhere else"
    ]


def test_an_adapter_for_another_architecture_and_over_quantised_weights(tmp_path):
    gguf(tmp_path / "law.gguf", ("Q4_K", None), **{"general.file_type": 15})
    gguf(tmp_path / "lora.gguf", **{"general.type": "adapter", "general.architecture": "llama"})
    told = [one.what for one in alarms(modelfile(tmp_path, rest="ADAPTER ./lora.gguf"))]
    assert len(told) == 2 and "for llama, and FROM is qwen3" in told[0] and "added to Q4_K_M weights" in told[1]


def test_no_template_anywhere_and_a_stop_that_saves(tmp_path):
    gguf(tmp_path / "law.gguf", **{"tokenizer.chat_template": None})
    told = [one.what for one in alarms(modelfile(tmp_path, template=None)) if one.level == "error"]
    assert len(told) == 1 and "no TEMPLATE, and no chat template in the GGUF" in told[0]
    gguf(tmp_path / "law.gguf", **{"tokenizer.ggml.eos_token_id": 101})
    only(modelfile(tmp_path), "warning", "only the Modelfile's stop ends an answer")


def test_a_refused_modelfile_is_told_with_its_line(tmp_path):
    (tmp_path / "Modelfile").write_text('FROM x\nSYSTEM """open\n')
    assert only(tmp_path / "Modelfile", "error", "Ollama refuses the file").where.endswith("Modelfile:2")


# ---- what Ollama refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    ["{{ if .System }}x", "{{ .Prompt", "{{ }}", "{{ end }}", "x{{ else }}", "{{ if }}x{{ end }}", "{{ foo .Prompt }}",
     "{{ if .System }}a{{ else }}b{{ else }}c{{ end }}", "{{" * 20_000],
)  # fmt: skip
def test_a_template_that_ollama_refuses_is_an_error(template, tmp_path):
    gguf(tmp_path / "law.gguf")
    started = time.process_time()
    only(modelfile(tmp_path, template=template), "error", "Ollama refuses TEMPLATE: it has ")
    assert time.process_time() - started < 3


def test_a_template_that_loops_beyond_reason_is_not_compared(tmp_path):
    gguf(tmp_path / "law.gguf")
    template = "{{ range $.Messages }}" * 30 + "x" + "{{ end }}" * 30
    assert "loops beyond reason" in render(check_file(modelfile(tmp_path, template=template)))


@pytest.mark.parametrize("name", ["bad name", "a//b", "/a", "a:", ":b", "a/b/c/d", "é", "-a", "a" * 81, "a:b:c"])
def test_a_name_that_no_model_can_have_is_an_error(name, tmp_path):
    path = modelfile(tmp_path, start=f"FROM {name}")
    assert any(one.level == "error" and name[:80] in one.what for one in check_file(path)), render(check_file(path))


@pytest.mark.parametrize(
    "name", ["llama3", "qwen3:0.6b", "me/law-direct:latest", "localhost:5000/me/law:q4_K_M", "_a.b"]
)
def test_a_name_that_a_model_can_have_is_none(name, tmp_path):
    assert not [one for one in check_file(modelfile(tmp_path, start=f"FROM {name}")) if one.level == "error"]


def test_a_model_is_not_its_own_draft(tmp_path):
    gguf(tmp_path / "law.gguf")
    only(modelfile(tmp_path, rest="DRAFT ./law.gguf"), "error", "a model cannot be its own draft")


def test_a_folder_is_taken_as_its_modelfile(tmp_path):
    gguf(tmp_path / "law.gguf")
    assert check_file(modelfile(tmp_path)) == check_file(tmp_path)
    with pytest.raises(SlimtuneError, match="this is a folder without a Modelfile"):
        check_file(tmp_path.parent)


@pytest.mark.parametrize(
    "raw", [b"", b"\0" * 99, b"\xff\xfe", b"\xff" * 999, bytes(range(256)) * 9, b"FROM " + b"x" * 99_999]
)
def test_a_modelfile_of_any_bytes_is_a_finding(raw, tmp_path):
    (tmp_path / "Modelfile").write_bytes(raw)
    assert any(one.level == "error" for one in check_file(tmp_path / "Modelfile"))
