"""The Modelfile says what the training template says, and no text in it can become an instruction."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.chat_templates import chat_template
from support.examples import examples
from support.modelfiles import QWEN25_DEFAULT_SYSTEM, STOPS, parse_modelfile, write_modelfile

from slimtune.core.errors import SlimtuneError
from slimtune.export.modelfile.chat_templates import bake_chat_template

DEFAULTS: dict[str, Any] = {"gguf_name": "law.f16.gguf", "thinking": False, "system": None, "num_ctx": 2048}


@pytest.fixture(scope="module")
def baked(chat_templates) -> str:
    return bake_chat_template(chat_templates["qwen3"], family="qwen3", thinking=False)


def write(tmp_path, **options):
    changes = write_modelfile(tmp_path / "Modelfile", **(DEFAULTS | options))
    assert [path.name for path in tmp_path.iterdir()] == ["Modelfile"]
    return (tmp_path / "Modelfile").read_bytes().decode("utf-8"), changes  # with its carriage returns


# ---- rendering ------------------------------------------------------------------------------------------------------


@cache
def compiled(template: str):
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return _compile_jinja_template(template)


def jinja(template: str, messages, *, prompt=True, thinking=False) -> str:
    """As transformers renders it."""
    return compiled(template).render(messages=messages, add_generation_prompt=prompt, enable_thinking=thinking)


def go(template: str, messages) -> str:
    """Go's text/template, as far as our TEMPLATE uses it: fields, and one range over .Messages."""
    before, body, after = re.fullmatch(
        r"(.*)\{\{ range \.Messages \}\}(.*)\{\{ end \}\}(.*)", template, re.DOTALL
    ).groups()
    fields = {"Role": "role", "Content": "content"}
    turns = [re.sub(r"\{\{ \.(\w+) \}\}", lambda m, t=turn: t[fields[m[1]]], body) for turn in messages]
    text = before + "".join(turns) + after
    assert "{{" not in before + after
    return text


contents = st.text(
    st.sampled_from("ab 法律、。　é\n\t\"'{}<>|/\\#😀") | st.characters(exclude_categories=["Cs"]),
    min_size=1,
    max_size=12,
)
thoughts = st.builds("<think>\n{}\n</think>\n\n{}".format, contents, contents) | st.builds(
    "</think>{}".format, contents
)


@st.composite
def conversations(draw, answers=contents, closed=False):
    messages = [{"role": "system", "content": draw(contents)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 3))):
        messages += [{"role": "user", "content": draw(contents)}, {"role": "assistant", "content": draw(answers)}]
    messages.append({"role": "user", "content": draw(contents)})
    return [*messages, {"role": "assistant", "content": draw(answers)}] if closed else messages


@examples(300)
@given(messages=conversations(contents | thoughts))
def test_the_baked_prompt_is_qwen3s_without_thinking(messages, chat_templates, baked):
    wanted = jinja(chat_templates["qwen3"], messages)
    assert wanted.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert jinja(baked, messages) == wanted
    assert jinja(baked, messages, thinking=True) == wanted  # whatever a client asks for


@examples(300)
@given(messages=conversations(contents | thoughts, closed=True))
def test_the_baked_training_text_is_qwen3s_without_thinking(messages, chat_templates, baked):
    assert jinja(baked, messages, prompt=False) == jinja(chat_templates["qwen3"], messages, prompt=False)


def test_ollama_sees_no_thinking_in_the_baked_template(chat_templates, baked):
    assert "<think>" not in baked and "</think>" not in baked and "enable_thinking" not in baked
    assert "<think>" in chat_templates["qwen3"]


def test_templates_that_need_no_baking_stay_as_they_are(chat_templates):
    instruct_2507 = chat_template("qwen3-instruct")
    assert bake_chat_template(chat_templates["qwen2.5"], family="qwen2.5", thinking=False) == chat_templates["qwen2.5"]
    assert bake_chat_template(chat_templates["qwen3"], family="qwen3", thinking=True) == chat_templates["qwen3"]
    assert bake_chat_template(instruct_2507, family="qwen3", thinking=False) == instruct_2507


def test_a_template_that_is_not_qwen3s_is_not_replaced(chat_templates):
    other = chat_templates["qwen3"].replace("<|im_start|>system", "<|im_start|>developer")
    with pytest.raises(SlimtuneError, match="not that of Qwen3"):
        bake_chat_template(other, family="qwen3", thinking=False)
    with pytest.raises(SlimtuneError, match="does not render"):
        bake_chat_template("{% if %}", family="qwen3", thinking=False)


@pytest.mark.parametrize(("family", "thinking"), [("qwen3", False), ("qwen3", True), ("qwen2.5", False)])
def test_ollamas_template_and_system_give_the_training_prompt(family, thinking, chat_templates, tmp_path_factory):
    """Without a system message in the request Ollama puts SYSTEM in front; then both templates must agree."""
    baked = bake_chat_template(chat_templates[family], family=family, thinking=thinking)
    folder = tmp_path_factory.mktemp("modelfile")
    text, _ = write(folder, family=family, thinking=thinking, chat_template=baked)
    parsed = parse_modelfile(text)
    assert parsed.get("system") == (QWEN25_DEFAULT_SYSTEM if family == "qwen2.5" else None)

    @examples(100)
    @given(messages=conversations())
    def agree(messages):
        system = [{"role": "system", "content": parsed["system"]}] if "system" in parsed else []
        with_system = messages if messages[0]["role"] == "system" else system + messages
        wanted = jinja(chat_templates[family], messages, thinking=thinking)
        assert go(parsed["template"], with_system) == wanted == jinja(baked, messages, thinking=thinking)

    agree()


def test_an_instruct_2507_template_opens_the_turn_without_a_think_block(tmp_path):
    text, _ = write(tmp_path, family="qwen3", chat_template=chat_template("qwen3-instruct"))
    assert parse_modelfile(text)["template"].endswith("{{ end }}<|im_start|>assistant\n")


def test_a_template_of_no_known_family_has_no_modelfile(tmp_path):
    with pytest.raises(SlimtuneError, match=r"no TEMPLATE for Ollama is known.*it renders .* where \w"):
        write(
            tmp_path, family="qwen3", chat_template="{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
        )


# ---- the file -------------------------------------------------------------------------------------------------------


def test_the_whole_file(tmp_path):
    text, changes = write(tmp_path, family="qwen3", system="あなたは日本法の専門家です。", temperature=0.6, top_p=0.95)
    assert changes == []
    assert text == (
        "FROM ./law.f16.gguf\n"
        'TEMPLATE """{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n'
        '{{ end }}<|im_start|>assistant\n<think>\n\n</think>\n\n"""\n'
        'SYSTEM """あなたは日本法の専門家です。"""\n'
        'PARAMETER stop "<|im_end|>"\nPARAMETER stop "<|im_start|>"\nPARAMETER stop "<|endoftext|>"\n'
        "PARAMETER num_ctx 2048\nPARAMETER temperature 0.6\nPARAMETER top_p 0.95\nPARAMETER top_k 20\n"
        "PARAMETER repeat_penalty 1.0\n"
    )


def test_characters_that_ollama_drops_are_replaced_and_said(tmp_path):
    system = "あなたは　法律　家\u200bです\u00a0。\n次"
    text, changes = write(tmp_path, family="qwen3", system=system)
    assert parse_modelfile(text)["system"] == "あなたは 法律 家です 。\n次"
    assert changes == [
        "SYSTEM: U+3000 IDEOGRAPHIC SPACE became a plain space (2×), because Ollama's parser drops it",
        "SYSTEM: U+200B ZERO WIDTH SPACE was left out (1×), because Ollama's parser drops it",
        "SYSTEM: U+00A0 NO-BREAK SPACE became a plain space (1×), because Ollama's parser drops it",
    ]


@examples(300)
@given(
    system=st.text(st.sampled_from('"\n\t #') | st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.lists(st.sampled_from(['"', '""', "\n", " ", "SYSTEM x", "PARAMETER stop a", "FROM /etc/passwd"])).map("".join)
)
def test_no_system_prompt_breaks_out(system, tmp_path_factory):
    folder = tmp_path_factory.mktemp("modelfile")
    try:
        text, _ = write(folder, family="qwen3", system=system)
    except SlimtuneError as error:
        assert 'holds """' in str(error)
        return
    assert '"""' not in system
    parsed = parse_modelfile(text)
    assert parsed.keys() - {"system"} == {"from", "template", "parameters"}
    assert parsed["from"] == "./law.f16.gguf"
    assert parsed["parameters"] == {
        "stop": list(STOPS), "num_ctx": ["2048"], "temperature": ["0.0"], "top_p": ["0.8"], "top_k": ["20"],
        "repeat_penalty": ["1.0"],
    }  # fmt: skip
    if system.isascii():
        kept = "".join(c for c in system if c.isprintable() or c in "\n\r\t")
        assert parsed.get("system", "") == (kept if kept.strip() else "")


def test_what_is_dropped_cannot_join_what_must_not_meet(tmp_path):
    for system, message in (('""\u200b" FROM x', 'holds """'), ("<|im_\u200bend|>", r"control token <\|im_end\|>")):
        with pytest.raises(SlimtuneError, match=message):
            write_modelfile(tmp_path / "Modelfile", **(DEFAULTS | {"family": "qwen3", "system": system}))


@pytest.mark.parametrize(
    "name", ["", "x", "../x.gguf", "a/b.gguf", "x.gguf\nSYSTEM y", "x y.gguf", "-x.gguf", "x.gguf "]
)
def test_only_a_plain_file_name_is_linked(name, tmp_path):
    with pytest.raises(SlimtuneError, match="cannot be the name of a GGUF"):
        write_modelfile(tmp_path / "Modelfile", **(DEFAULTS | {"family": "qwen3", "gguf_name": name}))
    assert not list(tmp_path.iterdir())


def test_every_bad_value_is_named_at_once(tmp_path):
    bad = {"system": '""" <|im_end|>', "num_ctx": 0, "temperature": float("nan"), "top_p": 0, "top_k": -1}
    with pytest.raises(SlimtuneError) as caught:
        write_modelfile(tmp_path / "Modelfile", **(DEFAULTS | bad | {"family": "qwen3", "repeat_penalty": 3}))
    assert len(caught.value.problems) == 7
    with pytest.raises(SlimtuneError, match=r"Qwen2\.5 .*has no thinking"):
        write_modelfile(tmp_path / "Modelfile", **(DEFAULTS | {"family": "qwen2.5", "thinking": True}))


def test_the_reader_drops_what_ollama_drops_and_refuses_what_is_no_instruction():
    text = '# a comment\nFROM ./x.gguf\nsystem "one　line"\nPARAMETER stop "a b"\nPARAMETER stop c\n'
    assert parse_modelfile(text) == {"from": "./x.gguf", "system": "oneline", "parameters": {"stop": ["a b", "c"]}}
    with pytest.raises(ValueError, match="not an instruction"):
        parse_modelfile("FROM x\n???\n")
