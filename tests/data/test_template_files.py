"""Named templates and special tokens are those that Transformers finds in the same folder."""

import json
import shutil

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.data import template_files
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Message

TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]
VARIABLES = "{% for x in (bos_token, eos_token, pad_token, unk_token, documents, tools) %}[{{ x }}]{% endfor %}{{ bos_token is defined }}{{ sep_token is defined }}"
DEFAULT, WITH_TOOLS = f"default {VARIABLES}\r\n{{{{ messages[0].content }}}}", f"tools {VARIABLES}"
LISTED = [{"name": "tool_use", "template": WITH_TOOLS}, {"name": "default", "template": DEFAULT}]


@pytest.fixture
def folder(template_folder, tmp_path):
    made = shutil.copytree(template_folder("qwen3"), tmp_path / "model")
    (made / "chat_template.jinja").unlink()

    def write(*, files=(), legacy=None, **config):
        path = made / "tokenizer_config.json"
        kept = {name: value for name, value in json.loads(path.read_text()).items() if name != "added_tokens_decoder"}
        path.write_text(json.dumps(kept | config), encoding="utf-8")
        for name, text in dict(files).items():
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_text(text, encoding="utf-8", newline="")
        if legacy:
            (made / "special_tokens_map.json").write_text(json.dumps(legacy), encoding="utf-8")
        return made

    return write


END = {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
FOLDERS = {
    "one in the config": {"chat_template": DEFAULT, "bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
    "a list in the config": {"chat_template": LISTED, "unk_token": None, "bos_token": None},
    "a token with its properties": {"chat_template": LISTED, "eos_token": {"__type": "AddedToken", **END}, "special": True},
    "an older file of tokens": {"chat_template": DEFAULT, "legacy": {"eos_token": END, "bos_token": "<|endoftext|>"}},
    "files of their own": {
        "chat_template": "of the config",
        "files": {"chat_template.jinja": DEFAULT, "additional_chat_templates/tool_use.jinja": WITH_TOOLS},
    },
    "a file and others": {"files": {"chat_template.jinja": DEFAULT, "additional_chat_templates/rag.jinja": "rag"}},
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_as_transformers_reads_the_folder(name, folder):
    from transformers import AutoTokenizer

    made = folder(**FOLDERS[name])
    reference, tokenizer = AutoTokenizer.from_pretrained(made), ChatTokenizer(made)
    known = {one: text for one, text in reference.special_tokens_map.items() if one in tokenizer.variables}
    assert tokenizer.variables == known
    for tools in (None, TOOLS):
        wanted = reference.apply_chat_template([{"role": "user", "content": "q"}], tools=tools, tokenize=False)
        got = tokenizer.render(
            [Message("user", "q")], add_generation_prompt=False, tools=json.dumps(tools) if tools else ""
        )
        assert got == wanted


def test_several_templates_without_a_default(folder):
    made = folder(chat_template=[{"name": "rag", "template": "x"}])
    with pytest.raises(SlimtuneError, match=r"several chat templates \(rag\), and none is the default"):
        ChatTokenizer(made).render([Message("user", "q")], add_generation_prompt=True)


@pytest.mark.parametrize("value", [[], 5, None, {}, [5], [{"name": "default"}], [{"template": "x", "name": 5}]])
def test_templates_of_another_kind_are_refused(value, folder):
    made = folder(chat_template=value)
    with pytest.raises(SlimtuneError, match=r"has no chat template|has no name or no text") as caught:
        template_files.read(made)
    assert str(made) in str(caught.value)


def test_tokens_of_another_kind_are_none(folder):
    made = folder(chat_template="x", eos_token=5, bos_token={"content": 7}, pad_token=["a"], unk_token={})
    assert not {"eos_token", "bos_token", "pad_token", "unk_token"} & template_files.variables(made).keys()
