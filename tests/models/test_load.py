"""What ships is what was trained: an adapter that is loaded again is the one that was asked, to the bit."""

import pytest

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
