"""The TEMPLATE of every family is found from its Jinja alone, and what it cannot say is said or refused."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from support.chat_templates import unsloth_template
from support.modelfiles import parse_modelfile, write_modelfile

from slimtune.core.errors import SlimtuneError
from slimtune.export.modelfile import go_template
from slimtune.export.modelfile.chat_templates import bake_chat_template, recognise, render
from slimtune.export.proof.golden import generated

# Unsloth's name of the Jinja: family of the TEMPLATE, the roles whose text the Jinja trims, whether it begins with BOS.
EXPECTED: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "qwen2.5": ("chatml", (), False),
    "qwen3": ("chatml", (), False),
    "qwen3-instruct": ("chatml", (), False),
    "qwen3-thinking": ("chatml", (), False),
    "chatml": ("chatml", (), False),
    "llama-3": ("llama-3", ("system", "user", "assistant"), True),
    "llama-3.1": ("llama-3", (), True),
    "phi-3": ("phi-3", (), False),
    "phi-4": ("phi-4", (), False),
    "gemma": ("gemma", ("system", "user", "assistant"), True),
    "gemma-3": ("gemma", ("user", "assistant"), True),
}
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


@pytest.fixture(scope="module")
def jinjas(chat_templates) -> dict[str, str]:
    return {name: unsloth_template(name) for name in EXPECTED}


def write(folder, jinja: str, **options: Any) -> tuple[dict[str, Any], list[str]]:
    given = {"gguf_name": "x.gguf", "family": "qwen3", "thinking": False, "system": None, "num_ctx": 2048}
    notes = write_modelfile(folder / "Modelfile", **(given | {"chat_template": jinja} | options))
    return parse_modelfile((folder / "Modelfile").read_text(encoding="utf-8")), notes


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("thinking", [False, True])
def test_the_template_renders_as_its_jinja(name, thinking, jinjas, tmp_path):
    family, trims, bos = EXPECTED[name]
    found = recognise(jinjas[name], thinking=thinking)
    assert (found.turns.name, found.trims, found.writes_bos) == (family, trims, bos)
    parsed, notes = write(tmp_path, jinjas[name], thinking=thinking)
    assert parsed["parameters"]["stop"] == list(found.turns.stops)
    assert parsed["parameters"]["stop"][0].strip() == found.turns.after.strip()
    assert len(notes) == (1 if trims else 0)
    for turns in generated(100):
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        trimmed = [turn | {"content": turn["content"].strip()} if turn["role"] in trims else turn for turn in messages]
        got = go_template.render(parsed["template"], trimmed, parsed.get("system", ""))
        assert got == render(jinjas[name], messages, thinking=thinking)


def test_the_beginning_of_text_is_once_at_the_start_or_refused(jinjas):
    assert render(jinjas["llama-3"], [{"role": "user", "content": "u"}], thinking=False, bos="<B>").startswith(
        "<B><|start"
    )
    with pytest.raises(SlimtuneError, match="elsewhere than once at the start"):
        recognise(jinjas["chatml"] + "{{ bos_token }}", thinking=False)


def test_a_system_prompt_that_the_jinja_refuses_is_refused(tmp_path):
    parsed, notes = write(tmp_path, NO_SYSTEM)
    assert notes == ["TEMPLATE: the chat template takes no system prompt, and a conversation with one is refused"]
    assert "system" not in parsed
    with pytest.raises(SlimtuneError, match="takes no system prompt"):
        write(tmp_path, NO_SYSTEM, system="短く答える。")


def test_the_first_difference_is_named(jinjas):
    other = jinjas["phi-3"].replace("<|end|>\n", "<|over|>\n")
    with pytest.raises(SlimtuneError, match=r"no TEMPLATE .*<\|over\|>.* where phi-3 has .*<\|end\|>"):
        recognise(other, thinking=False)


def test_qwen3_5_is_rendered_by_ollama(jinjas, tmp_path):
    parsed, notes = write(tmp_path, jinjas["qwen3"], family="qwen3.5")
    assert parsed["template"] == "{{ .Prompt }}"
    assert (parsed["renderer"], parsed["parser"], parsed["requires"]) == ("qwen3.5", "qwen3.5", "0.17.6")
    assert len(notes) == 1 and "think=false" in notes[0]
    baked = bake_chat_template(jinjas["qwen3"], family="qwen3.5", thinking=False)
    messages = [{"role": "user", "content": "u"}]
    assert render(baked, messages, thinking=True) == render(jinjas["qwen3"], messages, thinking=False)


def test_a_decomposed_system_prompt_is_composed_and_said(jinjas, tmp_path):
    decomposed = unicodedata.normalize("NFD", "ガイド　を読む。")
    parsed, notes = write(tmp_path, jinjas["chatml"], system=decomposed)
    assert parsed["system"] == "ガイド を読む。"
    assert [note.split(" ")[1] for note in notes] == ["U+3000", "was"] and "NFC" in notes[1]


@pytest.mark.slow
def test_a_qwen3_5_is_converted_and_answers_in_llama_cpp_as_in_transformers(tokenizer, chat_templates, tmp_path):
    """Linear and full attention; the converter stops at its layers without --no-mtp."""
    import torch
    from transformers import Qwen3_5ForCausalLM
    from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

    from slimtune.export.gguf.gguf import convert
    from slimtune.models import llama_server

    config = Qwen3_5TextConfig(
        vocab_size=608, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=1, head_dim=64, linear_key_head_dim=32, linear_value_head_dim=32, linear_num_key_heads=2,
        linear_num_value_heads=4, max_position_embeddings=512, tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(7)
    model = Qwen3_5ForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "embed" in name or "lm_head" in name:  # wide enough for an untrained head to be sure of a token
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path / "model"
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.chat_template = chat_templates["qwen3"]
    tokenizer.save_pretrained(folder)
    record = convert(folder, tmp_path / "x.f32.gguf", outtype="f32", name="tiny")
    assert record.architecture == "qwen35"
    ids = tokenizer.encode("日本の首都は東京である。契約は")
    with torch.no_grad():
        wanted = model.float().generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :].tolist()
    with llama_server.start(tmp_path / "x.f32.gguf", context_length=256) as server:
        answer = server.post(
            "/completion", {"prompt": ids, "n_predict": 12, "temperature": 0.0, "top_k": 1, "return_tokens": True}
        )
    assert len(set(wanted)) > 1 and answer["tokens"] == wanted[: len(answer["tokens"])]
    assert len(answer["tokens"]) >= 4
