"""The model card that an export writes, and what of it reaches the GGUF."""

from __future__ import annotations

import pytest
from support.check_cases import alarms
from support.modelfiles import write_modelfile

from slimtune.core.errors import SlimtuneError
from slimtune.export.check.check_gguf import metadata_problems
from slimtune.export.model_card import base_reference, front_matter, licence_of, model_card


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
