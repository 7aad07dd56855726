"""Modelfiles and GGUFs from elsewhere: what is wrong with each is seen, and what is right gives no alarm."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from support import command_line
from support.modelfiles import STOPS, write_modelfile

from slimtune.core.errors import SlimtuneError
from slimtune.core.findings import Finding, render
from slimtune.export.check.check_gguf import metadata_problems
from slimtune.export.check.check_modelfile import check_file
from slimtune.export.check.check_template import PROBES, compare_templates
from slimtune.export.model_card import base_reference, front_matter, licence_of, model_card
from slimtune.export.modelfile import go_template
from slimtune.export.modelfile.chat_templates import bake_chat_template
from slimtune.models.gguf_header import array_text, read_gguf, read_whole

CHATML = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
GO = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
NAMED = {
    "general.architecture": "qwen3", "general.name": "law", "general.license": "apache-2.0", "general.languages": ["ja"],
    "general.base_model.0.name": "Qwen3", "general.file_type": 0, "qwen3.context_length": 512,
    "tokenizer.chat_template": CHATML, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": [f"t{i}" for i in range(100)] + ["<|im_end|>", "<|endoftext|>"],
    "tokenizer.ggml.eos_token_id": 100, "tokenizer.ggml.add_bos_token": False,
}  # fmt: skip
SIZES = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "BF16": (30, 1, 2),
    "Q8_0": (8, 32, 34),
    "Q5_0": (6, 32, 22),
    "Q4_K": (12, 256, 144),
}
PARAMETERS = {"num_ctx": 512, "temperature": 0, "top_p": 0.8, "top_k": 20, "repeat_penalty": 1.0}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return struct.pack("<I", 8) + text(value)


def gguf(path: Path, *tensors: tuple[str, bytes | None], cut: int = 0, **metadata) -> Path:
    """A small file by hand: tensors of 256 × 1 of a type, their bytes or zeros; metadata over NAMED, None to leave out."""
    held = {key: value for key, value in (NAMED | metadata).items() if value is not None}
    tensors = tensors or (("F32", None),)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(held))
    head += b"".join(text(key) + entry(value) for key, value in held.items())
    data = b""
    for index, (kind, raw) in enumerate(tensors):
        number, block, width = SIZES[kind]
        head += text(f"blk.{index}.weight") + struct.pack("<IQQIQ", 2, 256, 1, number, len(data))
        data += (raw or b"").ljust(256 // block * width, b"\0")
        data += b"\0" * (-len(data) % 32)
    whole = head + b"\0" * (-len(head) % 32) + data
    path.write_bytes(whole[: len(whole) - cut])
    return path


def modelfile(
    folder: Path, *, start: str = "FROM ./law.gguf", rest: str = "", template: str | None = GO, **changed
) -> Path:
    lines = [start] + ([f'TEMPLATE """{template}"""'] if template is not None else [])
    lines += [f'PARAMETER stop "{stop}"' for stop in changed.pop("stops", STOPS)]
    lines += [f"PARAMETER {name} {value}" for name, value in (PARAMETERS | changed).items() if value is not None]
    (folder / "Modelfile").write_text("\n".join([*lines, rest]) + "\n", encoding="utf-8")
    return folder / "Modelfile"


def alarms(path: Path) -> list[Finding]:
    return [one for one in check_file(path) if one.level != "note"]


def only(path: Path, level: str, *parts: str) -> Finding:
    """The one alarm that there is."""
    found = alarms(path)
    assert len(found) == 1, render(found)
    assert found[0].level == level and all(part in found[0].what for part in parts), render(found)
    return found[0]


# ---- GGUF -----------------------------------------------------------------------------------------------------------


def test_a_good_gguf_gives_notes_alone(tmp_path):
    path = gguf(tmp_path / "law.gguf")
    assert alarms(path) == []
    assert {one.where for one in check_file(path)} == {str(path)}
    read = read_gguf(path)
    assert array_text(read, "tokenizer.ggml.tokens", 100) == "<|im_end|>"
    assert array_text(read, "tokenizer.ggml.tokens", 102) is None


@pytest.mark.parametrize(
    ("metadata", "level", "what"),
    [
        ({"general.name": None}, "warning", "general.name is missing"),
        ({"general.license": None}, "warning", "general.license is missing"),
        ({"general.base_model.0.name": None}, "warning", "base model is not named"),
        ({"tokenizer.chat_template": None}, "warning", "no chat template"),
        ({"tokenizer.chat_template": "{% if %}"}, "warning", "does not render"),
        ({"tokenizer.chat_template": CHATML + "{# <think> #}"}, "warning", "can think"),
        ({"tokenizer.ggml.eos_token_id": 101}, "error", "ends an answer with '<|im_end|>', but"),
        ({"tokenizer.ggml.eos_token_id": None}, "error", "no token that ends generation"),
        ({"tokenizer.ggml.eos_token_id": 4000}, "error", "no token that ends generation"),
        ({"tokenizer.ggml.add_bos_token": True}, "error", "add_bos_token is true"),
        ({"qwen3.context_length": None}, "warning", "context_length"),
        ({"tokenizer.ggml.pre": "default"}, "error", "pre-tokenizer is not named"),
    ],
)
def test_what_a_gguf_says_of_itself(metadata, level, what, tmp_path):
    only(gguf(tmp_path / "law.gguf", **metadata), level, what)


def test_an_end_of_turn_token_ends_answers_as_well(tmp_path):
    metadata = {"tokenizer.ggml.eos_token_id": 101, "tokenizer.ggml.eot_token_id": 100}
    assert alarms(gguf(tmp_path / "law.gguf", **metadata)) == []


def test_silent_fallbacks_are_counted(tmp_path):
    mixed = gguf(tmp_path / "a.gguf", ("Q4_K", None), ("Q5_0", None), ("Q8_0", None), **{"general.file_type": 15})
    only(mixed, "warning", "says Q4_K_M, but of 3 matrices 1 Q5_0, 1 Q8_0")
    none = gguf(tmp_path / "b.gguf", ("Q5_0", None), **{"general.file_type": 15})
    only(none, "error", "none of its matrices has that type: 1 Q5_0")
    assert alarms(gguf(tmp_path / "c.gguf", ("Q4_K", None), **{"general.file_type": 15})) == []


@pytest.mark.parametrize(
    ("kind", "raw"),
    [("F32", struct.pack("<f", float("nan"))), ("F16", struct.pack("<H", 0x7C00)), ("BF16", b"\x80\x7f")],
)
def test_nan_and_infinity_are_found(kind, raw, tmp_path, monkeypatch):
    path = gguf(tmp_path / "law.gguf", (kind, b"\0" * 400 + raw), **{"general.file_type": None})
    only(path, "error", "1 tensors hold NaN or infinity ('blk.0.weight'")
    monkeypatch.setattr("slimtune.export.check.check_gguf.LOOKED_AT", 64)
    assert alarms(path) == [] and "searched for NaN and infinity: the first" in render(check_file(path))
    assert [one.level for one in check_file(path, deep=True)].count("error") == 1


def test_the_last_value_of_a_half_precision_tensor_is_looked_at(tmp_path, monkeypatch):
    path = gguf(tmp_path / "law.gguf", ("F16", b"\0" * 400 + struct.pack("<H", 0x7C00)), **{"general.file_type": None})
    monkeypatch.setattr("slimtune.export.check.check_gguf.LOOKED_AT", 402)  # half of four bytes
    only(path, "error", "1 tensors hold NaN or infinity")


def test_a_file_that_is_cut_off_or_damaged(tmp_path):
    only(gguf(tmp_path / "a.gguf", cut=100), "error", "cut off: 1 of 1 tensors")
    whole = gguf(tmp_path / "b.gguf").read_bytes()
    for length in (3, 20, 200, 1000):
        (tmp_path / "b.gguf").write_bytes(whole[:length])
        only(tmp_path / "b.gguf", "error", "damaged" if length > 3 else "")
    (tmp_path / "b.gguf").write_bytes(whole[:8] + b"\xff" * 16 + whole[24:])
    only(tmp_path / "b.gguf", "error", "damaged")
    with pytest.raises(SlimtuneError, match="no such file"):
        check_file(tmp_path / "c.gguf")


def header(*, version=3, tensors=0, entries=1, rest=b"", order="<"):
    return b"GGUF" + struct.pack(f"{order}IQQ", version, tensors, entries) + rest


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "damaged: the file ends in the middle of it"),
        (header(order=">"), "it is for big-endian machines"),
        (header(version=1), "its version is 1"),
        (header(version=2**20), "its version is 1,048,576"),
        (header(entries=2**40), "damaged: it counts 0 tensors and 1,099,511,627,776 entries"),
        (header(tensors=2**62, entries=0), "damaged: it counts"),
        (header(rest=struct.pack("<Q", 2**62)), "damaged: a text would have"),
        (header(rest=text("k") + struct.pack("<I", 99)), "an entry has the unknown type 99"),
        (header(rest=text("k") + struct.pack("<IIQ", 9, 9, 2)), "an array in an array"),
        (header(rest=text("k") + struct.pack("<IIQ", 9, 8, 2**61)), "an array would have"),
        (header(rest=text("k") + struct.pack("<IIQ", 9, 8, 2**61)), "an array would have"),
        (header(rest=text("k") + struct.pack("<IIQ", 9, 0, 10**6)), "an array would have 1,000,000 entries"),
        (header(rest=struct.pack("<Q", 2) + b"\xff\xfe"), "damaged: not UTF-8"),
        (header(entries=2, rest=(text("k") + entry(1)) * 2), "'k' is there twice"),
        (header(rest=text("general.alignment") + entry(3)), "general.alignment is not a power of two"),
        (header(tensors=1, entries=0, rest=text("t") + struct.pack("<I", 9)), "'t' has 9 dimensions"),
        (header(tensors=1, entries=0, rest=text("t") + struct.pack("<IQIQ", 1, 5, 12, 0)), "'t' has rows of 5, which Q4_K"),
    ],
)  # fmt: skip
def test_a_header_that_cannot_be_is_one_sentence(content, told, tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(content + b"\0" * (100 if content else 0))
    found = only(path, "error", told)
    assert found.where == str(path) and found.fix


def test_every_place_where_a_file_may_be_cut_or_flipped_is_a_finding_or_harmless(tmp_path):
    """Nothing but findings, whatever the bytes."""
    whole = gguf(tmp_path / "a.gguf").read_bytes()
    for place in range(0, len(whole), 29):
        for content in (
            whole[:place],
            whole[:place] + b"\xff" + whole[place + 1 :],
            whole[:place] + whole[place + 1 :],
        ):
            (tmp_path / "a.gguf").write_bytes(content)
            assert all(one.where == str(tmp_path / "a.gguf") for one in check_file(tmp_path / "a.gguf"))


def test_tensors_that_are_not_in_a_row_cannot_be_loaded(tmp_path):
    path = gguf(tmp_path / "a.gguf", ("F32", None), ("F32", None))
    second = text("blk.1.weight") + struct.pack("<IQQIQ", 2, 256, 1, 0, 1024)
    assert path.read_bytes().count(second) == 1
    path.write_bytes(path.read_bytes().replace(second, second[:-8] + struct.pack("<Q", 0)))
    only(path, "error", "1 tensors are not where they should be, first 'blk.1.weight'")


def test_a_split_model_needs_all_of_its_files(tmp_path):
    split = {"split.count": 2, "split.no": 0}
    first = gguf(tmp_path / "law-00001-of-00002.gguf", **split)
    with pytest.raises(SlimtuneError, match=r"law-00002-of-00002\.gguf: no such file"):
        read_whole(first)
    gguf(tmp_path / "law-00002-of-00002.gguf", cut=50, **split)
    with pytest.raises(SlimtuneError, match=r"law-00002-of-00002\.gguf: the file is cut off"):
        read_whole(first)
    with pytest.raises(SlimtuneError, match="its name does not say so"):
        read_whole(first.rename(tmp_path / "law.gguf"))


# ---- Modelfile: what Ollama refuses ----


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


# ---- Modelfile ------------------------------------------------------------------------------------------------------


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


# ---- templates ------------------------------------------------------------------------------------------------------


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


# ---- what the export writes -----------------------------------------------------------------------------------------


def test_a_model_card_is_read_back(tmp_path):
    card = model_card("law", base_model="Qwen/Qwen3-8B", license="apache-2.0", languages=["ja", "no"], tags=["law"])
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert front_matter(tmp_path) == {
        "base_model": "Qwen/Qwen3-8B", "license": "apache-2.0", "language": ["ja", "no"], "tags": ["slimtune", "law"],
    }  # fmt: skip
    assert licence_of(tmp_path) == "apache-2.0"
    assert "from \\[x\\](h) with" in model_card("law", base_model="/a/[x](h)", license=None)
    unknown = model_card("law", base_model="/home/someone/models/mine", license=None)
    assert "license:" not in unknown and "not known" in unknown and "someone" not in unknown
    assert base_reference("/home/someone/models/mine") == ("general.base_model.0.name", "mine")
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    assert "someone" not in model_card("law", base_model=str(folder), license=None) and "- name: name" in model_card(
        "law", base_model=str(folder), license=None
    )


@pytest.mark.parametrize("front", ["[" * 5000, "a: 2026-13-45", "a: !!int x", "\ud83d", "a: \x00"])
def test_a_model_card_that_cannot_be_read_states_nothing(tmp_path, front):
    (tmp_path / "README.md").write_bytes(f"---\n{front}\n---\n".encode("utf-8", "surrogatepass"))
    assert front_matter(tmp_path) == {}


def test_a_model_card_takes_no_injection():
    with pytest.raises(SlimtuneError) as caught:
        model_card("a\n---", base_model="", license="x\ny: z", languages=["Japanese"], tags=["a\u2028b"])
    assert len(caught.value.problems) == 5


@pytest.mark.slow
def test_the_converter_takes_the_card_into_the_gguf(build_base, tmp_path):
    import shutil

    from slimtune.export.gguf.gguf import convert

    model = shutil.copytree(build_base("qwen3", tied=True), tmp_path / "merged")
    template = (model / "chat_template.jinja").read_text(encoding="utf-8")
    out = tmp_path / "law.gguf"
    convert(model, out, outtype="bf16", name="law")
    expected = {
        "name": "law", "base_model": "Qwen/Qwen3-8B", "license": "apache-2.0", "languages": ["ja"], "tags": ["slimtune"],
        "chat_template": template, "eos": "<|im_end|>", "architecture": "qwen3", "tensor_types": ("BF16",),
    }  # fmt: skip
    missing = [one.what for one in metadata_problems(out, expected)]
    assert len(missing) == 4 and all("missing" in one or "lacks" in one for one in missing)
    for base, asked in (("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"), ("/a/folder/mine", "mine")):
        card = model_card("law", base_model=base, license="apache-2.0", languages=["ja"])
        (model / "README.md").write_text(card, encoding="utf-8")
        convert(model, out, outtype="bf16", name="law")
        assert metadata_problems(out, expected | {"base_model": asked}) == []
    wrong = {"name": "x", "chat_template": template + " ", "eos": "</s>", "tensor_types": {"F32": 1}}
    assert len(metadata_problems(out, wrong)) == 4
    write_modelfile(
        tmp_path / "Modelfile", gguf_name="law.gguf", family="qwen3", thinking=True, system=None, num_ctx=512,
        chat_template=template,
    )  # fmt: skip
    assert [one.what[:18] for one in alarms(tmp_path / "Modelfile")] == ["the chat template "]


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
