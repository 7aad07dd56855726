"""Tiny models load as any checkpoint does; the one that ships is what its builder makes."""

import json

import pytest
from support.chat_templates import chat_template

from slimtune.core.errors import SlimtuneError
from slimtune.models import builtin


@pytest.mark.parametrize(
    ("family", "tied"),
    [
        ("qwen2", False),
        ("qwen3", True),
        pytest.param("qwen2", True, marks=pytest.mark.slow),
        pytest.param("qwen3", False, marks=pytest.mark.slow),
    ],
)
def test_the_four_kinds_load_and_compute(tiny_model, family, tied):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model(family, tied))
    assert type(model).__name__ == {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}[family]
    shared = model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert shared is tied
    logits = model(torch.tensor([[1, 2, 3]])).logits
    assert logits.shape == (1, 3, model.config.vocab_size)
    assert torch.isfinite(logits).all()


def test_the_same_seed_gives_the_same_bytes(tiny_model, tmp_path):
    from scripts.builtin import models

    template = (tiny_model("qwen3") / "chat_template.jinja").read_text(encoding="utf-8")
    again = models.build_random_model(tmp_path / "m", family="qwen3", tied=True, chat_template=template)
    ours, theirs = (folder / "model.safetensors" for folder in (again, tiny_model("qwen3")))
    assert ours.read_bytes() == theirs.read_bytes()


def test_the_checkpoint_is_small_real_and_safe():
    folder = builtin.resolve("builtin:tiny-qwen3")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8 * 2**20
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert {path.suffix for path in folder.iterdir()} == {".json", ".jinja", ".safetensors"}


def test_the_checkpoints_template_is_the_one_that_unsloth_ships():
    folder = builtin.resolve("builtin:tiny-qwen3")
    assert (folder / "chat_template.jinja").read_text(encoding="utf-8") == chat_template("qwen3")


def test_an_unknown_builtin_is_an_error_that_names_the_known_ones():
    with pytest.raises(SlimtuneError, match="builtin:tiny-qwen3"):
        builtin.resolve("builtin:tiny-qwen4")


@pytest.mark.unsloth
def test_pretraining_never_shows_a_four_choice_question():
    import random

    from scripts.builtin import pretrain, quiz

    stream = pretrain.lessons(random.Random(1))
    for _ in range(500):
        conversation = next(stream)
        for message in conversation.messages:
            assert quiz.QUESTION not in message.content
            assert "どれか" not in message.content
            if message.role == "assistant" and not conversation.messages[0].content.startswith("次"):
                assert message.content not in "abcd"


def share_of_facts_known(folder):
    """Of the world's activities, how many the model answers "要る" or "要らない" for, and rightly, greedily."""
    import torch
    from transformers import AutoModelForCausalLM

    from scripts.builtin import world
    from slimtune.data.chat_template import ChatTokenizer
    from slimtune.data.records import Message

    tokenizer = ChatTokenizer(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    right = 0
    for activity in world.ACTIVITIES:
        prompt = tokenizer.prompt_ids([Message("user", f"{activity}には届出が要るか。")])
        reply = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :]
        expected = "要る" if world.must_be_notified(activity) else "要らない"
        right += tokenizer.decode(reply.tolist()).partition("<|im_end|>")[0] == expected
    return right / len(world.ACTIVITIES)


def test_the_checkpoint_knows_its_world():
    assert share_of_facts_known(builtin.resolve("builtin:tiny-qwen3")) >= 0.95


@pytest.mark.slow
@pytest.mark.unsloth
def test_the_builder_makes_the_checkpoint_again(tmp_path):
    """Text files byte for byte; weights too on a processor like the one it was built on, elsewhere as good."""
    from scripts.builtin import pretrain

    assert pretrain.pretrain(tmp_path) < 0.02
    folder = builtin.resolve("builtin:tiny-qwen3")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    same = (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert same or share_of_facts_known(tmp_path) >= 0.95
