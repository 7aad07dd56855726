"""What a row of the families' table decides: which models are planned, and which are refused before a download."""

import json
import shutil

import pytest
from support import command_line
from support.paths import ROOT
from support.toy_family import END, ROW, toy_family, write_files  # noqa: F401  a fixture

from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Message
from slimtune.data.text import faults
from slimtune.models import families, shapes

SUPPORTED = "Qwen2.5 (with Coder), Qwen3, Llama-architecture models with a ChatML template"
LLAMA_3 = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def plan(base):
    outcome = command_line.run("plan", str(ROOT / "recipes/direct.yaml"), f"model.base={base}")
    return outcome.code, " ".join((outcome.stdout + outcome.stderr).split())


def model(folder, template, **changes):
    """A folder with the built-in tokenizer, this template, and a config.json."""
    write_files(folder)
    config = json.loads((folder / "config.json").read_text("utf-8")) | {"model_type": "llama"} | changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("base", "kind"),
    [
        ("google/gemma-2-9b-it", "Gemma"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama 3"),
        ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", "Llama 3"),
        ("microsoft/Phi-4", "Phi-4"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "Mistral"),
        ("Qwen/Qwen3-30B-A3B", "Qwen mixture of experts"),
        ("Qwen/Qwen3.5-4B", "Qwen3.5"),
    ],
)
def test_a_family_that_cannot_be_trained_is_refused_by_its_name(base, kind):
    with pytest.raises(SlimtuneError) as caught:
        shapes.of_base(base, None)
    assert f"'{base}' is a {kind} model" in str(caught.value) and SUPPORTED in str(caught.value)


def test_the_plan_refuses_before_any_download():
    code, said = plan("google/gemma-2-9b-it")
    assert code == 2 and SUPPORTED in said


def test_an_unknown_name_is_not_guessed_at():
    with pytest.raises(SlimtuneError, match=r"config\.json is not on this machine") as caught:
        shapes.of_base("someone/else-7b", None)
    assert SUPPORTED in str(caught.value)


def test_the_plan_refuses_another_model_type(tmp_path):
    code, said = plan(model(tmp_path, LLAMA_3, model_type="gemma2"))
    assert code == 2 and "model_type 'gemma2' (Gemma) is not supported" in said and SUPPORTED in said


def test_the_plan_refuses_a_chat_template_that_it_cannot_mask(tmp_path):
    code, said = plan(model(tmp_path, LLAMA_3))
    assert code == 2 and "<|eot_id|>" in said and SUPPORTED in said
    code, said = plan(model(tmp_path, LLAMA_3.replace("<|eot_id|>", END)))
    assert code == 2 and f"ends a turn with {END}" in said and "have <|im_end|>" in said


def test_a_llama_with_chatml_is_supported(tmp_path):
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    template += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    folder = model(tmp_path, template)
    shape = shapes.of_base(str(folder), folder)
    families.require_template(families.get(shape.family), ChatTokenizer(folder), "x")
    assert (shape.family, shape.qkv_bias, shape.qk_norm) == ("llama", False, False)


def test_every_published_size_is_found_by_a_row_that_its_name_begins_like():
    for name, shape in shapes.known().items():
        if families.get(shape.family).trains:
            families.require_named(name)


def test_a_family_of_a_program_is_one_row(tmp_path, toy_family):  # noqa: F811
    folder = write_files(tmp_path)
    shape = shapes.of_base(str(folder), folder)
    assert (shape.family, shape.head_dim) == ("toy", 16)
    tokenizer = ChatTokenizer(folder)
    families.require_template(ROW, tokenizer, "toy")
    prompt, response = tokenizer.prompt_and_response_ids([Message("user", "u")], "a")
    assert (tokenizer.decode(prompt), tokenizer.decode(response)) == ("[user]u[END][assistant]", "a[END]")
    assert tokenizer.markers() == ("[user]", "[assistant]")
    assert faults("before [END] after", "user") == [
        ("contains the control token [END]", "remove it, or spell it so that it is not a token")
    ]
    assert families.end_tokens() == ("<|im_end|>", END, "<|endoftext|>", "[EOT]")
    assert "Toy" in families.supported()


def test_the_toy_is_not_known_without_its_row(tmp_path):
    with pytest.raises(SlimtuneError, match="'mistral'"):
        shapes.of_base("toy", write_files(tmp_path))
    assert faults("before [END] after", "user") == []


def test_a_row_that_cannot_be_registered(toy_family):  # noqa: F811
    with pytest.raises(ValueError, match="registered already"):
        families.register(toy_family)


def test_old_copies_of_a_model_are_read_as_before(tmp_path):
    """The built-in model's files, elsewhere: a folder decides by its config, never by its name."""
    from slimtune.models import builtin

    folder = tmp_path / "gemma-2-9b-it"
    shutil.copytree(builtin.resolve("builtin:tiny-qwen3"), folder)
    assert shapes.of_base(str(folder), folder).family == "qwen3"
