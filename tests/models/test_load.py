"""What ships is what was trained: an adapter that is loaded again is the one that was asked, to the bit."""

import errno
import json
import os
import shutil

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation, Message
from slimtune.evaluate.targets.target import Facts, Prompt

pytestmark = pytest.mark.unsloth

PROMPTS = [Prompt((Message("user", f"Article {n}?"),), ("a", "b", "c", "d")) for n in range(3)]


def letters(model, folder, precision):
    """The log probabilities of the choices, as a run's evaluation reads them."""
    from slimtune.evaluate.targets.local_target import LocalTarget

    target = LocalTarget(
        model, ChatTokenizer(folder), facts=Facts("test"), precision=precision, batch_size=3, max_length=512
    )
    return [answer.logprobs for answer in target.score(PROMPTS)]


@pytest.fixture(params=["0", "1"], ids=["fp32", "bf16"])
def bf16(request):
    """Both kinds of processor, whatever this one is. Unsloth asks once and remembers the answer."""
    from unsloth_zoo.cpu import runtime

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNSLOTH_CPU_BF16", request.param)
        runtime.cpu_bf16_supported.cache_clear()
        yield request.param == "1"
    runtime.cpu_bf16_supported.cache_clear()


@pytest.mark.parametrize("four_bit", [True, False], ids=["4bit", "16bit"])
def test_an_adapter_is_loaded_as_it_was_trained(bf16, four_bit, make_trainer, tiny_model, tmp_path):
    import torch
    from safetensors.torch import load_file

    from slimtune.models import load as models

    folder, precision = tiny_model("qwen3"), torch.bfloat16 if bf16 else torch.float32
    rows = [Conversation((Message("user", f"Article {n}."), Message("assistant", "abcd"[n]))) for n in range(4)]
    examples = [example for row in rows for example in ChatTokenizer(folder).examples(row)]
    trainer = make_trainer("qwen3", examples, load_in_4bit=four_bit)
    trained, asked = trainer.model, {}
    for seed, name in enumerate(["default", "other"]):
        torch.manual_seed(seed)
        for key, weight in trained.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.1)
        models.save_adapter(trained, trainer.processing_class, tmp_path / name, base=str(folder), revision=None)
        asked[name] = letters(trained, folder, precision)
    assert asked["default"] != asked["other"]

    model, computes_in = models.load_to_ask(folder, load_in_4bit=four_bit, max_seq_length=512)
    assert computes_in == precision
    for name in asked:
        model = models.add_adapter(model, tmp_path / name, name)
    weights = dict(model.named_parameters())
    for name, judged in asked.items():
        for key, saved in load_file(tmp_path / name / "adapter_model.safetensors").items():
            loaded = weights[key.replace(".weight", f".{name}.weight")]
            assert loaded.dtype == saved.dtype and torch.equal(loaded, saved), key
        model.set_adapter(name)
        assert letters(model, folder, precision) == judged


@pytest.mark.parametrize("four_bit", [True, False], ids=["4bit", "16bit"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: tensors.pop("model.layers.1.self_attn.q_proj.weight"), "q_proj.weight (missing)"),
        (lambda tensors: tensors.update(other=tensors["model.norm.weight"].clone()), "other (unexpected)"),
    ],
)
def test_what_transformers_would_make_up_is_refused(four_bit, change, told, tiny_model, tmp_path):
    """Should the comparison of the headers miss something, the loading report does not."""
    from safetensors.torch import load_file, save_file

    from slimtune.models import load as models

    folder = shutil.copytree(tiny_model("qwen3"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SlimtuneError) as caught:
        models.load_to_ask(folder, load_in_4bit=four_bit, max_seq_length=64)
    assert caught.value.problems[0].what.startswith("1 tensor did not load as config.json demands: ")
    assert told in caught.value.problems[0].what
    assert caught.value.problems[0].where == str(folder)


def test_weights_that_peft_would_drop_or_make_up_are_refused(make_trainer, tiny_model, tmp_path):
    from safetensors.torch import load_file, save_file

    from slimtune.models import load as models

    folder = tiny_model("qwen3")
    rows = [Conversation((Message("user", "q"), Message("assistant", "a")))]
    examples = [example for row in rows for example in ChatTokenizer(folder).examples(row)]
    trainer = make_trainer("qwen3", examples)
    models.save_adapter(trainer.model, trainer.processing_class, tmp_path / "a", base=str(folder), revision=None)
    file = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(iter(tensors))
    save_file({name: tensor for name, tensor in tensors.items() if name != key} | {"x": tensors[key]}, file)
    model, _ = models.load_to_ask(folder, load_in_4bit=True, max_seq_length=64)
    with pytest.raises(SlimtuneError) as caught:
        models.add_adapter(model, tmp_path / "a")
    assert caught.value.problems[0].what == f"2 tensors of adapter and base do not fit each other: {key}, x"


def test_a_config_that_transformers_cannot_read_is_one_sentence(tiny_model, tmp_path):
    from slimtune.models import load as models

    folder = shutil.copytree(tiny_model("qwen3"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"layer_types": [5], "hidden_act": "unheard-of"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SlimtuneError, match="the model cannot be loaded: ") as caught:
        models.load_to_ask(folder, load_in_4bit=False, max_seq_length=64)
    assert caught.value.problems[0].where == str(folder)


@pytest.mark.parametrize("said", ["the system", "safetensors"])
def test_an_adapter_is_saved_whole_or_not_at_all(make_trainer, tiny_model, tmp_path, monkeypatch, said):
    from safetensors import SafetensorError

    from slimtune.models import load as models

    rows = [Conversation((Message("user", "Article 1."), Message("assistant", "a")))]
    trainer = make_trainer("qwen3", ChatTokenizer(tiny_model("qwen3")).examples(rows[0]))

    def save(name):
        models.save_adapter(trainer.model, trainer.processing_class, tmp_path / name, base="tiny", revision=None)

    def full(*given, **named):
        what = "I/O error: No space left on device (os error 28)"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if said == "the system" else SafetensorError(what)

    (tmp_path / "adapter.partial").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("peft.peft_model.safe_save_file", full)
        with pytest.raises(SlimtuneError, match=r"adapter: the disk is full"):
            save("adapter")
    assert [path.name for path in tmp_path.iterdir() if "adapter" in path.name] == ["adapter.partial"]
    save("adapter")
    (tmp_path / "adapter/notes.txt").touch()
    with pytest.raises(SlimtuneError, match=r"holds files that Slimtune did not write: notes\.txt"):
        save("adapter")
